"""Whose history a method gets: the controls that tell personalization from format.

`own` is the user's; `none` empties it; `shuffled` hands over another user's, drawn from the seed, who shares no entry
with the owner, without what it holds on anything the owner is asked about and, in dated data, without what is newer
than the question, cut to the same size where possible; `size=N` keeps the newest N records.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from personabench.api.dataset import Dataset, Wrapped
from personabench.errors import UsageError
from personabench.types import Record, Sample, moment, normalized

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


class _Cut(Wrapped):
    def __init__(self, inner: Dataset, size: int) -> None:
        super().__init__(inner)
        self.size = size

    def load(self, position: int) -> Sample:
        sample = self.inner.load(position)
        return msgspec.structs.replace(
            sample, history=sample.history[-self.size :] if self.size else ()
        )


class _Shuffled(Wrapped):
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
        history_owner, borrowed = self._donated(sample.user_id)
        size = len(sample.history)
        history = _until(borrowed, sample)[-size:] if size else ()
        return msgspec.structs.replace(sample, history=history, history_owner=history_owner)

    def flags(self, position: int) -> Mapping[str, float]:
        """`no_donor` where nothing could be lent, `short_donor` where less than the owner has."""
        sample = self.inner.load(position)
        lent, size = len(_until(self._donated(sample.user_id)[1], sample)), len(sample.history)
        short = {"short_donor": 1.0} if lent else {"no_donor": 1.0}
        return {**self.inner.flags(position), **(short if lent < size else {})}

    def _donor(self, user: str) -> tuple[str | None, tuple[Record, ...]]:
        """Who lends to a user, and what: of up to 64 drawn users without a shared entry, the first with enough."""
        questions = [self.inner.load(position) for position in self._places[user]]
        own = questions[-1].history
        items = {question.item for question in questions} - {None}
        texts = {normalized(question.stimulus) for question in questions if question.stimulus}
        taken = {_text(record) for question in questions for record in question.history}
        others = [other for other in self._users if other != user]
        drawn = random.Random(f"{self.seed}\x1fshuffled\x1f{user}").sample(
            others, min(CANDIDATES, len(others))
        )
        best: tuple[str | None, tuple[Record, ...]] = (None, ())
        for other in drawn:
            history = self.inner.load(self._places[other][-1]).history
            lent = tuple(
                record
                for record in history
                if record.item not in items
                and not (record.stimulus and normalized(record.stimulus) in texts)
            )
            if not taken.isdisjoint(map(_text, lent)):
                continue
            enough = len(_until(lent, questions[-1]))
            if enough >= len(own):
                return other, lent
            if enough > len(_until(best[1], questions[-1])):
                best = other, lent
        return best


def _until(history: tuple[Record, ...], question: Sample) -> tuple[Record, ...]:
    """What of a dated history is no newer than a question; all where either has no date."""
    asked = moment(question.time)
    return tuple(record for record in history if moment(record.time) <= asked) if asked else history


def _text(record: Record) -> tuple[str | None, str]:
    return record.stimulus, record.response
