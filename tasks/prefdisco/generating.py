"""New sets of records from any source benchmark or a local file (section 3 of the paper, in this project's words).

Problems follow one another, because each adds to the list of known dimensions and to what its people wanted before;
the people of a problem are worked on at once.  The same command asks the same again, so the cache continues what was
cut off.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from personabench.errors import DataError, UsageError
from personabench.tasks.prefdisco import attributes, personas, sources, wording
from personabench.tasks.prefdisco.asking import Authors
from personabench.tasks.prefdisco.files import read
from personabench.types import to_json

if TYPE_CHECKING:
    from personabench.models.roles import Role

PEOPLE = "personas.json"
REMEMBERED = 40


class _Life(msgspec.Struct):
    age: int
    occupation: str
    location: str


class _Known(msgspec.Struct):
    """What has to be known of a person for others to be made unlike them."""

    id: str
    name: str
    minimal_necessary_description: str
    demographics: _Life


async def generate(
    source: str,
    target: Path,
    models: Sequence[Role],
    *,
    problems: int,
    people: int,
    library: int,
    seed: int,
    notice: Callable[[str], None],
) -> Path:
    """Write `target/<source>.jsonl`, and the people to `target/personas.json`, which other sets there share.

    Args:
        source: a benchmark of the list, or a file of problems.
        models: the authors, one or more.
        problems: how many; people: for each problem, of the `library` in all.
        seed: of every draw.
        notice: told what is done and what was left out.

    Raises:
        UsageError: numbers that cannot work, or no such source.
        DataError: the source has no problems, or no record came about.
        BackendError: a call failed for good; the same command goes on from there.
    """
    if not 1 <= people <= library or problems < 1:
        raise UsageError(
            f"--personas {people} must be 1 or more and at most --persona-pool {library}, --problems 1 or more"
        )
    name, rows = sources.rows(source, problems)
    found = [sources.normalised(row) for row in rows]
    authors = Authors(models, seed)
    before = _known(target / PEOPLE)
    everybody = await personas.library(authors, library, before)
    stored = [*everybody, *before[library:]]
    _write(
        target / PEOPLE,
        [msgspec.json.format(msgspec.json.encode(stored, order="sorted"), indent=1).decode()],
    )
    notice(f"{len(stored)} people in {target / PEOPLE}")
    general = await attributes.general(authors, name, found)
    listed = await asyncio.gather(
        *(
            _kept(attributes.of_problem(authors, number, problem), notice)
            for number, problem in enumerate(found)
        )
    )
    known = list(general)
    earlier: dict[str, dict[str, str]] = defaultdict(dict)
    records: list[Mapping[str, Any]] = []
    for number, (row, problem, new) in enumerate(zip(rows, found, listed, strict=True)):
        if new is None:
            continue
        dimensions = await attributes.matched(authors, number, new, known)
        for each in dimensions.values():
            if all(each["name"] != other["name"] for other in known):
                known.append(each)
        dimensions = {
            **{each["name"]: {**each, "type": "personal"} for each in general},
            **dimensions,
        }
        chosen = authors.rng("people of problem", number).sample(everybody, people)
        made = await asyncio.gather(
            *(
                _kept(_record(authors, number, row, problem, person, dimensions, earlier), notice)
                for person in chosen
            )
        )
        for record in filter(None, made):
            wants = record["persona_preferences"]
            earlier[record["persona"]["id"]] |= {
                each: told["value"] for each, told in wants.items()
            }
            records.append(record)
        notice(
            f"problem {number + 1} of {len(found)}: {sum(each is not None for each in made)} of {people} records"
        )
    if not records:
        raise DataError(
            f"no record of {source} came about; see the notices above, and try a stronger model"
        )
    head = {
        "type": "metadata",
        "dataset": name,
        "general_preferences": {each["name"]: each for each in general},
        "total_personas_in_library": library,
        "personas_per_problem": people,
        "sample_size": len(found),
        "authors": [dict(model.identity) for model in models],
        "seed": seed,
    }
    final = target / f"{name}.jsonl"
    _write(final, itertools.chain([to_json(head)], map(to_json, records)))
    for warning in read(final).warnings():
        notice(warning)
    return final


async def _record(
    authors: Authors,
    number: int,
    row: Mapping[str, Any],
    problem: sources.Problem,
    person: Mapping[str, Any],
    dimensions: Mapping[str, attributes.Dimension],
    earlier: Mapping[str, Mapping[str, str]],
) -> Mapping[str, Any]:
    name = f"problem_{number}_{person['id']}"
    before = dict(list(earlier.get(person["id"], {}).items())[-REMEMBERED:])
    described = wording.persona_text(person)
    wants = await attributes.instantiated(authors, name, described, problem, dimensions, before)
    return {
        "type": "personalized_problem",
        "problem_id": name,
        "original_problem": {key: value for key, value in row.items() if _plain(value)},
        "parsed_problem": msgspec.to_builtins(problem),
        "persona": dict(person),
        "persona_preferences": wants,
        "evaluation_rubric": {
            "evaluation_criteria": await attributes.rubric(authors, name, problem, wants)
        },
        "generation_success": True,
    }


async def _kept(work: Any, notice: Callable[[str], None]) -> Any:
    """What some work came to; None, told, where the authors did not manage it."""
    try:
        return await work
    except DataError as error:
        notice(f"left out: {error}")
        return None


def _plain(value: Any) -> bool:
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, bytes) and not (isinstance(value, dict) and "bytes" in value)


def _known(path: Path) -> list[personas.Persona]:
    if not path.is_file():
        return []
    try:
        known = msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]])
        msgspec.convert(known, list[_Known])
    except msgspec.DecodeError as error:
        raise DataError(
            f"{path} is no list of people ({error}); move it away or choose another folder"
        ) from error
    return known


def _write(path: Path, lines: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    part.replace(path)
