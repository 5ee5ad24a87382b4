"""PrefDisco record files: JSON lines of problem, persona, preferences and rubric.

The first line describes the set; every other line is a pair of a problem and a persona.  Errors in
a file are repaired or left out by fixed rules, and every case is counted.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from personabench.errors import DataError, UsageError
from personabench.hashing import fold_text
from personabench.tasks.prefdisco.sources import SOURCES, Problem, parse_problem

EXAMPLE_FILE = Path(__file__).parent / "sample" / "train.jsonl"
SIZES = ("1k", "5k")
LARGE = ("aime", "commonsenseqa", "medqa", "socialiqa")
ANCHORS = ("1", "3", "5")

# Weights that a model wrote rarely sum to exactly 1.
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
    "weights": "rubrics whose own weights are negative or do not sum to 1 "
    "(they count only with weights=rubric)",
    "no_image": "records whose image file is missing",
}
"""Defects that are counted when a file is read, in words."""


class Preference(msgspec.Struct, frozen=True):
    """A persona's wish for one quality of an answer, with its importance (1 to 5)."""

    value: str
    importance: int
    justification: str = ""
    type: str = ""


class Criterion(msgspec.Struct, frozen=True):
    """How to grade one preference: level descriptions by score, and the rubric's weight."""

    name: str
    description: str
    weight: float
    levels: Mapping[str, str]


class Entry(msgspec.Struct, frozen=True):
    """A problem posed by a persona; `persona` holds the fields of the file."""

    id: str
    persona_id: str
    problem: Problem
    persona: Mapping[str, Any]
    preferences: Mapping[str, Preference]
    criteria: tuple[Criterion, ...]

    @property
    def key(self) -> str:
        """Key that equal problems share: the folded question."""
        return fold_text(self.problem.question)


class RecordFile(NamedTuple):
    """A file's records in order, the counts of its defects, and the set's description."""

    entries: list[Entry]
    counts: Counter[str]
    metadata: Mapping[str, Any]

    def warnings(self) -> list[str]:
        """Describe the counted defects in words."""
        return [f"{count} {COUNTED[name]}" for name, count in self.counts.items() if count]


def read_records(path: Path) -> RecordFile:
    """Read the records of a file.

    Raises:
        DataError: a line is not JSON or lacks a field, or nothing usable is left; the message names
            file, line and field.
    """
    counts: Counter[str] = Counter()
    metadata: Mapping[str, Any] = {}
    entries: dict[str, Entry] = {}

    for location, row in _iterate_rows(path):
        kind = row.get("type") if isinstance(row, dict) else None
        if kind == "metadata":
            metadata = row
            continue

        defect = _find_defect(row, kind, entries)
        if defect:
            counts[defect] += 1
            continue

        entry = _parse_entry(row, location, path.parent, counts)
        if entry:
            entries[entry.id] = entry

    if not entries:
        defects = "; ".join(RecordFile([], counts, metadata).warnings())
        details = f" ({defects})" if defects else ""
        raise DataError(f"{path} holds no usable records{details}")
    return RecordFile(list(entries.values()), counts, metadata)


def locate_set(split: str, data: Path | None) -> tuple[str, str, Path]:
    """Find size, task and file of a split: `math`, `5k/medqa`, or a file made elsewhere.

    Without a folder it is the example data; with one, `sample` means the only set in it.

    Raises:
        UsageError: there is no such set, or several to choose from.
    """
    if data is None:
        if split not in ("sample", "prefdisco"):
            raise UsageError(
                f"the example data has no split '{split}'; fetch it with "
                f"`personabench download prefdisco --split {split}` and pass --data, "
                "or leave out --split"
            )
        return "sample", "sample", EXAMPLE_FILE

    sets = find_sets(data)
    if split == "sample" and len(sets) == 1:
        (split,) = sets
    if split not in sets:
        expected = "none (expected benchmark_1k/<task>/train.jsonl, or files *.jsonl)"
        available = ", ".join(sets) or expected
        raise UsageError(
            f"{data} has no PrefDisco set '{split}'; it has: {available}. Choose one with --split"
        )

    size, _, task = split.rpartition("/")
    default_size = "1k" if split in SOURCES else "local"
    return size or default_size, task, sets[split]


def find_sets(data: Path) -> dict[str, Path]:
    """Find the sets of a folder by split: the released layout, and record files of any name."""
    sets: dict[str, Path] = {}
    for root in (data, data / "prefdisco"):
        for size in SIZES:
            # The small sets are the paper's main results, so their splits go without a size.
            prefix = "" if size == "1k" else f"{size}/"
            for path in sorted(root.glob(f"benchmark_{size}/*/*.jsonl")):
                sets.setdefault(f"{prefix}{path.parent.name}", path)
        for path in sorted(root.glob("*.jsonl")):
            sets.setdefault(path.stem.removeprefix("personalized_"), path)
    return sets


def _iterate_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the decoded lines of a file with their location for messages."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            location = f"{path}: line {number}"
            try:
                row = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise DataError(
                    f"{location} is not JSON: {error}; the file may be truncated"
                ) from error
            yield location, row


def _find_defect(row: Any, kind: Any, entries: Mapping[str, Entry]) -> str | None:
    """Name the defect for which a line is left out without parsing it."""
    if kind != "personalized_problem":
        return "unknown_type"
    if row.get("generation_success") is False:
        return "failed"
    if str(row.get("problem_id")) in entries:
        return "duplicate"
    return None


def _parse_entry(
    row: Mapping[str, Any],
    location: str,
    folder: Path,
    counts: Counter[str],
) -> Entry | None:
    """Parse a record, counting its defects; None if it cannot be used."""
    for field, kind in (("problem_id", str), ("persona", dict), ("persona_preferences", dict)):
        if not isinstance(row.get(field), kind):
            raise DataError(f"{location}: field {field} is missing or not {kind.__name__}")

    name = row["problem_id"]
    try:
        problem = parse_problem(row)
    except ValueError as error:
        raise DataError(f"{location}: {name}: {error}") from error
    if not problem.question:
        counts["no_question"] += 1
        return None

    preferences = _parse_preferences(row["persona_preferences"], counts)
    criteria, weights = _parse_criteria(row, preferences, location, counts)
    if not criteria:
        counts["no_criteria"] += 1
        return None

    counts["missing"] += len(preferences.keys() - criteria.keys())
    counts["weights"] += not _are_sound(weights)
    if _lacks_image(problem, folder):
        counts["no_image"] += 1
    return Entry(
        id=name,
        persona_id=_read_persona_id(row),
        problem=problem,
        persona=row["persona"],
        preferences=preferences,
        criteria=tuple(criteria.values()),
    )


def _parse_preferences(rows: Mapping[str, Any], counts: Counter[str]) -> dict[str, Preference]:
    """Parse preferences by name, leaving out and counting those without a usable importance."""
    preferences = {}
    for name, fields in rows.items():
        preference = _parse_preference(fields)
        if preference:
            preferences[name] = preference
        else:
            counts["importance"] += 1
    return preferences


def _parse_preference(fields: Any) -> Preference | None:
    if not isinstance(fields, dict):
        return None
    importance = _parse_number(fields.get("local_importance"))
    if importance not in (1, 2, 3, 4, 5):
        return None
    return Preference(
        value=str(fields.get("value", "")),
        importance=int(importance),
        justification=str(fields.get("justification") or ""),
        type=str(fields.get("type") or ""),
    )


def _parse_criteria(
    row: Mapping[str, Any],
    preferences: Mapping[str, Preference],
    location: str,
    counts: Counter[str],
) -> tuple[dict[str, Criterion], list[float | None]]:
    """Parse the usable criteria of a rubric by preference, and the weights of all its criteria."""
    rubric = row.get("evaluation_rubric")
    rows = rubric.get("evaluation_criteria") if isinstance(rubric, dict) else None
    criteria: dict[str, Criterion] = {}
    weights: list[float | None] = []

    for number, fields in enumerate(rows if isinstance(rows, list) else (), 1):
        if not isinstance(fields, dict) or not isinstance(fields.get("preference"), str):
            raise DataError(
                f"{location}: criterion {number} of {row['problem_id']} names no preference"
            )
        # Weights of unusable criteria count too: the rubric's author meant all of them to sum to 1.
        weight = _parse_number(fields.get("weight"))
        weights.append(weight)

        name = fields["preference"]
        levels = _parse_levels(fields.get("levels"))
        if name not in preferences or name in criteria:
            counts["surplus"] += 1
        elif not set(ANCHORS) <= levels.keys():
            counts["levels"] += 1
        else:
            description = str(fields.get("description", ""))
            criteria[name] = Criterion(name, description, max(weight or 0.0, 0.0), levels)
    return criteria, weights


def _parse_levels(value: Any) -> dict[str, str]:
    """Parse levels from a list of {score, description} or a mapping of score to description."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        for row in value:
            if isinstance(row, dict):
                pairs.append((row.get("score"), row.get("description", "")))

    levels = {}
    for score, description in pairs:
        number = _parse_number(score)
        if number is not None and number.is_integer():
            levels[str(int(number))] = str(description)
    return levels


def _parse_number(value: Any) -> float | None:
    """Parse a finite number; None for anything else."""
    # Python counts True as 1, but a weight or a score of `true` is an error of the file.
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _are_sound(weights: list[float | None]) -> bool:
    """Whether a rubric's own weights are numbers of 0 or more that sum to 1."""
    total = sum(weight or 0.0 for weight in weights)
    if abs(total - 1) > TOLERANCE:
        return False
    return all(weight is not None and weight >= 0 for weight in weights)


def _lacks_image(problem: Problem, folder: Path) -> bool:
    """Whether a problem's image should be in the folder and is not."""
    if not problem.image or "://" in problem.image:
        return False
    return not (folder / problem.image).is_file()


def _read_persona_id(row: Mapping[str, Any]) -> str:
    """Id of the persona: its own, else the end of the record's id, else its name."""
    persona = row["persona"]
    if persona.get("id"):
        return str(persona["id"])
    match = re.fullmatch(r"problem_\d+_(.+)", row["problem_id"])
    return str(match[1] if match else persona.get("name", ""))
