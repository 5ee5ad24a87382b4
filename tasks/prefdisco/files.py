"""PrefDisco record files: JSON lines of a problem, a persona, preferences and a rubric, checked line by line.

The first line describes the set; every other one is a (problem, persona) pair.  What a file gets wrong is repaired or
left out by a rule, and every case is counted.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from personabench.errors import DataError, UsageError
from personabench.tasks.prefdisco.sources import SOURCES, Problem, problem_of

SAMPLE = Path(__file__).parent / "sample"
SIZES = ("1k", "5k")
LARGE = ("aime", "commonsenseqa", "medqa", "socialiqa")
ANCHORS = ("1", "3", "5")
TOLERANCE = 0.05
COUNTED = {
    "unknown_type": "lines of an unknown type left out",
    "failed": "records whose generation failed left out",
    "duplicate": "records with a repeated id left out",
    "no_question": "records without a question left out",
    "importance": "preferences without an importance of 1 to 5 left out",
    "levels": "criteria without levels 1, 3 and 5 left out",
    "surplus": "criteria without a preference, or one more for the same, left out",
    "missing": "preferences without a criterion, which no judge sees",
    "no_criteria": "records without criteria left out",
    "weights": "rubrics whose own weights are negative or do not sum to 1 (they count only with weights=rubric)",
    "no_image": "records whose image is not there",
}
"""What is counted when a file is read, in words."""


class Preference(msgspec.Struct, frozen=True):
    """What a persona wants of an answer in one respect, and how much it matters for this problem (1 to 5)."""

    value: str
    importance: int
    justification: str = ""
    type: str = ""


class Criterion(msgspec.Struct, frozen=True):
    """How well an answer meets one preference: the levels' descriptions by score, and the rubric's own weight."""

    name: str
    description: str
    weight: float
    levels: Mapping[str, str]


class Entry(msgspec.Struct, frozen=True):
    """A problem posed by a persona; `persona` holds the fields of the file, `problem` counts within its file."""

    id: str
    persona_id: str
    problem: Problem
    persona: Mapping[str, Any]
    preferences: Mapping[str, Preference]
    criteria: tuple[Criterion, ...]

    @property
    def key(self) -> str:
        """What equal problems share: the question in lower case and single spaces."""
        return folded(self.problem.question)


class Loaded(NamedTuple):
    """A file's records in order, what was counted on the way, and the set's own description."""

    entries: list[Entry]
    counts: Counter[str]
    metadata: Mapping[str, Any]

    def warnings(self) -> list[str]:
        """The counts for people."""
        return [f"{count} {COUNTED[name]}" for name, count in self.counts.items() if count]


def folded(text: str) -> str:
    """A text without regard to case and spacing."""
    return " ".join(text.casefold().split())


def read(path: Path) -> Loaded:
    """The records of a file.

    Raises:
        DataError: a line is not JSON, lacks a field, or nothing usable is left; the message names file, line and field.
    """
    counts: Counter[str] = Counter()
    metadata: Mapping[str, Any] = {}
    entries: dict[str, Entry] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}: line {number}"
            try:
                row = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise DataError(f"{where} is not JSON: {error}; the file may be cut off") from error
            kind = row.get("type") if isinstance(row, dict) else None
            if kind == "metadata":
                metadata = row
            elif kind != "personalized_problem":
                counts["unknown_type"] += 1
            elif row.get("generation_success") is False:
                counts["failed"] += 1
            elif str(row.get("problem_id")) in entries:
                counts["duplicate"] += 1
            elif entry := _entry(row, where, path.parent, counts):
                entries[entry.id] = entry
    if not entries:
        told = "; ".join(Loaded([], counts, metadata).warnings())
        raise DataError(f"{path} holds no usable records{f' ({told})' if told else ''}")
    return Loaded(list(entries.values()), counts, metadata)


def _entry(row: Mapping[str, Any], where: str, folder: Path, counts: Counter[str]) -> Entry | None:
    for field, wanted in (("problem_id", str), ("persona", dict), ("persona_preferences", dict)):
        if not isinstance(row.get(field), wanted):
            raise DataError(f"{where}: field {field} is missing or not {wanted.__name__}")
    name = row["problem_id"]
    try:
        problem = problem_of(row)
    except ValueError as error:
        raise DataError(f"{where}: {name}: {error}") from error
    if not problem.question:
        counts["no_question"] += 1
        return None
    preferences = {}
    for title, told in row["persona_preferences"].items():
        if preference := _preference(told):
            preferences[title] = preference
        else:
            counts["importance"] += 1
    rubric = row.get("evaluation_rubric")
    listed = rubric.get("evaluation_criteria") if isinstance(rubric, dict) else None
    criteria = {}
    weights = []
    for number, told in enumerate(listed if isinstance(listed, list) else (), 1):
        if not isinstance(told, dict) or not isinstance(told.get("preference"), str):
            raise DataError(f"{where}: criterion {number} of {name} names no preference")
        weights.append(_number(told.get("weight")))
        levels = _levels(told.get("levels"))
        if told["preference"] not in preferences or told["preference"] in criteria:
            counts["surplus"] += 1
        elif not set(ANCHORS) <= levels.keys():
            counts["levels"] += 1
        else:
            title = told["preference"]
            weight = max(weights[-1] or 0.0, 0.0)
            criteria[title] = Criterion(title, str(told.get("description", "")), weight, levels)
    if not criteria:
        counts["no_criteria"] += 1
        return None
    counts["missing"] += len(preferences.keys() - criteria.keys())
    whole = abs(sum(weight or 0.0 for weight in weights) - 1) <= TOLERANCE
    counts["weights"] += not whole or any(weight is None or weight < 0 for weight in weights)
    if problem.image and "://" not in problem.image and not (folder / problem.image).is_file():
        counts["no_image"] += 1
    return Entry(
        name, _persona_id(row), problem, row["persona"], preferences, tuple(criteria.values())
    )


def _preference(told: Any) -> Preference | None:
    importance = _number(told.get("local_importance")) if isinstance(told, dict) else None
    if importance not in (1, 2, 3, 4, 5):
        return None
    texts = (str(told.get(field) or "") for field in ("justification", "type"))
    return Preference(str(told.get("value", "")), int(importance), *texts)


def _levels(told: Any) -> dict[str, str]:
    """Levels given as a list of {score, description} or as a mapping of score to description."""
    if isinstance(told, dict):
        pairs = list(told.items())
    else:
        rows = [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []
        pairs = [(each.get("score"), each.get("description", "")) for each in rows]
    numbers = [(_number(score), str(text)) for score, text in pairs]
    return {
        str(int(score)): text for score, text in numbers if score is not None and score.is_integer()
    }


def _number(value: Any) -> float | None:
    try:
        number = None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number is not None and math.isfinite(number) else None


def _persona_id(row: Mapping[str, Any]) -> str:
    named = re.fullmatch(r"problem_\d+_(.+)", row["problem_id"])
    return str(row["persona"].get("id") or (named[1] if named else row["persona"].get("name", "")))


def locate(split: str, data: Path | None) -> tuple[str, str, Path]:
    """Size, task and file of a split: `math`, `5k/medqa`, or the name of a file made elsewhere.

    Without a folder it is the bundled sample; with one, `sample` means the only set there.

    Raises:
        UsageError: there is no such set, or several to choose from.
    """
    if data is None:
        if split not in ("sample", "prefdisco"):
            raise UsageError(
                f"the bundled sample has no split '{split}'; fetch it with `personabench download prefdisco "
                f"--split {split}` and pass --data, or leave out --split"
            )
        return "sample", "sample", SAMPLE / "train.jsonl"
    found = available(data)
    if split == "sample" and len(found) == 1:
        (split,) = found
    if split not in found:
        have = (
            ", ".join(found) or "none (expected benchmark_1k/<task>/train.jsonl, or files *.jsonl)"
        )
        raise UsageError(
            f"{data} has no PrefDisco set '{split}'; it has: {have}. Choose one with --split"
        )
    size, _, task = split.rpartition("/")
    return size or ("1k" if split in SOURCES else "local"), task, found[split]


def available(data: Path) -> dict[str, Path]:
    """The sets of a folder by split: the released layout, and record files of any name."""
    found: dict[str, Path] = {}
    for root in (data, data / "prefdisco"):
        for size in SIZES:
            for path in sorted(root.glob(f"benchmark_{size}/*/*.jsonl")):
                found.setdefault(f"{'' if size == '1k' else f'{size}/'}{path.parent.name}", path)
        for path in sorted(root.glob("*.jsonl")):
            found.setdefault(path.stem.removeprefix("personalized_"), path)
    return found
