"""Collect facts of samples that the page filters by: flags and errors of answers, metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from personabench.types import Prediction, Sample

# Metadata with more values than this tells samples apart instead of grouping them.
MOST_VALUES = 40

# Characters of a value that fits into a menu.
LONGEST_VALUE = 60


class SampleFacts:
    """Facts of a group's samples, added in the order of the index."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._count = 0
        self._answered = [0] * rows
        self._marks: dict[str, list[list[int]]] = {}
        self._attributes: dict[str, dict[int, str]] = {}

    def add(self, sample: Sample | None, predictions: Sequence[Prediction | None]) -> None:
        """Add the next sample; None if the data is missing."""
        position = self._count
        self._count += 1
        for row, prediction in enumerate(predictions):
            if prediction is None:
                continue
            self._answered[row] += 1
            for name in _marks(prediction):
                rows = self._marks.setdefault(name, [[] for _ in range(self._rows)])
                rows[row].append(position)

        attributes: Mapping[str, str] = sample.attributes if sample else {}
        for name, value in attributes.items():
            values = self._attributes.setdefault(name, {})
            values[position] = str(value)

    def describe(self) -> dict[str, Any]:
        """The facts as JSON values.

        `marks` holds for each mark a list per row: the positions of its samples, or None if all
        answers of the row have it. `attributes` holds for each attribute its values, and for each
        sample the index of its own, or None.
        """
        marks: dict[str, list[list[int] | None]] = {}
        for name, rows in sorted(self._marks.items()):
            marks[name] = [
                None if positions and len(positions) == answered else positions
                for positions, answered in zip(rows, self._answered, strict=True)
            ]

        attributes = {}
        for name, by_position in sorted(self._attributes.items()):
            values = sorted(set(by_position.values()))
            is_group = 1 < len(values) <= MOST_VALUES
            if is_group and max(map(len, values)) <= LONGEST_VALUE:
                numbers = {value: number for number, value in enumerate(values)}
                codes = [_code(by_position.get(at), numbers) for at in range(self._count)]
                attributes[name] = {"values": values, "codes": codes}
        return {"marks": marks, "attributes": attributes}


def _code(value: str | None, numbers: Mapping[str, int]) -> int | None:
    return None if value is None else numbers[value]


def _marks(prediction: Prediction) -> Iterator[str]:
    """Names of everything that is special about an answer."""
    if prediction.error is not None:
        yield "failed"
    elif prediction.parsed is None:
        yield "unparsed"
    elif not (prediction.output or "").strip():
        yield "empty"
    if any(call.finish == "length" for call in prediction.calls):
        yield "truncated"
    if any(call.finish == "refused" for call in prediction.calls):
        yield "refused"
    for name, amount in prediction.flags.items():
        if amount and name not in ("failed", "unparsed", "empty", "truncated", "refused"):
            yield name
