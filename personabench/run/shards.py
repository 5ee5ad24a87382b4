"""Shards: shard i of n takes a part of the users and writes to a results folder of its own.

The folder `<results>/shards/i-of-n` has the layout of any results folder, response cache included,
so that machines that share nothing but storage never write to the same file. Entries of the common
cache are read, not copied. `shard.json` beside a run's spec holds the options; `personabench merge`
needs no more to join the run.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from personabench.api.dataset import Dataset
from personabench.errors import UsageError

MAX_DIGITS = 5


@dataclass(frozen=True)
class Shard:
    """Number `number` (from 1) of `of` shards."""

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """Parse a shard as written on the command line, such as `3/8`.

        Raises:
            UsageError: it is not two whole numbers i/n with 1 <= i <= n.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        # More digits than any number of machines needs would take minutes and all memory.
        if match is not None and len(match[2].lstrip("0")) <= MAX_DIGITS >= len(match[1]):
            shard = cls(int(match[1]), int(match[2]))
            if 1 <= shard.number <= shard.of:
                return shard
        raise UsageError(
            f"--shard {text}: write i/n with i from 1 to n, such as 3/8, and n below "
            f"{10**MAX_DIGITS:,}"
        )

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def results(self, results: Path) -> Path:
        """The shard's own results folder, inside a results folder."""
        return results / "shards" / f"{self.number}-of-{self.of}"

    def whole(self, results: Path) -> Path:
        """The results folder that contains the shard's own."""
        return results.parents[1]

    def take(self, dataset: Dataset, positions: Sequence[int]) -> list[int]:
        """The selected positions that belong to this shard, in their order."""
        shard_of = partition(dataset, positions, self.of)
        return [position for position in positions if shard_of[position] == self.number]


def partition(dataset: Dataset, positions: Sequence[int], of: int) -> dict[int, int]:
    """Assign positions to shards, numbered from 1; a user's positions go to the same shard.

    Users go, in the order of the positions, to the shard with the fewest samples so far. Users
    added at the end change nothing for those before them, so a larger limit extends a smaller one,
    shard by shard.
    """
    index = dataset.index()
    samples_of = Counter(index[position][1] for position in positions)

    # A heap of (samples, shard): ties go to the lower number, so the assignment is deterministic.
    loads = [(0, number) for number in range(1, of + 1)]
    shard_of_user: dict[str, int] = {}
    for user, size in samples_of.items():
        load, number = loads[0]
        shard_of_user[user] = number
        heapq.heapreplace(loads, (load + size, number))

    return {position: shard_of_user[index[position][1]] for position in positions}
