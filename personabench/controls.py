"""Whose history a method gets: the controls that tell personalization from format.

`own` is the user's; `none` empties it; `shuffled` hands over another user's, drawn from the seed, who shares no entry
with the owner, without what it holds on the items the owner is asked about, cut to the same size where possible;
`size=N` keeps the newest N records.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from personabench.errors import UsageError
from personabench.task import Dataset
from personabench.types import Record, Sample

CANDIDATES = 64


def controlled(dataset: Dataset, history: str, seed: int) -> Dataset:
    """The dataset as seen under a control.

    Raises:
        UsageError: no such control.
    """
    if history == "own":
        return dataset
    if history == "none":
        return _Cut(dataset, 0)
    if history == "shuffled":
        return _Shuffled(dataset, seed)
    name, _, size = history.partition("=")
    if name == "size" and size.isdigit():
        return _Cut(dataset, int(size))
    raise UsageError(f"--history {history}: choose own, none, shuffled or size=N")


class _Controlled(Dataset):
    def __init__(self, inner: Dataset) -> None:
        self.inner = inner
        self.separation, self.split, self.sample = inner.separation, inner.split, inner.sample
        self.dated, self.identified = inner.dated, inner.identified
        self.hash, self.source, self.warnings = inner.hash, inner.source, inner.warnings
        self.lacking = inner.lacking
        self.population = inner.population  # type: ignore[method-assign]

    def index(self) -> Sequence[tuple[str, str]]:
        return self.inner.index()

    def flags(self, position: int) -> Mapping[str, float]:
        return self.inner.flags(position)


class _Cut(_Controlled):
    def __init__(self, inner: Dataset, size: int) -> None:
        super().__init__(inner)
        self.size = size

    def load(self, position: int) -> Sample:
        sample = self.inner.load(position)
        return msgspec.structs.replace(sample, history=sample.history[-self.size :] if self.size else ())


class _Shuffled(_Controlled):
    def __init__(self, inner: Dataset, seed: int) -> None:
        super().__init__(inner)
        self.seed = seed
        self._places: dict[str, list[int]] = {}
        for position, (_, user) in enumerate(inner.index()):
            self._places.setdefault(user, []).append(position)
        self._users = sorted(self._places)
        self._donated = lru_cache(maxsize=256)(self._donor)

    def load(self, position: int) -> Sample:
        sample = self.inner.load(position)
        borrowed = self._donated(sample.user_id)
        size = len(sample.history)
        return msgspec.structs.replace(sample, history=borrowed[-size:] if size else ())

    def flags(self, position: int) -> Mapping[str, float]:
        """`no_donor` where nothing could be lent, `short_donor` where less than the owner has."""
        sample = self.inner.load(position)
        lent, size = len(self._donated(sample.user_id)), len(sample.history)
        short = {"short_donor": 1.0} if lent else {"no_donor": 1.0}
        return {**self.inner.flags(position), **(short if lent < size else {})}

    def _donor(self, user: str) -> tuple[Record, ...]:
        """The history lent to a user: of up to 64 drawn users without a shared entry, the first that is long enough."""
        own = self.inner.load(self._places[user][-1]).history
        asked = {self.inner.load(position).item for position in self._places[user]} - {None}
        taken = {_text(record) for record in own}
        others = [other for other in self._users if other != user]
        drawn = random.Random(f"{self.seed}\x1fshuffled\x1f{user}").sample(others, min(CANDIDATES, len(others)))
        best: tuple[Record, ...] = ()
        for other in drawn:
            history = self.inner.load(self._places[other][-1]).history
            history = tuple(record for record in history if record.item not in asked)
            if taken.isdisjoint(map(_text, history)):
                if len(history) >= len(own):
                    return history
                best = max(best, history, key=len)
        return best


def _text(record: Record) -> tuple[str | None, str]:
    return record.stimulus, record.response
