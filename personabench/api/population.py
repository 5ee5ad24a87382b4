"""Everybody else: the users of a whole split, for methods that compare people.

Built before any limit and from histories only.  Users are those of the opened dataset, where `personabench.people` has
joined the questions of data that names no users.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from personabench.hashing import digest
from personabench.types import Record, Sample, User


class Population:
    """The users of a split.

    Attributes:
        users: the people, histories oldest first.
        hash: SHA-256 over user ids and their records' ids.
    """

    def __init__(self, users: Iterable[User]) -> None:
        self.users: Sequence[User] = list(users)
        self.hash = digest(
            [[user.id, [record.id for record in user.history]] for user in self.users]
        )

    def people_of(self, sample: Sample) -> frozenset[str]:
        """Who is nobody else at a sample: the user, and the person whose history a control lent them."""
        return frozenset({sample.user_id, sample.history_owner or sample.user_id})

    def records(self) -> Iterable[tuple[str, Record]]:
        """(person, record) over everybody's history."""
        for user in self.users:
            for record in user.history:
                yield user.id, record
