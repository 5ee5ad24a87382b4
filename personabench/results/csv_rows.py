"""Write rows as CSV that every reader parses back, and that spreadsheets do not compute."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from typing import IO, Any

from personabench.types import to_json

# Spreadsheets take text that begins so as a formula; some read the full-width forms as well.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def write_csv(
    file: IO[str],
    columns: Iterable[str],
    rows: Iterable[Mapping[str, Any]],
    *,
    escape: bool = True,
) -> None:
    """Write a header and a line per row; lists and objects are JSON text, missing values empty.

    The file has to be opened with `newline=""`.

    Args:
        escape: put an apostrophe before text that a spreadsheet would compute.
    """
    # Everything but numbers is quoted: readers end a row at a bare carriage return, which Python's
    # default leaves unquoted.
    writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    columns = list(columns)
    writer.writerow([_to_cell(name, escape) for name in columns])
    for row in rows:
        writer.writerow([_to_cell(row.get(name, ""), escape) for name in columns])


def _to_cell(value: Any, escape: bool) -> Any:
    if isinstance(value, list | tuple | Mapping):
        return to_json(value)
    if escape and isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value
