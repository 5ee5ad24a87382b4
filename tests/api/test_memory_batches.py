"""Batches of a history: units, the order of time, dates that are none, and days between times."""

from __future__ import annotations

import math

import pytest

from personabench.api.memory import days_between, describe_feedback
from personabench.api.memory_batches import Unit, split_batches
from personabench.api.memory_messages import write_time
from personabench.types import Record


def turn(
    name: str, time: str | None = "2024-03-01T09:00", block: str = "", speaker: str = ""
) -> Record:
    fields = {"block": block} if block else {}
    return Record(name, response=name, time=time, fields={**fields, "speaker": speaker})


TALK = [
    turn("a", block="1", speaker="Ann"),
    turn("b", block="1", speaker="Bo"),
    turn("c", block="1", speaker="Bo"),
    turn("d", "2024-03-01T18:00", block="2", speaker="Ann"),
    turn("e", "2024-03-02T09:00", block="3", speaker="Bo"),
]


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("record", ["a", "b", "c", "d", "e"]),
        ("exchange", ["ab", "c", "d", "e"]),
        ("session", ["abc", "d", "e"]),
        ("day", ["abcd", "e"]),
    ],
)
def test_a_history_is_split_by_its_unit(unit: Unit, expected: list[str]) -> None:
    batches = split_batches(TALK, unit)
    assert ["".join(batch.record_ids) for batch in batches] == expected
    assert [batch.number for batch in batches] == list(range(len(expected)))
    assert batches[-1].time == "2024-03-02T09:00"


def test_batches_are_in_the_order_of_time() -> None:
    shuffled = [TALK[4], TALK[3], *TALK[:3]]
    batches = split_batches(shuffled, "session")
    assert ["".join(batch.record_ids) for batch in batches] == ["abc", "d", "e"]


def test_records_without_time_keep_their_order_and_get_their_position() -> None:
    undated = [turn("x", None), turn("y", "2024-01-01"), turn("z", None)]
    batches = split_batches(undated, "record")
    assert [batch.time for batch in batches] == ["1", "2024-01-01", "3"]
    assert split_batches([], "day") == []


def test_malformed_dates_and_repeated_sessions_end_nothing() -> None:
    odd = [turn("x", "soon", "1"), turn("y", "2024-13-45", "1"), turn("x", "soon", "1")]
    for unit in ("record", "exchange", "session", "day"):
        batches = split_batches(odd, unit)  # type: ignore[arg-type]
        assert sum(len(batch.records) for batch in batches) == 3
    assert write_time("soon") == "soon"
    assert days_between("soon", "2024-01-01") == 0.0


@pytest.mark.parametrize(
    ("earlier", "later", "days"),
    [
        ("2024-03-01T09:00", "2024-03-02T21:00", 1.5),
        ("2024-03-01", "2024-03-01T12:00", 0.5),
        ("2024-03-01T09:00+02:00", "2024-03-02T09:00", 1.0),
        ("3", "10", 7.0),
        # A question before the record, and times of two kinds.
        ("2024-03-02", "2024-03-01", 0.0),
        ("3", "2024-03-01", 0.0),
        ("", "2024-03-01", 0.0),
    ],
)
def test_days_between_times_of_the_data(earlier: str, later: str, days: float) -> None:
    assert math.isclose(days_between(earlier, later), days)


def test_times_and_feedback_in_words() -> None:
    assert write_time("2023-05-08T13:56") == "8 May 2023, 13:56"
    assert write_time("2023-05-08") == "8 May 2023"
    assert write_time("17") == "17"
    assert describe_feedback({"draft": "a", "edited": "b"}) == "b"
    assert describe_feedback({"draft": "a", "cost": 2}) == "draft: a\ncost: 2"
    assert describe_feedback("fine") == "fine"
