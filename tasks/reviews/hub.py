"""A copy of the published review data: `SnowCharmQ/DPL-main` (who wrote what) and `SnowCharmQ/DPL-meta` (the items).

Both repositories have a folder per category.  A copy is read as it lies: parquet as the hub serves it, arrow as
`save_to_disk` writes it, both through the `datasets` package, or JSON lines of the same rows, which the bundled sample
is made of.  `title` is the review's title in one repository and the item's in the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import msgspec

from personabench.errors import DataError, UsageError
from personabench.hashing import digest_files
from personabench.tasks.reviews.records import Item, Row, Rows, iso

MAIN, META = "DPL-main", "DPL-meta"
SPLITS = ("val", "test")
_PATTERNS = ("{0}.jsonl", "{0}-*.parquet", "{0}.parquet", "{0}/*.parquet", "{0}/*.arrow")


class _Meta(msgspec.Struct, frozen=True):
    asin: str
    title: str | None = None
    description: str | list[str] | None = None


def is_copy(data: Path) -> bool:
    """Whether a folder holds a copy of the published data."""
    return _root(data, MAIN) is not None


def category_of(data: Path, wanted: str) -> str:
    """The category to open: the one wanted, or the only one there.

    Raises:
        UsageError: several, or none of that name.
    """
    root = _root(data, MAIN) or data
    found = sorted(
        path.name
        for path in root.iterdir()
        if path.is_dir() and any(_files(path, split) for split in SPLITS)
    )
    if wanted in found:
        return wanted
    if not wanted and len(found) == 1:
        return found[0]
    have = ", ".join(found) or "none"
    raise UsageError(
        f"{root} has no category '{wanted}'; it has: {have}"
        if wanted
        else f"{root} has the categories {have}: name one, for example --split {found[0] if found else 'Books'}/test"
    )


def read(data: Path, category: str, split: str) -> Rows:
    """A split of a category.

    Raises:
        DataError: files are missing, or a row is not of the published form; the message names file, row and field.
    """
    main, meta = _root(data, MAIN), _root(data, META)
    files = _files(main / category, split) if main else []
    if not files:
        raise DataError(
            f"no files of {category}/{split} in {main or data}; expected {category}/{split}-*.parquet there"
        )
    described = _files(meta / category, "full") if meta else []
    if not described:
        raise DataError(
            f"the items of {category} are missing: expected {META}/{category}/full-*.parquet beside {main}; "
            "fetch both repositories"
        )
    rows = RowList(files)
    wanted = {review.asin for row in rows for review in (row.data, *row.profile)}
    items = {}
    for number, line in enumerate(_stored(described)):
        item = _converted(line, _Meta, described[0], number)
        if item.asin in wanted:
            text = (
                item.description
                if isinstance(item.description, str)
                else " ".join(item.description or ())
            )
            items[item.asin] = Item(item.title or "", text)
    return Rows(
        rows, items, str(files[0]), digest_files([*files, *described]), str(files[0].parent)
    )


class RowList(Sequence[Row]):
    """The rows of a split, decoded and checked when asked for.

    Raises:
        DataError: on access, a row that is not of the published form.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._file = files[0]
        self._lines = _stored(files)

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        row: Row = _converted(self._lines[index], Row, self._file, index)
        for review in (row.data, *row.profile):
            try:
                iso(review.timestamp)
            except (ValueError, OverflowError, OSError) as error:
                where = f"{self._file}: row {index} (user {row.user_id})"
                raise DataError(
                    f"{where}: timestamp {review.timestamp!r} is no time: {error}"
                ) from error
        return row


def _root(data: Path, name: str) -> Path | None:
    """Where a repository's copy lies: by its name, or in the layout of the hub's own cache; newest snapshot last."""
    places = [data / name, data / "SnowCharmQ" / name]
    places += sorted((data / f"datasets--SnowCharmQ--{name}" / "snapshots").glob("*"), reverse=True)
    return next((place for place in places if place.is_dir()), None)


def _files(folder: Path, split: str) -> list[Path]:
    for pattern in _PATTERNS:
        if found := sorted(folder.glob(pattern.format(split))):
            return found
    return []


def _stored(files: Sequence[Path]) -> Sequence[Any]:
    """Rows as they are stored: undecoded lines of JSON, or a memory-mapped `datasets.Dataset`."""
    if files[0].suffix == ".jsonl":
        return [line for file in files for line in file.read_bytes().splitlines() if line.strip()]
    import datasets

    if files[0].suffix == ".arrow":
        loaded: Sequence[Any] = datasets.concatenate_datasets(
            [datasets.Dataset.from_file(str(file)) for file in files]
        )
        return loaded
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(
            "parquet", data_files=[str(file) for file in files], split="train"
        )
    except Exception as error:
        raise DataError(f"{files[0]} cannot be read as parquet: {error}") from error
    return loaded


def _converted(stored: Any, kind: Any, file: Path, number: int) -> Any:
    try:
        if isinstance(stored, bytes):
            return msgspec.json.decode(stored, type=kind)
        return msgspec.convert({key: _listed(value) for key, value in stored.items()}, kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        fields = ", ".join(kind.__struct_fields__)
        raise DataError(f"{file}: row {number}: {error}; a row has the fields {fields}") from error


def _listed(value: Any) -> Any:
    """A column of records that is stored as a record of columns, as records."""
    if not isinstance(value, Mapping) or not all(isinstance(each, list) for each in value.values()):
        return value
    return list(_records(value))


def _records(columns: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))
