"""Reader of a copy of the published data: `SnowCharmQ/DPL-main` and `SnowCharmQ/DPL-meta`.

DPL-main holds the reviews by user, DPL-meta the items; both have a folder per category. Three
storage forms are read: parquet as the hub serves it, arrow as `save_to_disk` writes it, and JSON
lines of the same rows, the form of the example data. `title` is the review's title in one
repository and the item's in the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import msgspec

from personabench.errors import DataError, UsageError
from personabench.tasks.reviews.records import Item, Row, Rows, format_time

MAIN = "DPL-main"
META = "DPL-meta"
SPLITS = ("val", "test")
# DPL-meta has a single split.
_META_SPLIT = "full"
_PATTERNS = (
    "{0}.jsonl",
    "{0}-*.parquet",
    "{0}.parquet",
    "{0}/*.parquet",
    "{0}/*.arrow",
)


class _Meta(msgspec.Struct, frozen=True):
    asin: str
    title: str | None = None
    description: str | list[str] | None = None

    def to_item(self) -> Item:
        description = self.description or ""
        if isinstance(description, list):
            description = " ".join(description)
        return Item(self.title or "", description)


def is_copy(data: Path) -> bool:
    """Whether a folder holds a copy of the published data."""
    return _find_repository(data, MAIN) is not None


def choose_category(data: Path, category: str) -> str:
    """Return the category to open: the given one or, if empty, the only one present.

    Raises:
        UsageError: the copy lacks the category, or holds several and none was given.
    """
    root = _find_repository(data, MAIN) or data
    folders = sorted(root.iterdir())
    present = [path.name for path in folders if _is_category(path)]
    if category in present:
        return category
    if not category and len(present) == 1:
        return present[0]

    listing = ", ".join(present) or "none"
    if category:
        raise UsageError(f"{root} has no category '{category}'; it has: {listing}")
    example = present[0] if present else "Books"
    raise UsageError(
        f"{root} has the categories {listing}: name one, for example --split {example}/test"
    )


def _is_category(path: Path) -> bool:
    return path.is_dir() and any(_find_files(path, split) for split in SPLITS)


def read_split(data: Path, category: str, split: str) -> Rows:
    """Read a split of a category.

    Raises:
        DataError: files are missing, or a row is not of the published form; the message names
            file, row and field.
    """
    main = _find_repository(data, MAIN)
    files = _find_files(main / category, split) if main else []
    if not files:
        raise DataError(
            f"no files of {category}/{split} in {main or data}; "
            f"expected {category}/{split}-*.parquet there"
        )

    meta = _find_repository(data, META)
    meta_files = _find_files(meta / category, _META_SPLIT) if meta else []
    if not meta_files:
        raise DataError(
            f"the items of {category} are missing: expected "
            f"{META}/{category}/{_META_SPLIT}-*.parquet beside {main}; fetch both repositories"
        )

    rows = RowList(files)
    return Rows(
        rows=rows,
        items=_read_items(meta_files, rows),
        origin=str(files[0]),
        source=str(files[0].parent),
    )


def _read_items(files: Sequence[Path], rows: Sequence[Row]) -> dict[str, Item]:
    # A category has millions of items; only those of the split's reviews are kept.
    asins: set[str] = set()
    for row in rows:
        asins.add(row.data.asin)
        asins.update(review.asin for review in row.profile)

    items = {}
    for number, stored in enumerate(_load_rows(files)):
        meta: _Meta = _convert_row(stored, _Meta, files[0], number)
        if meta.asin in asins:
            items[meta.asin] = meta.to_item()
    return items


class RowList(Sequence[Row]):
    """The rows of a split, decoded and checked on access.

    Raises:
        DataError: on access, if a row is not of the published form.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._file = files[0]
        self._stored = _load_rows(files)

    def __len__(self) -> int:
        return len(self._stored)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            numbers = range(*index.indices(len(self)))
            return [self[number] for number in numbers]

        row: Row = _convert_row(self._stored[index], Row, self._file, index)
        self._check_times(row, index)
        return row

    def _check_times(self, row: Row, index: int) -> None:
        for review in (row.data, *row.profile):
            try:
                format_time(review.timestamp)
            except (ValueError, OverflowError, OSError) as error:
                raise DataError(
                    f"{self._file}: row {index} (user {row.user_id}): "
                    f"timestamp {review.timestamp!r} is not a time: {error}"
                ) from error


def _find_repository(data: Path, name: str) -> Path | None:
    """Find a repository's copy, by its name or in the layout of the hub's own cache."""
    snapshots = data / f"datasets--SnowCharmQ--{name}" / "snapshots"
    candidates = [
        data / name,
        data / "SnowCharmQ" / name,
        *sorted(snapshots.glob("*"), reverse=True),
    ]
    return next((path for path in candidates if path.is_dir()), None)


def _find_files(folder: Path, split: str) -> list[Path]:
    for pattern in _PATTERNS:
        files = sorted(folder.glob(pattern.format(split)))
        if files:
            return files
    return []


def _load_rows(files: Sequence[Path]) -> Sequence[Any]:
    """Load rows as stored: undecoded lines of JSON, or a memory-mapped `datasets.Dataset`."""
    if files[0].suffix == ".jsonl":
        return _read_lines(files)

    # Imported here: `datasets` takes seconds to import, and the example data does without it.
    import datasets

    paths = [str(path) for path in files]
    if files[0].suffix == ".arrow":
        parts = [datasets.Dataset.from_file(path) for path in paths]
        arrow_rows: Sequence[Any] = datasets.concatenate_datasets(parts)
        return arrow_rows

    datasets.disable_progress_bars()
    try:
        rows: Sequence[Any] = datasets.load_dataset(
            "parquet",
            data_files=paths,
            split="train",
        )
    except Exception as error:
        raise DataError(f"{files[0]} cannot be read as parquet: {error}") from error
    return rows


def _read_lines(files: Sequence[Path]) -> list[bytes]:
    rows: list[bytes] = []
    for path in files:
        content = path.read_bytes()
        rows += [line for line in content.splitlines() if line.strip()]
    return rows


def _convert_row(stored: Any, kind: Any, path: Path, number: int) -> Any:
    """Convert a stored row into a struct, checking its types."""
    try:
        if isinstance(stored, bytes):
            return msgspec.json.decode(stored, type=kind)
        values = {name: _restore_records(value) for name, value in stored.items()}
        return msgspec.convert(values, kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        fields = ", ".join(kind.__struct_fields__)
        raise DataError(f"{path}: row {number}: {error}; a row has the fields {fields}") from error


def _restore_records(value: Any) -> Any:
    """Convert a record of columns back into a list of records; other values stay unchanged."""
    # `datasets` stores a list of records as a record of lists.
    if not isinstance(value, Mapping):
        return value
    if not all(isinstance(column, list) for column in value.values()):
        return value

    records = []
    for values in zip(*value.values(), strict=True):
        records.append(dict(zip(value, values, strict=True)))
    return records
