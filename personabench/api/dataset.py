"""The `Dataset` interface: an opened split of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

from personabench.types import Sample, User


class Dataset(ABC):
    """An opened split: samples in file order, without holding them all in memory.

    Attributes:
        separation, split: the part of the benchmark; `sample`: this is the bundled sample, not the benchmark.
        dated: every record has a time.
        identified: the data names its users; where it does not, a question's id stands for its user in `index` and
            `load`, and `personabench.people` joins questions into users.
        hash: SHA-256 of the files; source: where they lie, for people; warnings: defects worth telling.
        lacking: what a run needs that is not installed here and how to get it; empty when it can be run.
        disliked: words that a user who judges by rule never leaves as they are, for plans; empty for other users.
    """

    separation: str
    split: str
    sample: bool = False
    dated: bool = False
    identified: bool = True
    hash: str
    source: str
    warnings: tuple[str, ...] = ()
    lacking: str = ""
    disliked: str = ""

    @abstractmethod
    def index(self) -> Sequence[tuple[str, str]]:
        """(sample id, user id) of every sample, in file order."""

    @abstractmethod
    def load(self, position: int) -> Sample:
        """The sample at a position of `index()`, references included where the split has them."""

    def flags(self, position: int) -> Mapping[str, float]:
        """What happened to a sample on its way out of the files, for the run's counters."""
        return {}

    def samples(self) -> Iterator[Sample]:
        """Every sample, in file order."""
        for position in range(len(self.index())):
            yield self.load(position)

    def population(self) -> Iterator[User]:
        """Every user of the whole split with the longest history visible in any of their samples; never any gold."""
        last: dict[str, int] = {}
        for position, (_, user) in enumerate(self.index()):
            last[user] = position
        for user, position in last.items():
            yield User(user, self.load(position).history)

    def user_counts(self) -> Mapping[str, int]:
        """How many users of the split are `named` by the data, `joined` from questions, and a `single` question."""
        return {"named": len({user for _, user in self.index()}), "joined": 0, "single": 0}
