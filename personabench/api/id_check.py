"""Comparison of the ids of two files: missing, extra and repeated ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass


def list_few(ids: Sequence[str], limit: int = 5) -> str:
    """Write a count and the first few ids, for messages."""
    examples = ", ".join(ids[:limit])
    more = ", ..." if len(ids) > limit else ""
    return f"{len(ids)} ({examples}{more})"


@dataclass(frozen=True)
class IdDifference:
    """Differences between actual and expected ids: each kind in file order, each id once."""

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    repeated: tuple[str, ...]

    def __str__(self) -> str:
        """List the kinds that occur, with count and first few ids; empty when the files agree."""
        kinds = {
            "missing": self.missing,
            "extra": self.extra,
            "repeated": self.repeated,
        }
        parts = [f"{kind}: {list_few(ids)}" for kind, ids in kinds.items() if ids]
        return ", ".join(parts)


def compare_ids(
    expected: Collection[str],
    actual: Iterable[str],
) -> IdDifference:
    """Compare the ids of a file with the distinct ids it should have; order does not matter."""
    expected_ids = set(expected)
    # A Counter keeps the order of the file, unlike a set.
    counts = Counter(iter(actual))
    return IdDifference(
        missing=tuple(sample_id for sample_id in expected if sample_id not in counts),
        extra=tuple(sample_id for sample_id in counts if sample_id not in expected_ids),
        repeated=tuple(sample_id for sample_id, count in counts.items() if count > 1),
    )
