"""Everybody else: the users of a whole split, for methods that compare people.

Built before any limit and from histories only.  Where the data has no user ids, users who share a record (the same id
or the same text) are the same person for the purpose of leaving oneself out; `owner` tells which.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from personabench.hashing import digest
from personabench.types import Record, Sample, User


class Population:
    """The users of a split.

    Attributes:
        users: the people, merged where they are the same; histories oldest first.
        hash: SHA-256 over user ids and their records' ids.
    """

    def __init__(self, users: Iterable[User], *, merge: bool) -> None:
        self._owner: dict[str, str] = {}
        self.users: Sequence[User] = self._merged(list(users)) if merge else list(users)
        self.hash = digest([[user.id, [record.id for record in user.history]] for user in self.users])

    def owner(self, user_id: str) -> str:
        """The merged person a user id belongs to."""
        return self._owner.get(user_id, user_id)

    def people_of(self, sample: Sample) -> frozenset[str]:
        """Who is nobody else at a sample: the user, and the person whose history a control lent them."""
        return frozenset(map(self.owner, {sample.user_id, sample.lender or sample.user_id}))

    def records(self) -> Iterable[tuple[str, Record]]:
        """(person, record) over everybody's history."""
        for user in self.users:
            for record in user.history:
                yield user.id, record

    def _merged(self, users: list[User]) -> list[User]:
        parent = {user.id: user.id for user in users}

        def root(name: str) -> str:
            while parent[name] != name:
                parent[name] = parent[parent[name]]
                name = parent[name]
            return name

        seen: dict[int, str] = {}
        for user in users:
            for record in user.history:
                for mark in (hash(("id", record.id)), hash(("text", record.stimulus, record.response))):
                    first = seen.setdefault(mark, user.id)
                    parent[root(user.id)] = root(first)
        people: dict[str, dict[str, Record]] = {}
        for user in users:
            person = people.setdefault(root(user.id), {})
            self._owner[user.id] = root(user.id)
            for record in user.history:
                person.setdefault(record.id, record)
        return [User(person, _oldest_first(records.values())) for person, records in people.items()]


def _oldest_first(records: Iterable[Record]) -> tuple[Record, ...]:
    """Records in time order where all have one, else as they came."""
    found = tuple(records)
    return tuple(sorted(found, key=lambda r: r.time or "")) if all(record.time for record in found) else found
