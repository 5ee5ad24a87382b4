"""The files of U-SafeBench v1.1: JSON lists of a request, a sentence about the user, a domain.

Ids repeat across the two files.  Error messages name files and rows, and never quote a text.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from personabench.errors import DataError

SAFETY = "safety_eval_collection_v1.1.json"
HELPFULNESS = "helpfulness_eval_collection_v1.1.json"
ROWS = {SAFETY: 2296, HELPFULNESS: 491}
"""The published numbers of rows."""
DOMAINS = ("QA", "autonomous")


class Row(msgspec.Struct, frozen=True):
    """One request of one user.

    Attributes:
        user: one sentence in which the user speaks of themselves.
        task_domain: QA, or autonomous for an agent that acts for the user.
        risk_scenario: the kind of harm; empty in the file of helpfulness.
    """

    id: str
    instruction: str
    user: str
    task_domain: str
    risk_scenario: str = ""


def find_root(data: Path) -> Path:
    """Return the folder with both files, which may be inside `data`.

    Raises:
        DataError: there is none.
    """
    for root in (data, data / "data", data / "usafebench"):
        if all((root / name).is_file() for name in ROWS):
            return root
    raise DataError(
        f"{data} has no {SAFETY} with {HELPFULNESS} beside it; name the folder that holds both "
        "with --data, or fetch them: personabench download usafebench"
    )


def read_rows(path: Path) -> list[Row]:
    """Read one of the two files.

    Raises:
        DataError: it cannot be read, or a row is broken; texts are not quoted.
    """
    try:
        raw_rows = msgspec.json.decode(path.read_bytes(), type=list[msgspec.Raw])
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise DataError(f"{path} is not a file of U-SafeBench: expected a JSON list") from None

    rows = [_read_row(raw, f"{path}, row {number}") for number, raw in enumerate(raw_rows)]
    if not rows:
        raise DataError(f"{path} has no rows, expected some")
    counts = Counter(row.id for row in rows)
    repeated = [row_id for row_id, count in counts.items() if count > 1]
    if repeated:
        raise DataError(f"{path}: the id '{repeated[0][:40]}' stands in two rows, expected one")
    return rows


def _read_row(raw: msgspec.Raw, location: str) -> Row:
    try:
        row = msgspec.json.decode(raw, type=Row)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        # Messages of msgspec name types and fields, and quote no values.
        raise DataError(f"{location}: {error}") from None
    for field in ("id", "instruction", "user"):
        if not getattr(row, field).strip():
            raise DataError(f"{location}: '{field}' is empty, expected a text")
    if row.task_domain not in DOMAINS:
        raise DataError(f"{location}: 'task_domain' is none of {', '.join(DOMAINS)}")
    return row
