"""The wording of conversations that were held in sessions: dates, then turns, in order of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby

from personabench.types import Record, moment


def list_sessions(records: Sequence[Record], describe: Callable[[Record], str]) -> str:
    """Write records as sessions in the order of time, each below its date.

    Records of one session have the same `fields["block"]`; without one a record is a session.  The
    numbers in the ids of a session's records give their order.
    """
    ordered = sorted(records, key=lambda record: (moment(record.time), moment(record.id)))
    texts = []
    for (_, time), group in groupby(ordered, key=lambda record: (_session(record), record.time)):
        lines = [f"[{write_date(time)}]"] if time else []
        lines += [describe(record) for record in group]
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


def write_date(time: str) -> str:
    """Write ISO minutes as "Monday, 8 May 2023, 13:56"; another text stays as it is."""
    try:
        date = datetime.fromisoformat(time)
    except ValueError:
        return time
    return f"{date:%A}, {date.day} {date:%B %Y}, {date:%H:%M}"


def _session(record: Record) -> str:
    return record.fields.get("block", record.id)
