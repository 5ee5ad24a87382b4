"""Personalized RewardBench's tables: two answers to a question, by a user's rubric and against it.

A history is the user's earlier questions, without answers.  The rubric and the narrative, by which
the answers were written, are in no sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from personabench.api.rows import Row, is_table, read_rows
from personabench.errors import DataError
from personabench.tasks.prefpair.comparison import Comparison
from personabench.types import Record, normalized

CATEGORIES = ("art", "lifestyle", "society")
"""The beginnings of the names of categories."""


def read_comparisons(data: Path, counts: Counter[str]) -> Iterator[Comparison]:
    """Read the test tables of all categories.

    Users have no names: the engine joins questions whose histories share records.

    Args:
        data: a table, or a folder with a table `test*` for each category.
        counts: receives the number of records with their sample's "own prompt".

    Raises:
        DataError: no table, or one is broken.
    """
    for path in list_tables(data):
        is_empty = True
        for row in read_rows(path):
            is_empty = False
            yield _read_row(row, counts)
        if is_empty:
            raise DataError(f"{path} has no rows, expected the questions of a category")


def list_tables(data: Path) -> list[Path]:
    """Return the tables to read: `data` itself, or those of the test split in a folder.

    Raises:
        DataError: there is none.
    """
    if data.is_file():
        return [data]
    tables = [
        path
        for path in sorted(data.rglob("*"))
        if is_table(path) and path.name.partition(".")[0].split("-")[0] == "test"
    ]
    if not tables:
        raise DataError(
            f"{data} has no table of the test split, such as "
            "Art_and_Entertainment/test-00000-of-00001.parquet"
        )
    return tables


def _read_row(row: Row, counts: Counter[str]) -> Comparison:
    question = row.read_text("question")
    profile = _restore_entries(row["profile"])
    if not isinstance(profile, list):
        raise DataError(f"{row.location}: profile is no list of earlier questions")
    records = [_read_record(entry, row) for entry in profile]
    own = normalized(question)
    history = tuple(record for record in records if normalized(record.response) != own)
    counts["own prompt"] += len(records) - len(history)
    return Comparison(
        row.read_id("id"),
        "",
        question,
        (row.read_text("chosen"), row.read_text("rejected")),
        history,
        hidden={"category": _name_category(row)},
        location=row.location,
    )


def _restore_entries(profile: object) -> object:
    """Turn columns of entries, as `datasets` may store a list of records, back into the list."""
    if not isinstance(profile, Row) or not all(isinstance(part, list) for part in profile.values()):
        return profile
    return [Row(zip(profile, entry, strict=True)) for entry in zip(*profile.values(), strict=True)]


def _read_record(entry: object, row: Row) -> Record:
    if not isinstance(entry, Row):
        raise DataError(f"{row.location}: profile holds {entry!r}, expected id, category and text")
    return Record(entry.read_id("id"), response=entry.read_text("text"))


def _name_category(row: Row) -> str:
    category = str(row["category"]).casefold()
    name = next((name for name in CATEGORIES if category.startswith(name)), None)
    if name is None:
        raise DataError(
            f"{row.location}: category is '{row['category']}', expected a name that begins with "
            f"{', '.join(CATEGORIES)}"
        )
    return name
