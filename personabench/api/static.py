"""The dataset of a task that only yields samples: ids, index, hash and checks come from the engine.

Samples are checked once, while the split is opened, and are stored in a temporary file, so that the
memory in use does not grow with the data.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import weakref
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from personabench.api.dataset import Dataset
from personabench.api.guard import plugin_guard
from personabench.api.sample_check import (
    describe_gap,
    describe_problem,
    describe_sample,
    locate_class,
)
from personabench.errors import DataError
from personabench.hashing import digest
from personabench.types import Record, Sample, moment

MEMORY_LIMIT = 64 * 2**20
"""Bytes of samples that stay in memory; more of them go to a file on disk."""

_ID_LENGTH = 12
_ENCODER = msgspec.json.Encoder(order="deterministic")
_SAMPLES = msgspec.json.Decoder(Sample)
_HISTORIES = msgspec.json.Decoder(tuple[Record, ...])


class StaticDataset(Dataset):
    """The samples of `Task.load`, with ids for those that have none.

    A sample's id is derived from its user and its question, a record's from its content, so that
    they do not depend on the order of a file.  A sample without a user belongs to a user of its
    own, until `personabench.api.users` joins questions by their histories.
    """

    def __init__(
        self,
        cls: type[Any],
        load: Callable[[], Iterable[Sample]],
        *,
        split: str,
        source: str,
        sample: bool,
        labels: Sequence[str] = (),
        explain_gold: Callable[[Sample], str] = lambda sample: "",
    ) -> None:
        """Read and check all samples.

        Args:
            cls: the task's class, for messages.
            labels: the choices of samples that name none.
            explain_gold: says what is wrong with a sample's references; empty if nothing is.

        Raises:
            DataError: `load` fails, or yields no samples, broken ones, or two of one id.
        """
        separation, slash, name = split.rpartition("/")
        self.separation = separation if slash else "user"
        self.split = name
        self.sample = sample
        self.source = source
        self.dated = False
        self.identified = True

        self._labels = tuple(labels)
        self._explain_gold = explain_gold
        self._index: list[tuple[str, str]] = []
        self._lines = _Lines()
        self._histories = _Lines()
        self._history_numbers = array("L")
        self._history_at = lru_cache(maxsize=4)(self._read_history)
        self._unsorted: list[str] = []
        self._undated = 0

        self._read(cls, load)
        if self._unsorted:
            self.warnings = (
                f"{len(self._unsorted)} of {len(self._index)} histories are not in time order, "
                f"oldest record first, such as that of sample '{self._unsorted[0]}'",
            )

    def index(self) -> Sequence[tuple[str, str]]:
        return self._index

    def load(self, position: int) -> Sample:
        sample: Sample = _SAMPLES.decode(self._lines[position])
        history = self._history_at(self._history_numbers[position])
        return msgspec.structs.replace(sample, history=history)

    def _read_history(self, number: int) -> tuple[Record, ...]:
        history: tuple[Record, ...] = _HISTORIES.decode(self._histories[number])
        return history

    def _read(self, cls: type[Any], load: Callable[[], Iterable[Sample]]) -> None:
        content_hash = hashlib.sha256()
        id_counts: Counter[str] = Counter()
        first_numbers: dict[str, int] = {}
        stored_histories: dict[bytes, int] = {}
        for number, loaded in enumerate(_iterate(cls, load), start=1):
            sample = self._complete(cls, number, loaded, id_counts)
            first = first_numbers.setdefault(sample.id, number)
            if first != number:
                raise DataError(
                    f"{describe_sample(cls, number, sample.id)}: sample {first} has the same id"
                )
            self._index.append((sample.id, sample.user_id))

            history = _ENCODER.encode(sample.history)
            line = _ENCODER.encode(msgspec.structs.replace(sample, history=()))
            history_hash = hashlib.sha256(history).digest()
            content_hash.update(history_hash + hashlib.sha256(line).digest())

            # Most questions of one user show the same history, which is stored once.
            if history_hash not in stored_histories:
                stored_histories[history_hash] = self._histories.append(history)
            self._history_numbers.append(stored_histories[history_hash])
            self._lines.append(line)

        if not self._index:
            raise DataError(f"{locate_class(cls, 'load')} yields no samples ({self.source})")
        self.dated = self.dated and not self._undated
        self.hash = content_hash.hexdigest()

    def _complete(
        self,
        cls: type[Any],
        number: int,
        loaded: Any,
        id_counts: Counter[str],
    ) -> Sample:
        """Check a sample, and fill in its ids and choices."""
        sample = _check(cls, number, loaded)
        location = describe_sample(cls, number, sample.id)
        history = tuple(_with_ids(sample.history))
        sample = msgspec.structs.replace(
            sample,
            id=sample.id or _unique_id(_sample_content(sample), id_counts),
            history=history,
            choices=sample.choices or self._labels,
        )

        repeated = [name for name, count in Counter(r.id for r in history).items() if count > 1]
        if repeated:
            raise DataError(f"{location}: two records of its history have the id '{repeated[0]}'")
        if problem := self._explain_gold(sample):
            raise DataError(f"{location}: {problem}")

        self._note_times(sample)
        if not sample.user_id:
            self.identified = False
            sample = msgspec.structs.replace(sample, user_id=sample.id)
        return sample

    def _note_times(self, sample: Sample) -> None:
        times = [moment(record.time) for record in sample.history]
        self.dated = self.dated or any(times)
        if not all(times):
            self._undated += 1
        elif times != sorted(times):
            self._unsorted.append(sample.id)


class _Lines:
    """Byte strings by number, in memory up to a limit and then in a temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_LIMIT)  # noqa: SIM115
        self._ends = array("Q", [0])
        self._lock = threading.Lock()
        # The file is deleted with the dataset, without a warning that it was left open.
        weakref.finalize(self, self._file.close)

    def append(self, line: bytes) -> int:
        """Store a line; return its number."""
        with self._lock:
            self._file.seek(self._ends[-1])
            self._file.write(line)
        self._ends.append(self._ends[-1] + len(line))
        return len(self._ends) - 2

    def __getitem__(self, number: int) -> bytes:
        start, end = self._ends[number : number + 2]
        with self._lock:
            self._file.seek(start)
            return self._file.read(end - start)


def _iterate(cls: type[Any], load: Callable[[], Iterable[Sample]]) -> Iterator[Any]:
    """Yield the objects that a task's `load` yields; its failures name the sample before."""
    with plugin_guard(cls, "load", DataError):
        samples = load()
    if isinstance(samples, str | bytes) or not isinstance(samples, Iterable):
        raise DataError(
            f"{locate_class(cls, 'load')} returns {type(samples).__name__}, expected samples: "
            "write yield Sample(...) for each"
        )

    iterator = iter(samples)
    count = 0
    while True:
        stage = f"load, after sample {count}," if count else "load"
        with plugin_guard(cls, stage, DataError):
            try:
                sample = next(iterator)
            except StopIteration:
                return
        count += 1
        yield sample


def _check(cls: type[Any], number: int, sample: Any) -> Sample:
    """Return a sample with the declared types, lists as tuples.

    Raises:
        DataError: a field has another type; the message names it.
    """
    location = describe_sample(cls, number, getattr(sample, "id", ""))
    if type(sample) is not Sample:
        raise DataError(f"{location}: {describe_problem(sample)}")
    try:
        checked: Sample = _SAMPLES.decode(_ENCODER.encode(sample))
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{location}: {describe_problem(sample) or error}") from error

    if problem := describe_gap(checked):
        raise DataError(f"{location}: {problem}")
    return checked


def _with_ids(history: Sequence[Record]) -> Iterator[Record]:
    counts: Counter[str] = Counter()
    for record in history:
        if record.id:
            yield record
            continue
        content = [record.stimulus, record.response, record.time, record.item]
        yield msgspec.structs.replace(record, id=_unique_id(content, counts))


def _sample_content(sample: Sample) -> Any:
    # Without references and hidden facts, which an id must not tell.
    return [
        sample.user_id,
        sample.input,
        sample.stimulus,
        sample.choices,
        sample.attributes,
        sample.time,
        sample.item,
        sample.dialogue,
    ]


def _unique_id(content: Any, counts: Counter[str]) -> str:
    base = digest(content)[:_ID_LENGTH]
    counts[base] += 1
    return base if counts[base] == 1 else f"{base}-{counts[base]}"
