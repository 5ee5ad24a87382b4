"""Read the rows of a data file: JSON lines, a JSON array, CSV (plain or gzipped) or Parquet.

A missing field or a broken line is an error that names file and line, so that a task needs no
checks of its own.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from personabench.errors import DataError, UsageError

ENDINGS = (".jsonl", ".json", ".csv", ".parquet")
_COMPRESSED = tuple(f"{ending}.gz" for ending in ENDINGS)

Report = Callable[[str, int, str], None]
"""Receives a broken row: its file, its number and the problem."""


class NoDataError(UsageError):
    """A task without example data is to be read, and no other data is named."""


class Row(dict[str, Any]):
    """A row, or an object inside one, by field name; a missing field is a `DataError`."""

    location = ""
    number = 0

    def __missing__(self, field: str) -> NoReturn:
        fields = ", ".join(self) or "no fields"
        raise DataError(f"{self.location}: no field '{field}'; it has: {fields}")

    def read_text(self, field: str) -> str:
        """The text of a field.

        Raises:
            DataError: no such field, or it holds no text or a blank one.
        """
        value = self[field]
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{self.location}: {field} is {value!r}, expected text")
        return value

    def read_id(self, field: str) -> str:
        """The id in a field, as text; a number is one too.

        Raises:
            DataError: no such field, or none: rows without an id would all have the same.
        """
        value = self[field]
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise DataError(f"{self.location}: {field} is {value!r}, expected an id")
        return str(value)


def read_rows(
    data: Path | None,
    split: str = "",
    report: Report | None = None,
) -> Iterator[Row]:
    """Yield the rows of a file, or of the file of a split in a folder.

    A folder holds either one such file, or one per split, such as `dev.jsonl`.  The cells of CSV
    are text.

    Args:
        report: receives broken rows, which are then left out; without it the first one is an error.

    Raises:
        NoDataError: `data` is None: the task has no example data, so the data must be named.
        DataError: no such file, a broken line, or (on access) a missing field; the message names
            file, line and field.
    """
    if data is None:
        raise NoDataError("the task has no example data beside its file; name a file with --data")

    path = _find_table(data, split) if data.is_dir() else data
    if ".parquet" in path.suffixes:
        yield from _read_parquet(path)
        return
    read_format = _choose_format(path)
    try:
        with _open_text(path) as file:
            yield from read_format(path, file, report or _refuse)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        # The last two are those of a compressed file that is cut or damaged.
        problem = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {problem}") from error


def is_table(path: Path) -> bool:
    """Whether the name of a file is that of a table that `read_rows` reads."""
    return path.name.endswith(ENDINGS + _COMPRESSED)


def _find_table(folder: Path, split: str) -> Path:
    tables = [path for path in sorted(folder.iterdir()) if is_table(path)]
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


def _refuse(path: str, number: int, problem: str) -> NoReturn:
    raise DataError(f"{path}, line {number}: {problem}")


def _read_json_lines(path: Path, file: IO[str], report: Report) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        location = f"{path}, line {number}"
        try:
            row = _as_row(_decode(line), location, number)
        except ValueError as error:
            report(str(path), number, str(error))
            continue
        yield row


def _read_json(path: Path, file: IO[str], report: Report) -> Iterator[Row]:
    """Yield the objects of an array; files of JSON lines are often named .json as well."""
    text = file.read()
    if not text.lstrip().startswith("["):
        yield from _read_json_lines(path, io.StringIO(text), report)
        return

    try:
        values = _decode(text)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    for number, value in enumerate(values, start=1):
        location = f"{path}, entry {number}"
        try:
            row = _as_row(value, location, number)
        except ValueError as error:
            if report is _refuse:
                raise DataError(f"{location}: {error}") from error
            report(str(path), number, str(error))
            continue
        yield row


def _read_parquet(path: Path) -> Iterator[Row]:
    # Imported here: the other formats do without pandas, which takes half a second.
    import pandas as pd

    try:
        # Arrow's types keep whole numbers with gaps whole.
        frame = pd.read_parquet(path, dtype_backend="pyarrow")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # pyarrow has exceptions of its own for each kind of damage.
        raise DataError(f"{path} is no Parquet file: {error}") from error
    records = json.loads(frame.to_json(orient="records", date_format="iso"))
    for number, record in enumerate(records, start=1):
        yield _as_row(_to_rows(record), f"{path}, row {number}", number)


def _to_rows(value: Any) -> Any:
    """Turn objects inside a value into rows."""
    if isinstance(value, dict):
        return Row({key: _to_rows(item) for key, item in value.items()})
    return [_to_rows(item) for item in value] if isinstance(value, list) else value


def _decode(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=Row)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{error}; expected JSON") from error


def _as_row(value: Any, location: str, number: int) -> Row:
    if not isinstance(value, Row):
        raise ValueError(f"expected an object of fields, not {type(value).__name__}")
    _set_location(value, location, number)
    return value


def _set_location(value: Any, location: str, number: int) -> None:
    """State the location of a row in it and in the objects inside it."""
    if isinstance(value, Row):
        value.location, value.number = location, number
    items = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        for item in items:
            _set_location(item, location, number)


def _read_csv(path: Path, file: IO[str], report: Report) -> Iterator[Row]:
    # Texts may be longer than the csv module's limit of 131,072 characters.
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader(file, strict=True)
    try:
        for cells in reader:
            number = reader.line_num
            if None in cells or None in cells.values():
                header = len(reader.fieldnames or ())
                problem = f"the row has more or fewer cells than the header ({header})"
                report(str(path), number, problem)
                continue
            yield _as_row(Row(cells), f"{path}, line {number}", number)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error
