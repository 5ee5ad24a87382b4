"""Generation of record sets from a source benchmark or a local file (section 3 of the paper).

Problems follow one another, because each adds to the known dimensions and to the earlier wishes of
its personas.  The personas of one problem are processed concurrently.  A repeated command sends the
same requests, so that the response cache continues an interrupted one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from personabench.errors import DataError, UsageError
from personabench.tasks.prefdisco import dimensions, sources, wording
from personabench.tasks.prefdisco.authoring import Authors
from personabench.tasks.prefdisco.dimensions import Dimension
from personabench.tasks.prefdisco.files import read_records
from personabench.tasks.prefdisco.personas import Persona, make_personas
from personabench.types import to_json

if TYPE_CHECKING:
    from personabench.models.roles import Role

T = TypeVar("T")
Notice = Callable[[str], None]

PERSONA_FILE = "personas.json"

# A persona's earlier wishes grow with every problem; the last ones keep the request short.
REMEMBERED = 40


class _Life(msgspec.Struct):
    age: int
    occupation: str
    location: str


class _StoredPersona(msgspec.Struct):
    """The fields of a stored persona from which further ones are made unlike it."""

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
    notice: Notice,
) -> Path:
    """Write `target/<source>.jsonl`, and the personas to `target/personas.json`.

    Other sets in the folder share the personas.

    Args:
        source: a known benchmark, or a file of problems.
        target: the folder of the set.
        models: the authors, one or more.
        problems: number of problems.
        people: number of personas for each problem.
        library: number of personas in all.
        seed: seed of all draws.
        notice: receives progress and warnings.

    Raises:
        UsageError: numbers that cannot work, or no such source.
        DataError: the source has no problems, or no record could be made.
        BackendError: a call failed for good; the same command continues from there.
    """
    if not 1 <= people <= library or problems < 1:
        raise UsageError(
            f"--personas {people} must be 1 or more and at most --persona-pool {library}, "
            "--problems 1 or more"
        )
    name, rows = sources.read_rows(source, problems)
    generator = _Generator(Authors(models, seed), name, rows, notice)
    pool = await generator.prepare_personas(target / PERSONA_FILE, library)
    records = await generator.write_records(pool, people)
    if not records:
        raise DataError(
            f"no record of {source} could be made; see the notices above, and try a stronger model"
        )

    metadata = {
        "type": "metadata",
        "dataset": name,
        "general_preferences": {
            dimension["name"]: dimension for dimension in generator.general_dimensions
        },
        "total_personas_in_library": library,
        "personas_per_problem": people,
        "sample_size": len(rows),
        "authors": [dict(model.identity) for model in models],
        "seed": seed,
    }
    path = target / f"{name}.jsonl"
    _write_lines(path, map(to_json, [metadata, *records]))

    # Reading the set back reports the same defects that every later run would.
    for warning in read_records(path).warnings():
        notice(warning)
    return path


class _Generator:
    """The state of a set in the making: known dimensions, and each persona's earlier wishes."""

    def __init__(
        self,
        authors: Authors,
        name: str,
        rows: Sequence[Mapping[str, Any]],
        notice: Notice,
    ) -> None:
        self.authors = authors
        self.name = name
        self.rows = rows
        self.problems = [sources.normalize_row(row) for row in rows]
        self.notice = notice
        self.general_dimensions: list[Dimension] = []
        self.known_dimensions: list[Dimension] = []
        self.earlier_values: dict[str, dict[str, str]] = defaultdict(dict)

    async def prepare_personas(self, path: Path, count: int) -> list[Persona]:
        """Complete the personas of a folder to `count`, and store them at once."""
        stored = _read_personas(path)
        pool = await make_personas(self.authors, count, stored)
        # A smaller pool than before must not delete the personas of other sets.
        everyone = [*pool, *stored[count:]]
        content = msgspec.json.encode(everyone, order="sorted")
        _write_lines(path, [msgspec.json.format(content, indent=1).decode()])
        self.notice(f"{len(everyone)} personas in {path}")
        return pool

    async def write_records(self, pool: Sequence[Persona], count: int) -> list[Mapping[str, Any]]:
        """Write the records of all problems, with `count` personas of the pool for each."""
        self.general_dimensions = await dimensions.name_general_dimensions(
            self.authors, self.name, self.problems
        )
        self.known_dimensions = list(self.general_dimensions)

        # Naming does not depend on other problems, so it runs concurrently; matching does.
        tasks = [
            self._keep(dimensions.name_problem_dimensions(self.authors, number, problem))
            for number, problem in enumerate(self.problems)
        ]
        named = await asyncio.gather(*tasks)

        records: list[Mapping[str, Any]] = []
        for number, new_dimensions in enumerate(named):
            if new_dimensions is None:
                continue
            matched = await self._match_dimensions(number, new_dimensions)
            rng = self.authors.make_rng("people of problem", number)
            personas = rng.sample(pool, count)
            written = await self._write_problem(number, personas, matched)
            records += written
            self.notice(
                f"problem {number + 1} of {len(self.problems)}: {len(written)} of {count} records"
            )
        return records

    async def _match_dimensions(
        self, number: int, new_dimensions: Sequence[Dimension]
    ) -> dict[str, Dimension]:
        """All dimensions of a problem, the general ones first; new ones become known."""
        matched = await dimensions.match_dimensions(
            self.authors, number, new_dimensions, self.known_dimensions
        )
        known_names = {dimension["name"] for dimension in self.known_dimensions}
        self.known_dimensions += [
            dimension for name, dimension in matched.items() if name not in known_names
        ]

        general = {
            dimension["name"]: {**dimension, "type": "personal"}
            for dimension in self.general_dimensions
        }
        return {**general, **matched}

    async def _write_problem(
        self,
        number: int,
        personas: Sequence[Persona],
        problem_dimensions: Mapping[str, Dimension],
    ) -> list[Mapping[str, Any]]:
        """Write the records of one problem and remember the wishes in them."""
        tasks = [
            self._keep(self._write_record(number, persona, problem_dimensions))
            for persona in personas
        ]
        written = await asyncio.gather(*tasks)
        records = [record for record in written if record is not None]
        for record in records:
            values = self.earlier_values[record["persona"]["id"]]
            for name, preference in record["persona_preferences"].items():
                values[name] = preference["value"]
        return records

    async def _write_record(
        self,
        number: int,
        persona: Persona,
        problem_dimensions: Mapping[str, Dimension],
    ) -> Mapping[str, Any]:
        """Write the record of one problem and persona."""
        name = f"problem_{number}_{persona['id']}"
        row = self.rows[number]
        problem = self.problems[number]
        earlier = list(self.earlier_values.get(persona["id"], {}).items())
        preferences = await dimensions.assign_preferences(
            self.authors,
            name,
            wording.describe_persona(persona),
            problem,
            problem_dimensions,
            dict(earlier[-REMEMBERED:]),
        )
        criteria = await dimensions.write_rubric(self.authors, name, problem, preferences)
        return {
            "type": "personalized_problem",
            "problem_id": name,
            "original_problem": {key: value for key, value in row.items() if _is_storable(value)},
            "parsed_problem": msgspec.to_builtins(problem),
            "persona": dict(persona),
            "persona_preferences": preferences,
            "evaluation_rubric": {"evaluation_criteria": criteria},
            "generation_success": True,
        }

    async def _keep(self, work: Awaitable[T]) -> T | None:
        """Await some work; None, with a notice, if the authors gave no usable reply."""
        try:
            return await work
        except DataError as error:
            self.notice(f"left out: {error}")
            return None


def _is_storable(value: Any) -> bool:
    """Whether a source's field goes into a record: JSON, and no image bytes."""
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError):
        return False
    # msgspec encodes bytes as base64, which would put whole images into the file.
    is_image = isinstance(value, dict) and "bytes" in value
    return not isinstance(value, bytes) and not is_image


def _read_personas(path: Path) -> list[Persona]:
    """Read the personas of a folder.

    Raises:
        DataError: the file holds something else, which must not be overwritten.
    """
    if not path.is_file():
        return []
    try:
        personas = msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]])
        msgspec.convert(personas, list[_StoredPersona])
    except msgspec.DecodeError as error:
        raise DataError(
            f"{path} is not a list of personas ({error}); move it away or choose another folder"
        ) from error
    return personas


def _write_lines(path: Path, texts: Iterable[str]) -> None:
    """Replace a file; an interrupted command leaves the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in texts)
    part.replace(path)
