"""Files of LaMP-QA: three configurations, each with the splits train, validation and test.

A record is a question of a forum's user, the user's own longer explanation of it, the aspects that
an answer should cover, and the user's past questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from personabench.api.hub_files import StoredRow, find_split_files, read_stored_rows
from personabench.errors import DataError, UsageError

SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "val", "dev"),
    "test": ("test",),
}
"""Splits, and their names in files and on the command line."""
# Numbers of rows as published: train, validation, test.
SIZES: Mapping[str, tuple[int, int, int]] = {
    "Art_and_Entertainment": (9349, 801, 767),
    "Lifestyle_and_Personal_Development": (7370, 892, 989),
    "Society_and_Culture": (7614, 810, 1074),
}
CONFIGS = tuple(SIZES)
SHORT_NAMES = {config.partition("_")[0].lower(): config for config in CONFIGS}


class Aspect(msgspec.Struct, frozen=True):
    """A point that an answer should cover, its reason for the user, and the words that show it."""

    aspect: str
    reason: str | None = None
    evidence: str | None = None


class Post(msgspec.Struct, frozen=True):
    """A past question of the user, with its details."""

    id: str | int
    text: str
    category: str | None = None


class Row(msgspec.Struct, frozen=True):
    """A question; `narrative` and `rubric_aspects` belong to the side of the answer."""

    id: str | int
    question: str
    narrative: str | None
    category: str | None
    profile: list[Post]
    rubric_aspects: list[Aspect]


class Part(NamedTuple):
    """A configuration of a split: its name and its files."""

    config: str
    paths: Sequence[Path]


def parse_split(split: str) -> tuple[str, str]:
    """Split `[SUBSET/]SPLIT` into the configuration, empty for all three, and the split.

    Raises:
        UsageError: there is no such subset or split.
    """
    subset, _, name = split.rpartition("/")
    config = SHORT_NAMES.get(subset, subset)
    known = next((split for split, names in SPLITS.items() if name in names), "")
    if not known or config not in ("", *CONFIGS):
        raise UsageError(
            f"lampqa has no split '{split}'; write [SUBSET/]train, validation or test, such as "
            f"art/test; the subsets are {', '.join(SHORT_NAMES)}"
        )
    return config, known


def find_parts(root: Path, config: str, split: str) -> list[Part]:
    """Find the files of a split, of one configuration or of all that a folder has.

    Raises:
        DataError: there are none.
    """
    configs = (config,) if config else CONFIGS
    candidates = (Part(name, find_split_files(root, name, SPLITS[split])) for name in configs)
    parts = [part for part in candidates if part.paths]
    if not parts:
        raise DataError(
            f"{root} has no files of {' or '.join(configs)}, split {split}; expected "
            f"{configs[0]}/{split}.json, .jsonl or .parquet"
        )
    return parts


def read_part(part: Part) -> Iterator[Row]:
    """Read the rows of a configuration's split.

    Raises:
        DataError: a row is not of the published form; the message names file, row and field.
    """
    is_empty = True
    for stored in read_stored_rows(part.paths):
        is_empty = False
        yield _convert(stored)
    if is_empty:
        raise DataError(f"{part.paths[0]} has no rows, expected the questions of {part.config}")


def _convert(stored: StoredRow) -> Row:
    try:
        row = msgspec.convert(dict(stored.fields), Row)
    except msgspec.ValidationError as error:
        fields = ", ".join(Row.__struct_fields__)
        raise DataError(f"{stored.location}: {error}; a row has the fields {fields}") from error
    if not row.question.strip():
        raise DataError(f"{stored.location}: question is empty, expected the user's question")
    return row
