"""All users of a split, for methods that compare users.

A population is built from histories only and before any limit, so that it does not depend on the
selected samples.  Its users are those of the opened dataset, in which `personabench.api.users` has
joined unnamed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar, cast

import msgspec

from personabench.api.dataset import Dataset, order_names
from personabench.hashing import digest
from personabench.types import Record, Sample, User

T = TypeVar("T")
_KEPT = "_personabench_population"


class Population:
    """The users of a split.

    Attributes:
        users: all users in the order of their ids, each history oldest record first.
        hash: SHA-256 over user ids and their records' ids.
    """

    def __init__(self, users: Iterable[User]) -> None:
        # Sorted, so that the order of a file changes nothing that methods make of the users.
        self.users: Sequence[User] = sorted(users, key=lambda user: order_names(user.id))
        content = []
        for user in self.users:
            record_ids = [record.id for record in user.history]
            content.append([user.id, record_ids])
        self.hash = digest(content)
        self._histories = {user.id: user.history for user in self.users}
        self._derived: dict[Hashable, Any] = {}

    def derive(self, key: Hashable, build: Callable[[], T]) -> T:
        """Return what a method derives from the users alone, such as an index of their records.

        It is built once for all runs that share the population, and must not change afterwards.

        Args:
            key: names the result, with everything beside the users that it depends on.
        """
        if key not in self._derived:
            self._derived[key] = build()
        return cast(T, self._derived[key])

    def non_peers(self, sample: Sample) -> frozenset[str]:
        """Return the users who are not peers at a sample: its user and its history owner."""
        # The shown history must not be compared with itself.
        return frozenset({sample.user_id, sample.history_owner or sample.user_id})

    def share_history(self, sample: Sample) -> Sample:
        """Return a sample with the records of the population in place of its own equal ones.

        A sample that is loaded brings its history along, and many are in progress at once, so that
        memory would hold each record twice.
        """
        history = self._histories.get(sample.history_owner or sample.user_id, ())
        # Earlier questions of a user see the beginning of the longest history.
        visible = history[: len(sample.history)]
        if visible != sample.history:
            return sample
        return msgspec.structs.replace(sample, history=visible)

    def records(self) -> Iterable[tuple[str, Record]]:
        """Yield (user id, record) over all histories."""
        for user in self.users:
            for record in user.history:
                yield user.id, record


def read_population(dataset: Dataset) -> Population:
    """Read the population of an opened split, once: its runs share it, and so does a dry run."""
    # Like a cached property, but the class may be a plugin's, which has names of its own.
    kept = vars(dataset)
    if _KEPT not in kept:
        kept[_KEPT] = Population(dataset.population())
    population: Population = kept[_KEPT]
    return population
