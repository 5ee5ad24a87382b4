"""Batches of a history: the units in which a memory ingests it, in the order of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from personabench.types import Record, moment

Unit = Literal["record", "exchange", "session", "day"]


class Batch(msgspec.Struct, frozen=True):
    """Records that are ingested together.

    Attributes:
        number: from 0, in the order of time.
        records: of one unit, oldest first.
        time: of the last record: its date, or its position in the history, from 1, without one.
    """

    number: int
    records: tuple[Record, ...]
    time: str

    @property
    def record_ids(self) -> tuple[str, ...]:
        """The ids of the records."""
        return tuple(record.id for record in self.records)


def split_batches(history: Sequence[Record], unit: Unit) -> list[Batch]:
    """Split a history into batches of a unit.

    The order is that of the records' times; the given order if any record has none.
    """
    records = list(history)
    # Sorting is stable: records of one time stay as the data has them.
    if all(record.time for record in records):
        records.sort(key=lambda record: moment(record.time))

    batches: list[Batch] = []
    group: list[Record] = []
    position = 0
    for record in records:
        if group and not _JOINS[unit](group, record):
            batches.append(_make_batch(len(batches), group, position))
            group = []
        group.append(record)
        position += 1
    if group:
        batches.append(_make_batch(len(batches), group, position))
    return batches


def _make_batch(number: int, records: Sequence[Record], position: int) -> Batch:
    return Batch(number, tuple(records), records[-1].time or str(position))


def _never(group: Sequence[Record], record: Record) -> bool:
    return False


def _same_exchange(group: Sequence[Record], record: Record) -> bool:
    """Whether a turn answers a single turn of another speaker in the same session."""
    first = group[0]
    speakers = first.fields.get("speaker"), record.fields.get("speaker")
    is_reply = None not in speakers and speakers[0] != speakers[1]
    return len(group) == 1 and is_reply and _same_session(group, record)


def _same_session(group: Sequence[Record], record: Record) -> bool:
    block = group[0].fields.get("block")
    return block is not None and block == record.fields.get("block")


def _same_day(group: Sequence[Record], record: Record) -> bool:
    time = group[0].time
    if time is None or record.time is None:
        return _same_session(group, record)
    return moment(time)[:3] == moment(record.time)[:3]


_JOINS: dict[Unit, Callable[[Sequence[Record], Record], bool]] = {
    "record": _never,
    "exchange": _same_exchange,
    "session": _same_session,
    "day": _same_day,
}
