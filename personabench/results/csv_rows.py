"""Write rows as CSV that every reader parses back unchanged."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from typing import IO, Any

from personabench.types import to_json


def write_csv(file: IO[str], columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a header and a line per row; lists and objects are JSON text, missing values empty.

    The file has to be opened with `newline=""`.
    """
    # Everything but numbers is quoted: readers end a row at a bare carriage return, which Python's
    # default leaves unquoted.
    writer = csv.DictWriter(
        file,
        list(columns),
        quoting=csv.QUOTE_NONNUMERIC,
        lineterminator="\n",
    )
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _to_cell(value) for name, value in row.items()})


def _to_cell(value: Any) -> Any:
    return to_json(value) if isinstance(value, list | tuple | Mapping) else value
