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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar

import msgspec

from personabench.api.dataset import Dataset
from personabench.api.guard import plugin_guard
from personabench.api.sample_check import (
    describe_empty_record,
    describe_problem,
    describe_sample,
    locate_class,
)
from personabench.errors import DataError
from personabench.hashing import digest, digest_record, digest_set
from personabench.types import Record, Sample, moment

MEMORY_LIMIT = 64 * 2**20
"""Bytes of samples that stay in memory; more of them go to a file on disk."""

T = TypeVar("T")

_END: Any = object()

_ID_LENGTH = 12
# Not JSON, which would turn bytes into text unnoticed.
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_SAMPLES = msgspec.msgpack.Decoder(Sample)
_HISTORIES = msgspec.msgpack.Decoder(tuple[Record, ...])


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
        ordered: bool = False,
    ) -> None:
        """Read and check all samples.

        Args:
            cls: the task's class, for messages.
            labels: the choices of samples that name none.
            explain_gold: describes a fault of a sample's references; empty without one.
            ordered: the order of samples is part of the data, as that of rounds.

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
        self._ordered = ordered
        self._index: list[tuple[str, str]] = []
        self._contents = _Store()
        self._histories = _Store()
        self._history_numbers = array("L")
        self._stored_histories: dict[bytes, _History] = {}
        self._history_at = lru_cache(maxsize=4)(self._read_history)
        self._strata: dict[str, str] = {}
        self._unsorted: list[str] = []
        self._undated = 0

        self._read(cls, load)
        if self._unsorted:
            self.warnings = (
                f"{len(self._unsorted)} histories are not in time order, oldest record first; "
                f"the first is that of {self._unsorted[0]}",
            )

    def index(self) -> Sequence[tuple[str, str]]:
        return self._index

    def strata(self) -> Mapping[str, str]:
        return self._strata

    def load(self, position: int) -> Sample:
        sample: Sample = _SAMPLES.decode(self._contents[position])
        history = self._history_at(self._history_numbers[position])
        return msgspec.structs.replace(sample, history=history)

    def _read_history(self, number: int) -> tuple[Record, ...]:
        history: tuple[Record, ...] = _HISTORIES.decode(self._histories[number])
        return history

    def _read(self, cls: type[Any], load: Callable[[], Iterable[Sample]]) -> None:
        digests: list[bytes] = []
        id_counts: Counter[str] = Counter()
        first_numbers: dict[str, int] = {}
        for number, loaded in enumerate(_iterate(cls, load), start=1):
            location = describe_sample(cls, number, getattr(loaded, "id", ""))
            history = self._store_history(loaded, location)
            sample = self._complete(loaded, location, id_counts)
            first = first_numbers.setdefault(sample.id, number)
            if first != number:
                raise DataError(
                    f"{location}: sample {first} has the same id, expected another ({self.source})"
                )

            content = _ENCODER.encode(sample)
            digests.append(digest_record([history.content_hash, content]))
            self._contents.append(content)
            self._history_numbers.append(history.number)
            self._index.append((sample.id, sample.user_id))
            if "stratum" in sample.hidden:
                self._strata[sample.user_id] = sample.hidden["stratum"]

        if not self._index:
            raise DataError(
                f"{locate_class(cls, 'load')} yields no samples ({self.source}), expected some"
            )
        self.dated = self.dated and not self._undated
        self.hash = digest(digests) if self._ordered else digest_set(digests)

    def _store_history(self, loaded: Any, location: str) -> _History:
        """Check a sample's history and store it with ids, or find it if it is stored.

        Raises:
            DataError: it is not a sequence of records, or two records have one id.
        """
        if type(loaded) is not Sample:
            raise DataError(f"{location}: {describe_problem(loaded)}")
        content = _encode(loaded, loaded.history, location)
        content_hash = hashlib.sha256(content).digest()

        # Most questions of one user show the same history, which is checked and stored once.
        stored = self._stored_histories.get(content_hash)
        if stored is not None:
            return stored

        records = _decode(loaded, _HISTORIES, content, location)
        history = tuple(_with_ids(records))
        id_counts = Counter(record.id for record in history)
        repeated = [record_id for record_id, count in id_counts.items() if count > 1]
        if repeated:
            raise DataError(f"{location}: two records of its history have the id '{repeated[0]}'")
        if problem := describe_empty_record(history):
            raise DataError(f"{location}: {problem}")

        self._note_times(history, location)
        number = self._histories.append(_ENCODER.encode(history))
        stored = _History(number, content_hash)
        self._stored_histories[content_hash] = stored
        return stored

    def _note_times(self, history: Sequence[Record], location: str) -> None:
        times = [moment(record.time) for record in history]
        self.dated = self.dated or any(times)
        if not all(times):
            self._undated += 1
        elif times != sorted(times):
            self._unsorted.append(location)

    def _complete(
        self,
        loaded: Sample,
        location: str,
        id_counts: Counter[str],
    ) -> Sample:
        """Check a sample without its history, and fill in its ids and choices."""
        bare = msgspec.structs.replace(loaded, history=())
        sample: Sample = _decode(loaded, _SAMPLES, _encode(loaded, bare, location), location)
        if not sample.input.strip():
            raise DataError(f"{location}: input is empty, expected the question")

        sample_id = sample.id or _unique_id(_sample_content(sample), id_counts)
        self.identified = self.identified and bool(sample.user_id)
        completed = msgspec.structs.replace(
            sample,
            id=sample_id,
            user_id=sample.user_id or sample_id,
            choices=sample.choices or self._labels,
        )
        if problem := self._explain_gold(completed):
            raise DataError(f"{location}: {problem}")
        return completed


class _History(NamedTuple):
    """A stored history: its number, and the hash of its records as the task gave them."""

    number: int
    content_hash: bytes


class _Store:
    """Byte strings by number, in memory up to a limit and then in a temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_LIMIT)  # noqa: SIM115
        self._ends = array("Q", [0])
        self._lock = threading.Lock()
        # The file is deleted with the dataset, without a warning that it was left open.
        weakref.finalize(self, self._file.close)

    def append(self, content: bytes) -> int:
        """Store a byte string; return its number."""
        with self._lock:
            self._file.seek(self._ends[-1])
            self._file.write(content)
        self._ends.append(self._ends[-1] + len(content))
        return len(self._ends) - 2

    def __getitem__(self, number: int) -> bytes:
        start, end = self._ends[number : number + 2]
        with self._lock:
            self._file.seek(start)
            return self._file.read(end - start)


def _iterate(cls: type[Any], load: Callable[[], Iterable[Sample]]) -> Iterator[Any]:
    """Yield the objects that a task's `load` yields; its failures name the sample before."""
    samples = guarded_call(cls, "load", "samples", load)
    if isinstance(samples, str | bytes) or not isinstance(samples, Iterable):
        raise DataError(
            f"{locate_class(cls, 'load')} returns {type(samples).__name__}, expected samples: "
            "write yield Sample(...) for each"
        )

    iterator = iter(samples)
    count = 0
    while True:
        stage = f"load after sample {count}" if count else "load"
        sample = guarded_call(cls, stage, "a sample", partial(next, iterator, _END))
        if sample is _END:
            return
        count += 1
        yield sample


# `find_plugin_call` looks for the name of this function and for `plugin` and `stage` in it.
def guarded_call(plugin: type[Any], stage: str, expected: str, call: Callable[[], T]) -> T:
    """Call code of a task.

    Raises:
        PluginError: it fails.
    """
    with plugin_guard(plugin, stage, expected):
        return call()


def _encode(sample: Sample, part: Any, location: str) -> bytes:
    try:
        return _ENCODER.encode(part)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{location}: {describe_problem(sample) or error}") from error


def _decode(
    sample: Sample,
    decoder: msgspec.msgpack.Decoder[T],
    content: bytes,
    location: str,
) -> T:
    """Read a part of a sample back, which checks its types and turns lists into tuples."""
    try:
        return decoder.decode(content)
    except msgspec.ValidationError as error:
        raise DataError(f"{location}: {describe_problem(sample) or error}") from error


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
