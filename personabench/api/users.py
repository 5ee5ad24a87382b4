"""Who asks, where the data does not say: questions are joined into users by their profiles, once, on opening.

Two questions are one user when at least half of the smaller profile, and at least two records of it, stand in the other
too, stimulus and response alike.  Only such pairs are followed from one to the next: a single shared record, a film
that two people tag alike or a paper that they wrote together, joins nobody.  A joined user bears the name that the data
gives one of its questions, else its first question's id; two names of the data never become one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from personabench.api.dataset import Dataset
from personabench.api.task import Task, Wrapped
from personabench.hashing import digest
from personabench.types import Record, Sample, User, moment

RULE = 1
FEWEST = 2
Marks = npt.NDArray[np.int64]


def open_split(task: Task, split: str, data: Path | None) -> Dataset:
    """A split as all but the task see it: where the data does not name its users, questions are joined into users.

    Raises:
        UsageError, DataError: as `Task.open`.
    """
    dataset = task.open(split, data)
    return dataset if dataset.identified else Joined(dataset)


class Joined(Wrapped):
    """A dataset that does not name all its users, with its questions joined into users."""

    def __init__(self, inner: Dataset) -> None:
        super().__init__(inner)
        # Who the users are changes predictions and statistics alike, so runs under another rule are other runs.
        self.hash = digest({"data": inner.hash, "users": RULE})
        self._nameless = frozenset(user for sample_id, user in inner.index() if user == sample_id)
        self._person = self._joined()
        self._index = [(sample_id, self._person[user]) for sample_id, user in inner.index()]
        counts = self.user_counts()
        told = f"{counts['joined']} joined by their profiles, {counts['single']} of one question"
        named = f"{counts['named']} named by the data, " if counts["named"] else ""
        self.warnings = (
            *inner.warnings,
            f"the data does not name {'all its' if named else 'its'} users: {len(self._index)} questions are taken for "
            f"{sum(counts.values())} users ({named}{told})",
        )

    def index(self) -> Sequence[tuple[str, str]]:
        return self._index

    def load(self, position: int) -> Sample:
        return msgspec.structs.replace(self.inner.load(position), user_id=self._index[position][1])

    def population(self) -> Iterator[User]:
        """See `Dataset`; a joined user has the records of all questions, of equal ones the first."""
        people: dict[str, list[User]] = {}
        for user in self.inner.population():
            people.setdefault(self._person.get(user.id, user.id), []).append(user)
        for person, parts in people.items():
            yield User(person, parts[0].history if len(parts) == 1 else _together(parts))

    def user_counts(self) -> Mapping[str, int]:
        parts = Counter(self._person[user] for user in {user for _, user in self.inner.index()})
        nameless = [count for person, count in parts.items() if person in self._nameless]
        joined = sum(count > 1 for count in nameless)
        return {
            "named": len(parts) - len(nameless),
            "joined": joined,
            "single": len(nameless) - joined,
        }

    def _joined(self) -> dict[str, str]:
        """The joined user of every user of the wrapped dataset."""
        users, profiles = [], []
        for user in self.inner.population():
            users.append(user.id)
            profiles.append(
                np.unique(
                    np.array([hash(_content(record)) for record in user.history], dtype=np.int64)
                )
            )
        parents = list(range(len(users)))

        def root(number: int) -> int:
            while parents[number] != number:
                parents[number] = parents[parents[number]]
                number = parents[number]
            return number

        for pair in coinciding(profiles):
            first, other = sorted(
                map(root, pair), key=lambda number: (users[number] in self._nameless, number)
            )
            if users[other] in self._nameless:
                parents[other] = first
        asked = {user: user for _, user in self.inner.index()}
        return asked | {user: users[root(number)] for number, user in enumerate(users)}


def _content(record: Record) -> tuple[str | None, str]:
    return record.stimulus, record.response


def _together(parts: Sequence[User]) -> tuple[Record, ...]:
    """The records of one user's questions, in time order where all have one, else as they came."""
    records: dict[tuple[str | None, str], Record] = {}
    for part in parts:
        for record in part.history:
            records.setdefault(_content(record), record)
    union = tuple(records.values())
    return (
        tuple(sorted(union, key=lambda r: moment(r.time))) if all(r.time for r in union) else union
    )


def coinciding(profiles: Sequence[Marks]) -> Iterator[tuple[int, int]]:
    """Pairs of profiles that are one user's, enough of them to lead from any profile of a user to all others.

    A profile is the sorted marks of its records.  Exact, however common a record is: what a profile shares with all
    others is counted in one go over the holders of its records, and equal profiles are looked at once.
    """
    first: dict[bytes, int] = {}
    for number, profile in enumerate(profiles):
        if (
            len(profile) >= FEWEST
            and (equal := first.setdefault(profile.tobytes(), number)) != number
        ):
            yield equal, number
    distinct = np.array(list(first.values()), dtype=np.intp)
    if len(distinct) < 2:
        return
    sizes = np.array([len(profiles[number]) for number in distinct])
    _, places, counts = np.unique(
        np.concatenate([profiles[number] for number in distinct]),
        return_inverse=True,
        return_counts=True,
    )
    owners, shared = np.repeat(np.arange(len(distinct)), sizes), counts[places] > 1
    owners, places = owners[shared], places[shared]
    holders = owners[np.argsort(places, kind="stable")]
    ends = np.cumsum(np.where(counts > 1, counts, 0))
    kept = np.split(places, np.searchsorted(owners, np.arange(1, len(distinct))))
    for number, mine in enumerate(kept):
        if len(mine) < FEWEST:
            continue
        others = [holders[ends[place] - counts[place] : ends[place]] for place in mine]
        common = np.bincount(np.concatenate(others), minlength=len(distinct))
        common[: number + 1] = 0
        needed = np.maximum(FEWEST, (np.minimum(sizes, sizes[number]) + 1) // 2)
        for other in np.flatnonzero(common >= needed):
            yield int(distinct[number]), int(distinct[other])
