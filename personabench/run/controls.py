"""History controls (`--history`): own, empty, shuffled across users, truncated.

They tell a gain from personalization apart from a gain by format. `own` leaves a user's history as
it is, `none` empties it, and `size=N` keeps the newest N records. `shuffled` replaces it by another
user's, drawn from the seed: one that shares no record with the user's but those that everybody has,
without records about anything that a question of the user is about, without records newer than the
question if the data has dates, and cut to the size of the user's own if possible. If the data
divides its users into strata, the owner is of the user's stratum. Comparisons are borrowed from the
drawn user who judged most of the same prompts, so that only the preferences differ.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence, Set
from functools import cached_property, lru_cache
from typing import NamedTuple

import msgspec

from personabench.api.comparison import rejected_responses
from personabench.api.dataset import Dataset, Wrapped, rank_in_time
from personabench.errors import UsageError
from personabench.types import Record, Sample, moment, normalized

# Users that are drawn as candidates for a history's owner. More would make loading slow.
_CANDIDATES = 64
# Users that must all have a record for it to count as everybody's, such as filler of a benchmark.
_EVERYBODY = 8


def apply_control(dataset: Dataset, history: str, seed: int) -> Dataset:
    """Return the dataset as methods see it under a control.

    Raises:
        UsageError: there is no such control.
    """
    if history == "own":
        return dataset
    if history == "none":
        return _Truncated(dataset, 0)
    if history == "shuffled":
        users = {user for _, user in dataset.index()}
        if len(users) == 1:
            raise UsageError(
                f"--history shuffled: {users.pop()} is the only user of {dataset.source}, so there "
                "is no other history to show; choose own or none"
            )
        return _Shuffled(dataset, seed)

    name, _, size = history.partition("=")
    if name == "size" and size.isdigit():
        return _Truncated(dataset, int(size))
    raise UsageError(f"--history {history}: choose own, none, shuffled or size=N")


def without_control(dataset: Dataset) -> Dataset:
    """Return a dataset with the users' own histories."""
    while isinstance(dataset, _Truncated | _Shuffled):
        dataset = dataset.inner
    return dataset


class _Truncated(Wrapped):
    def __init__(self, inner: Dataset, size: int) -> None:
        super().__init__(inner)
        self.size = size

    def load(self, position: int) -> Sample:
        sample = self.inner.load(position)
        newest = sample.history[-self.size :] if self.size else ()
        return msgspec.structs.replace(sample, history=newest)


class _Borrowed(NamedTuple):
    """A history that a user is given, and its owner, None if no user had a usable one."""

    owner: str | None = None
    history: tuple[Record, ...] = ()


class _Shuffled(Wrapped):
    def __init__(self, inner: Dataset, seed: int) -> None:
        super().__init__(inner)
        self.seed = seed
        self._positions: dict[str, list[int]] = {}
        for position, (_, user) in enumerate(inner.index()):
            self._positions.setdefault(user, []).append(position)
        self._users = sorted(self._positions)
        # Choosing an owner loads up to 64 histories, and a user's samples come one after another.
        self._borrow = lru_cache(maxsize=256)(self._choose_owner)
        self._last_positions: dict[str, int] = {}

    def load(self, position: int) -> Sample:
        sample = self.inner.load(position)
        borrowed = self._borrow(sample.user_id)
        history = _select(borrowed.history, sample) if sample.history else ()
        return msgspec.structs.replace(sample, history=history, history_owner=borrowed.owner)

    def flags(self, position: int) -> Mapping[str, float]:
        """Flag samples without a borrowed record (`no_donor`) or with too few (`short_donor`)."""
        flags = self.inner.flags(position)
        sample = self.inner.load(position)
        borrowed = _select(self._borrow(sample.user_id).history, sample) if sample.history else ()
        if len(borrowed) >= len(sample.history):
            return flags
        return {**flags, "short_donor" if borrowed else "no_donor": 1.0}

    def _choose_owner(self, user: str) -> _Borrowed:
        """Choose the first of the drawn users with enough records, or the one with most."""
        questions = [self.inner.load(position) for position in self._positions[user]]
        last_question = max(questions, key=rank_in_time)
        items = {question.item for question in questions} - {None}
        stimuli = {normalized(question.stimulus) for question in questions if question.stimulus}
        user_records = {_content(record) for question in questions for record in question.history}

        if user_records and all(map(rejected_responses, last_question.history)):
            return self._choose_judge(user, questions)

        best = _Borrowed()
        best_size = 0
        for candidate in self._draw_candidates(user):
            usable = self._usable_history(candidate, items, stimuli)
            shared = user_records.intersection(map(_content, usable))
            if shared and not shared <= self._common_records:
                continue
            size = len(_before(usable, last_question))
            if size >= len(last_question.history):
                return _Borrowed(candidate, usable)
            if size > best_size:
                best = _Borrowed(candidate, usable)
                best_size = size
        return best

    def _choose_judge(self, user: str, questions: Sequence[Sample]) -> _Borrowed:
        """Choose the drawn user who compared responses to most of the user's prompts.

        All questions of a user may be prompts of their histories too, so each sample leaves out its
        own prompt only, in `_select`.
        """
        contents = {_content(record) for question in questions for record in question.history}
        prompts = {prompt for prompt, _ in contents}
        most = max(len(question.history) for question in questions)

        best = _Borrowed()
        best_rank = (0, 0)
        for candidate in self._draw_candidates(user):
            usable = self._gather_records(candidate)
            # Who prefers the same throughout is the user under another name.
            if contents.issuperset(map(_content, usable)):
                continue
            shared = len(prompts.intersection(record.stimulus for record in usable))
            rank = shared, min(len(usable), most)
            if rank > best_rank:
                best, best_rank = _Borrowed(candidate, usable), rank
        return best

    def _gather_records(self, user: str) -> tuple[Record, ...]:
        """A user's records in any of their samples, oldest first."""
        last = self.inner.load(self._find_last(user)).history
        records = {_content(record): record for record in last}
        first = self.inner.load(self._positions[user][0]).history
        # Histories that grow are in the last one; others differ by sample.
        if not records.keys() >= set(map(_content, first)):
            for position in self._positions[user]:
                for record in self.inner.load(position).history:
                    records.setdefault(_content(record), record)
        return tuple(records.values())

    def _draw_candidates(self, user: str) -> list[str]:
        strata = self.inner.strata()
        candidates = [
            candidate
            for candidate in self._users
            if candidate != user and strata.get(candidate) == strata.get(user)
        ]
        count = min(_CANDIDATES, len(candidates))
        return random.Random(f"{self.seed}\x1fshuffled\x1f{user}").sample(candidates, count)

    @cached_property
    def _common_records(self) -> Set[tuple[str | None, str]]:
        """The records that all of some drawn users have; none if there are too few users."""
        if len(self._users) < _EVERYBODY:
            return frozenset()
        users = random.Random(f"{self.seed}\x1fcommon").sample(self._users, _EVERYBODY)
        histories = (self.inner.load(self._find_last(user)).history for user in users)
        return frozenset[tuple[str | None, str]].intersection(
            *(frozenset(map(_content, history)) for history in histories)
        )

    def _find_last(self, user: str) -> int:
        """The position of a user's last question."""
        if user not in self._last_positions:
            positions = self._positions[user]
            self._last_positions[user] = positions[0]
            if len(positions) > 1:
                ranks = [rank_in_time(self.inner.load(position)) for position in positions]
                self._last_positions[user] = positions[ranks.index(max(ranks))]
        return self._last_positions[user]

    def _usable_history(
        self, candidate: str, items: Set[str | None], stimuli: Set[str]
    ) -> tuple[Record, ...]:
        """A user's records about none of these items and stimuli."""
        history = self.inner.load(self._find_last(candidate)).history
        return tuple(
            record
            for record in history
            if record.item not in items
            and not (record.stimulus and normalized(record.stimulus) in stimuli)
        )


def _before(history: tuple[Record, ...], question: Sample) -> tuple[Record, ...]:
    """The records that are no newer than a question; all of them if the question has no date."""
    time = moment(question.time)
    if not time:
        return history
    return tuple(record for record in history if moment(record.time) <= time)


def _select(borrowed: tuple[Record, ...], sample: Sample) -> tuple[Record, ...]:
    """As many of the borrowed records as the sample has of its own, the newest.

    Of comparisons, those of the sample's own prompt are left out, and those of the prompts in its
    history come first.
    """
    count = len(sample.history)
    visible = _before(borrowed, sample)
    prompts = {record.stimulus for record in sample.history if rejected_responses(record)}
    if not prompts:
        return visible[-count:]

    stimulus = normalized(sample.stimulus or "")
    unlike = [record for record in visible if normalized(record.stimulus or "") != stimulus]
    # Stable, so that among both kinds the newest are last.
    ranked = sorted(unlike, key=lambda record: record.stimulus in prompts)
    chosen = {id(record) for record in ranked[-count:]}
    return tuple(record for record in unlike if id(record) in chosen)


def _content(record: Record) -> tuple[str | None, str]:
    return record.stimulus, record.response
