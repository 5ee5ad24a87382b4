"""The `Dataset` interface: an opened split of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from personabench.api.contracts import DATASET, guard_methods
from personabench.api.guard import explain_result, is_engine
from personabench.types import Sample, User, moment


class Dataset(ABC):
    """An opened split: samples in file order, without holding them all in memory.

    Attributes:
        separation, split: the part of the benchmark.
        sample: True for the example data, False for the benchmark.
        dated: True if every record has a time.
        identified: True if the data names its users.  Otherwise a question's id is its user's id in
            `index` and `load`, and `personabench.api.users` joins questions into users.
        hash: SHA-256 of the records, whatever their order and their form in the files (see
            `personabench.hashing.digest_record` and `digest_set`).
        source: the location of the files, for messages.
        warnings: defects to report.
        departures: differences of the data from those of the task's paper, in words.
        missing_requirement: a package or file that a run needs and how to get it; empty if a run
            can start.
        edited_words: words that a user simulated by rules always edits, for plans; empty for other
            users.
    """

    separation: str
    split: str
    sample: bool = False
    dated: bool = False
    identified: bool = True
    hash: str
    source: str
    warnings: tuple[str, ...] = ()
    departures: tuple[str, ...] = ()
    missing_requirement: str = ""
    edited_words: str = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # The engine's views of a dataset pass on what is checked already.
        if not is_engine(cls):
            guard_methods(cls, DATASET)

    @abstractmethod
    def index(self) -> Sequence[tuple[str, str]]:
        """Return (sample id, user id) of every sample, in file order."""

    @abstractmethod
    def load(self, position: int) -> Sample:
        """Load the sample at a position of `index()`, with references if the split has them."""

    def flags(self, position: int) -> Mapping[str, float]:
        """Return flags from reading a sample, for the run's counters."""
        return {}

    def samples(self) -> Iterator[Sample]:
        """Yield every sample, in file order."""
        for position in range(len(self.index())):
            yield self.load(position)

    def population(self) -> Iterator[User]:
        """Yield every user of the split with the longest visible history; never any gold."""
        positions: dict[str, list[int]] = {}
        for position, (_, user_id) in enumerate(self.index()):
            positions.setdefault(user_id, []).append(position)

        for user_id, user_positions in positions.items():
            samples = [self.load(position) for position in user_positions]
            yield User(user_id, max(samples, key=rank_in_time).history)

    def user_counts(self) -> Mapping[str, int]:
        """Count users: `named` by the data, `joined` from questions, or of a `single` one."""
        user_ids = {user_id for _, user_id in self.index()}
        return {"named": len(user_ids), "joined": 0, "single": 0}

    def strata(self) -> Mapping[str, str]:
        """Return the stratum of each user, if the data has any, such as a topic.

        A shuffled history comes from a user of the same stratum.
        """
        return {}


def rank_in_time(sample: Sample) -> tuple[Any, ...]:
    """Return a key that orders the samples of one user: by time, then by length of history.

    Histories grow with time.  The order of the file would be part of the data if it decided.
    """
    newest = sample.history[-1].time if sample.history else None
    times = moment(sample.time), moment(newest)
    return *times, len(sample.history), order_names(sample.id)


def order_names(name: str) -> tuple[int, str]:
    """Return a key that orders ids in the same way whatever the order of a file: 9 before 10."""
    return len(name), name


def load_sample(
    dataset: Dataset,
    position: int,
    index: Sequence[tuple[str, str]],
) -> Sample:
    """Load a sample, and check that it is the one that the dataset's index names.

    Raises:
        PluginError: it is another one.
    """
    sample = dataset.load(position)
    sample_id, user_id = index[position]
    if (sample.id, sample.user_id) != (sample_id, user_id):
        while isinstance(dataset, Wrapped):
            dataset = dataset.inner
        raise explain_result(
            dataset,
            "load",
            f"sample {sample_id} of user {user_id} at position {position}, as in `index`",
            f"it returned sample {sample.id} of user {sample.user_id}",
        )
    return sample


class Wrapped(Dataset):
    """A view of another dataset; a subclass changes parts of it and leaves the rest."""

    def __init__(self, inner: Dataset) -> None:
        self.inner = inner
        self.separation = inner.separation
        self.split = inner.split
        self.sample = inner.sample
        self.dated = inner.dated
        self.identified = inner.identified
        self.hash = inner.hash
        self.source = inner.source
        self.warnings = inner.warnings
        self.departures = inner.departures
        self.missing_requirement = inner.missing_requirement
        self.edited_words = inner.edited_words

    def index(self) -> Sequence[tuple[str, str]]:
        return self.inner.index()

    def load(self, position: int) -> Sample:
        return self.inner.load(position)

    def flags(self, position: int) -> Mapping[str, float]:
        return self.inner.flags(position)

    def population(self) -> Iterator[User]:
        return self.inner.population()

    def user_counts(self) -> Mapping[str, int]:
        return self.inner.user_counts()

    def strata(self) -> Mapping[str, str]:
        return self.inner.strata()


guard_methods(Dataset, DATASET)
