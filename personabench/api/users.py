"""Join questions into users by their histories, for data that does not name its users.

Two questions belong to one user if at least half of the smaller history, and at least two of its
records, are in the other too, stimulus and response alike.  Only such pairs are joined
transitively: a single shared record, such as a film that two users tag alike or a paper with two
authors, joins no users.  A joined user takes the name that the data gives one of its questions,
else the first of its questions' ids; two names of the data are never joined.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from personabench.api.dataset import Dataset, Wrapped, order_names
from personabench.api.task import Task
from personabench.errors import UsageError
from personabench.hashing import digest
from personabench.types import Record, Sample, User, moment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RULE_VERSION = 2
MIN_SHARED_RECORDS = 2
MAX_IN_SET = 100_000
"""Marks that are compared in a set; more take arrays, which need numpy."""

Marks: TypeAlias = "array[int] | npt.NDArray[np.int64]"
"""A history as the sorted hashes of its records."""


def open_split(
    task: Task,
    split: str,
    data: Path | None,
) -> Dataset:
    """Open a split of a task, with questions joined into users if the data does not name them.

    Raises:
        UsageError: `data` is a file, and the task reads a folder.
        UsageError, DataError: as `Task.open`.
    """
    reads_files = task.accepts_file or type(task).open is Task.open
    if data is not None and data.is_file() and not reads_files:
        raise UsageError(
            f"--data {data}: {task.name} reads a folder of files; name the folder {data.parent}"
        )
    dataset = task.open(split, data)
    return dataset if dataset.identified else JoinedUsers(dataset)


class JoinedUsers(Wrapped):
    """A dataset that does not name all its users, with its questions joined into users."""

    def __init__(self, inner: Dataset) -> None:
        super().__init__(inner)
        # The users change predictions and statistics alike, so runs under another rule are other
        # runs.
        self.hash = digest({"data": inner.hash, "users": RULE_VERSION})

        index = inner.index()
        self._unnamed = frozenset(user_id for sample_id, user_id in index if user_id == sample_id)
        self._joined_ids = self._join_users()
        self._index = [(sample_id, self._joined_ids[user_id]) for sample_id, user_id in index]
        self.warnings = (*inner.warnings, self._describe_join())

    def index(self) -> Sequence[tuple[str, str]]:
        return self._index

    def load(self, position: int) -> Sample:
        sample = self.inner.load(position)
        _, user_id = self._index[position]
        return msgspec.structs.replace(sample, user_id=user_id)

    def population(self) -> Iterator[User]:
        """Yield the joined users, each with the distinct records of all its questions."""
        parts_by_user: dict[str, list[User]] = {}
        for part in self.inner.population():
            user_id = self._joined_ids.get(part.id, part.id)
            parts_by_user.setdefault(user_id, []).append(part)

        for user_id, parts in parts_by_user.items():
            parts.sort(key=lambda part: order_names(part.id))
            history = parts[0].history if len(parts) == 1 else _merge_histories(parts)
            yield User(user_id, history)

    def user_counts(self) -> Mapping[str, int]:
        original_ids = {user_id for _, user_id in self.inner.index()}
        sizes = Counter(self._joined_ids[user_id] for user_id in original_ids)
        unnamed_sizes = [size for user_id, size in sizes.items() if user_id in self._unnamed]
        joined = sum(size > 1 for size in unnamed_sizes)
        return {
            "named": len(sizes) - len(unnamed_sizes),
            "joined": joined,
            "single": len(unnamed_sizes) - joined,
        }

    def _describe_join(self) -> str:
        counts = self.user_counts()
        parts = [
            f"{counts['joined']} joined by their profiles",
            f"{counts['single']} of one question",
        ]
        if counts["named"]:
            parts.insert(0, f"{counts['named']} named by the data")

        which = "all its" if counts["named"] else "its"
        return (
            f"the data does not name {which} users: {len(self._index)} questions are taken for "
            f"{sum(counts.values())} users ({', '.join(parts)})"
        )

    def _join_users(self) -> dict[str, str]:
        """Map every user of the wrapped dataset to its joined user."""
        marks_by_user = {user.id: mark_history(user) for user in self.inner.population()}
        # The order of the file must not decide which of two names a question gets.
        user_ids = sorted(marks_by_user, key=order_names)
        histories = [marks_by_user[user_id] for user_id in user_ids]

        # A union-find forest over the users; a named user is always the root of its tree.
        parents = list(range(len(user_ids)))

        def rank(index: int) -> tuple[bool, int]:
            return user_ids[index] in self._unnamed, index

        for pair in find_coinciding(histories):
            roots = [_find_root(parents, index) for index in pair]
            root, joined = sorted(roots, key=rank)
            # With two named users neither is joined: the data knows better.
            if user_ids[joined] in self._unnamed:
                parents[joined] = root

        # The index may hold users that the population leaves out; they stay themselves.
        joined_ids = {user_id: user_id for _, user_id in self.inner.index()}
        for index, user_id in enumerate(user_ids):
            joined_ids[user_id] = user_ids[_find_root(parents, index)]
        return joined_ids


def find_coinciding(histories: Sequence[Marks]) -> Iterator[tuple[int, int]]:
    """Yield pairs of histories of one user, enough to connect all histories of that user.

    The result is exact, however common a record is.
    """
    first_indices: dict[bytes, int] = {}
    for index, history in enumerate(histories):
        if len(history) < MIN_SHARED_RECORDS:
            continue
        first_index = first_indices.setdefault(history.tobytes(), index)
        if first_index != index:
            yield first_index, index

    # Most questions of one user repeat the same history; comparing each distinct one once saves the
    # square of that.
    distinct = list(first_indices.values())
    if len(distinct) < 2:
        return
    for index, other_index in _overlapping([histories[index] for index in distinct]):
        yield distinct[index], distinct[other_index]


def _overlapping(histories: Sequence[Marks]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of distinct histories that share at least half of the smaller one."""
    if _are_disjoint(histories):
        return

    # Imported here: most readers of results do without numpy.
    import numpy as np

    sizes = np.array([len(history) for history in histories])
    _, marks, counts = np.unique(
        np.concatenate(histories),
        return_inverse=True,
        return_counts=True,
    )

    # Records of a single history cannot be shared; most are such.
    is_shared = counts[marks] > 1
    owners = np.repeat(np.arange(len(histories)), sizes)[is_shared]
    marks = marks[is_shared]

    # The histories that hold mark m are holders[starts[m]:ends[m]].
    holders = owners[np.argsort(marks, kind="stable")]
    ends = np.cumsum(np.where(counts > 1, counts, 0))
    starts = ends - counts

    boundaries = np.searchsorted(owners, np.arange(1, len(histories)))
    for index, shared_marks in enumerate(np.split(marks, boundaries)):
        if len(shared_marks) < MIN_SHARED_RECORDS:
            continue
        co_holders = [holders[starts[mark] : ends[mark]] for mark in shared_marks]
        overlaps = np.bincount(np.concatenate(co_holders), minlength=len(histories))
        # Each pair once, and no history with itself.
        overlaps[: index + 1] = 0

        smaller_sizes = np.minimum(sizes, sizes[index])
        needed = np.maximum(MIN_SHARED_RECORDS, (smaller_sizes + 1) // 2)
        for other_index in np.flatnonzero(overlaps >= needed):
            yield index, int(other_index)


def _are_disjoint(histories: Sequence[Marks]) -> bool:
    """Whether no two of a few histories share a mark; False for many, which are not compared."""
    # A set takes several times the memory of the arrays.
    if sum(map(len, histories)) > MAX_IN_SET:
        return False
    marks: set[int] = set()
    for history in histories:
        if not marks.isdisjoint(history):
            return False
        marks.update(history)
    return True


def _find_root(parents: list[int], index: int) -> int:
    while parents[index] != index:
        # Halving the path keeps later look-ups short.
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index


def mark_history(user: User) -> Marks:
    """Hash the records of a history, for `find_coinciding`."""
    marks = {hash(_record_content(record)) for record in user.history}
    return array("q", sorted(marks))


def _record_content(record: Record) -> tuple[str | None, str]:
    # Without ids and fields, which differ between copies of one record.
    return record.stimulus, record.response


def _merge_histories(parts: Sequence[User]) -> tuple[Record, ...]:
    """Merge the histories of one user's questions, in time order if all records have a time."""
    records: dict[tuple[str | None, str], Record] = {}
    for part in parts:
        for record in part.history:
            records.setdefault(_record_content(record), record)

    merged = list(records.values())
    if all(record.time for record in merged):
        merged.sort(key=lambda record: moment(record.time))
    return tuple(merged)
