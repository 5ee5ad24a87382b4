"""Problems of a data set, collected so that one report names all of them with their lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from personabench.errors import DataError

# Line numbers that a problem quotes.
_QUOTED = 5


class Problems:
    """Collects problems by file and kind.

    A fatal problem makes the data unusable; the others are notes about rows that are left out.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[bool, str, str], list[int]] = {}
        self._examples: dict[tuple[bool, str, str], str] = {}

    def add(self, file: str, number: int, problem: str, example: str = "") -> None:
        """Add a problem of a row that makes the data unusable; number 0 is the whole file."""
        self._add(True, file, number, problem, example)

    def note(self, file: str, number: int, remark: str, example: str = "") -> None:
        """Add a remark about a row that can be used all the same."""
        self._add(False, file, number, remark, example)

    def report_row(self, file: str, number: int, problem: str) -> None:
        """Add a row that cannot be read, as `read_rows` reports it."""
        self.add(Path(file).name, number, "the row cannot be read", problem)

    def _add(self, fatal: bool, file: str, number: int, problem: str, example: str) -> None:
        key = fatal, file, problem
        self._numbers.setdefault(key, []).append(number)
        self._examples.setdefault(key, example)

    @property
    def fatal(self) -> tuple[str, ...]:
        """One line for each problem that makes the data unusable."""
        return tuple(self._lines(True))

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each remark."""
        return tuple(self._lines(False))

    def _lines(self, fatal: bool) -> Iterator[str]:
        for (is_fatal, file, problem), numbers in self._numbers.items():
            if is_fatal != fatal:
                continue
            example = self._examples[is_fatal, file, problem]
            location = f"{file}: " if not any(numbers) else f"{file}, {_quote(file, numbers)}: "
            yield f"{location}{problem}{f' ({example})' if example else ''}"

    def check(self) -> None:
        """Refuse data that is unusable.

        Raises:
            DataError: a problem is fatal; the message lists all problems.
        """
        if self.fatal:
            count = len(self.fatal)
            heading = f"the data has {count} kind{'s' * (count > 1)} of problem"
            raise DataError("\n  ".join([f"{heading}:", *self.fatal]))


def _quote(file: str, numbers: list[int]) -> str:
    # A JSON array and Parquet have no lines.
    unit = "line" if file.removesuffix(".gz").endswith((".csv", ".jsonl")) else "row"
    quoted = ", ".join(map(str, numbers[:_QUOTED]))
    rest = len(numbers) - _QUOTED
    more = f" and {rest} more" if rest > 0 else ""
    return f"{unit}{'s' * (len(numbers) > 1)} {quoted}{more}"
