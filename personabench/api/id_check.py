"""Whether two files speak of the same items: which ids are missing, which are extra, which are repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass


def few(ids: Sequence[str], shown: int = 5) -> str:
    """A count and the first few ids, for messages."""
    more = ", ..." if len(ids) > shown else ""
    return f"{len(ids)} ({', '.join(ids[:shown])}{more})"


@dataclass(frozen=True)
class IdDifference:
    """How found ids differ from the expected ones: each kind in file order, each id once."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    repeated: tuple[str, ...]

    def __str__(self) -> str:
        """The kinds that occur, with count and first few ids; empty when the files agree."""
        kinds = {"missing": self.missing, "extra": self.extra, "repeated": self.repeated}
        return ", ".join(f"{name}: {few(ids)}" for name, ids in kinds.items() if ids)


def compare_ids(expected: Collection[str], found: Iterable[str]) -> IdDifference:
    """Compare the ids a file has with the distinct ids it should have; order does not matter."""
    counts = Counter(iter(found))
    known = set(expected)
    return IdDifference(
        missing=tuple(each for each in expected if each not in counts),
        extra=tuple(each for each in counts if each not in known),
        repeated=tuple(each for each, times in counts.items() if times > 1),
    )
