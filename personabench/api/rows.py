"""Read the rows of a data file: JSON lines, a JSON array or CSV, plain or gzipped.

A missing field or a broken line is an error that names file and line, so that a task needs no
checks of its own.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from personabench.errors import DataError, UsageError

ENDINGS = (".jsonl", ".json", ".csv")
_COMPRESSED = tuple(f"{ending}.gz" for ending in ENDINGS)


class NoDataError(UsageError):
    """A task without example data is to be read, and no other data is named."""


class Row(dict[str, Any]):
    """A row, or an object inside one, by field name; a missing field is a `DataError`."""

    location = ""

    def __missing__(self, field: str) -> NoReturn:
        fields = ", ".join(self) or "no fields"
        raise DataError(f"{self.location}: no field '{field}'; it has: {fields}")


def read_rows(data: Path | None, split: str = "") -> Iterator[Row]:
    """Yield the rows of a file, or of the file of a split in a folder.

    A folder holds either one such file, or one per split, such as `dev.jsonl`.  The cells of CSV
    are text.

    Raises:
        NoDataError: `data` is None: the task has no example data, so the data must be named.
        DataError: no such file, a broken line, or (on access) a missing field; the message names
            file, line and field.
    """
    if data is None:
        raise NoDataError("the task has no example data beside its file; name a file with --data")

    path = _find_table(data, split) if data.is_dir() else data
    read_format = _choose_format(path)
    try:
        with _open_text(path) as file:
            yield from read_format(path, file)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _find_table(folder: Path, split: str) -> Path:
    tables = [
        path for path in sorted(folder.iterdir()) if path.name.endswith(ENDINGS + _COMPRESSED)
    ]
    split_tables = [path for path in tables if path.name.partition(".")[0] == split]
    candidates = split_tables or tables
    if len(candidates) == 1:
        return candidates[0]

    file_names = ", ".join(path.name for path in candidates) or "none"
    raise DataError(
        f"{folder} must hold one file per split, such as {split or 'dev'}.jsonl, or a single file "
        f"({', '.join(ENDINGS)}, also .gz); it holds: {file_names}"
    )


def _choose_format(path: Path) -> Any:
    endings = [ending for ending in ENDINGS if ending in path.suffixes]
    if not endings:
        raise DataError(f"{path}: expected a file that ends in {', '.join(ENDINGS)}, also .gz")
    return {".jsonl": _read_json_lines, ".json": _read_json, ".csv": _read_csv}[endings[0]]


def _open_text(path: Path) -> IO[str]:
    # Spreadsheets and Windows editors write a byte order mark.
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _read_json_lines(path: Path, file: IO[str]) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            location = f"{path}, line {number}"
            yield _as_row(_decode(line, location), location)


def _read_json(path: Path, file: IO[str]) -> Iterator[Row]:
    """Yield the objects of an array; files of JSON lines are often named .json as well."""
    text = file.read()
    if not text.lstrip().startswith("["):
        yield from _read_json_lines(path, io.StringIO(text))
        return

    for number, value in enumerate(_decode(text, str(path)), start=1):
        yield _as_row(value, f"{path}, entry {number}")


def _decode(text: str, location: str) -> Any:
    def make_row(pairs: list[tuple[str, Any]]) -> Row:
        row = Row(pairs)
        row.location = location
        return row

    try:
        return json.loads(text, object_pairs_hook=make_row)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{location}: {error}; expected JSON") from error


def _as_row(value: Any, location: str) -> Row:
    if not isinstance(value, Row):
        raise DataError(f"{location}: expected an object of fields, not {type(value).__name__}")
    value.location = location
    return value


def _read_csv(path: Path, file: IO[str]) -> Iterator[Row]:
    # Texts may be longer than the csv module's limit of 131,072 characters.
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader(file, strict=True)
    try:
        for cells in reader:
            location = f"{path}, line {reader.line_num}"
            if None in cells or None in cells.values():
                raise DataError(
                    f"{location}: the row has more or fewer cells than the header "
                    f"({len(reader.fieldnames or ())})"
                )
            yield _as_row(Row(cells), location)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error
