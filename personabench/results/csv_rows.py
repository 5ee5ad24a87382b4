"""Rows as CSV that every reader takes apart again as they were."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from typing import IO, Any

from personabench.types import to_json


def write_csv(file: IO[str], columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a header and a line for each row; lists and objects are JSON text, what a row lacks is empty.

    Everything but numbers is quoted: readers end a row at a bare carriage return, which Python's default leaves
    unquoted.  The file has to be opened with `newline=""`.
    """
    names = list(columns)
    writer = csv.DictWriter(file, names, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})


def _cell(value: Any) -> Any:
    return to_json(value) if isinstance(value, list | tuple | Mapping) else value
