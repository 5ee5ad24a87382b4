"""A part of a run: shard i of n takes some of the users and keeps what it makes in a results folder of its own.

The folder `<results>/shards/i-of-n` is laid out like any results folder, its response cache included, so machines that
share nothing but storage never write to the same file; what the cache of the whole has is read from there.
`shard.json` beside a run's spec says what was asked for: `personabench merge` needs no more to put the run together.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from personabench.api.dataset import Dataset
from personabench.errors import UsageError

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Shard:
    """Number `number` (from 1) of `of` shards."""

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """A shard as written on the command line: `3/8`.

        Raises:
            UsageError: it is not two whole numbers with 1 <= i <= n.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        shard = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= shard.number <= shard.of:
            raise UsageError(f"--shard {text}: write i/n with i from 1 to n, such as 3/8")
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def results(self, results: Path) -> Path:
        """The shard's own results folder below a results folder."""
        return results / "shards" / f"{self.number}-of-{self.of}"

    def whole(self, results: Path) -> Path:
        """The results folder that the shard's own is below of."""
        return results.parents[1]

    def take(self, dataset: Dataset, positions: Sequence[int]) -> list[int]:
        """The shard's part of the selected positions, in their order."""
        parts = partition(dataset, positions, self.of)
        return [position for position in positions if parts[position] == self.number]


def partition(dataset: Dataset, positions: Sequence[int], of: int) -> dict[int, int]:
    """The shard, from 1, of every position; a user's positions are one shard's.

    Users go, in the order of the positions, to the shard that has the fewest samples so far.  More users at the end
    change nothing for those before, so a larger limit goes on from a smaller one, shard by shard.
    """
    index = dataset.index()
    sizes: dict[str, int] = {}
    for position in positions:
        user = index[position][1]
        sizes[user] = sizes.get(user, 0) + 1
    loads = [(0, number) for number in range(1, of + 1)]
    shard_of: dict[str, int] = {}
    for user, size in sizes.items():
        load, number = loads[0]
        shard_of[user] = number
        heapq.heapreplace(loads, (load + size, number))
    return {position: shard_of[index[position][1]] for position in positions}
