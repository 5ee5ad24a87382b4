"""Check that the training of a method sees what it may see and nothing else.

A method is trained on a task's example data with a mark in every record and reference.  Two kinds
of evidence show a leak: a mark of something hidden in an artifact's files or in the log of
training, and an artifact whose bytes change when only something hidden does.  The second needs no
readable artifact: it also finds a list that is never emptied between users and ends in an adapter's
weights.
"""

from __future__ import annotations

import asyncio
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from personabench.api.artifacts import CARD, SEEN
from personabench.api.dataset import Dataset, Wrapped
from personabench.api.guard import create, locate_failure
from personabench.api.task import Task
from personabench.api.training import TrainedMethod
from personabench.errors import PersonabenchError, PluginError
from personabench.models.backends.hf_transformers import require_packages
from personabench.run.training import Report
from personabench.testing.data_access import Loaded, refuse_data_access
from personabench.testing.finding import Finding, list_some
from personabench.testing.trials import TrainingData
from personabench.types import Record, Sample, User

TESTED = 3
CORPUS = 2
_ENDS = "training ends with artifacts"


class Hidden(NamedTuple):
    """A kind of what a user's training must not see, and how a leak of it is reported."""

    check: str
    noun: str


OTHERS = Hidden("training sees no other tested user", "record")
REFERENCES = Hidden("training sees no reference of a tested sample", "reference of sample")
LATER = Hidden("training sees no later record", "later record")


class Mark(NamedTuple):
    """The place of a mark: a record, one that only the last sample shows, or a reference."""

    part: str
    user: str
    id: str

    def hidden_from(self, owner: str) -> Hidden | None:
        """The kind by which it is hidden from a user's training; None if it may be seen."""
        if self.part == "reference":
            return REFERENCES
        if self.user != owner:
            return OTHERS
        return LATER if self.part == "later" else None

    def describe(self, hidden: Hidden) -> str:
        """Name the record or the sample."""
        return f"{hidden.noun} {self.id} of user {self.user}"


_MARK = re.compile(rb"zqx[vw](\d{5})z")


class Marked(Wrapped):
    """Two samples of each user, all records and references marked; the second shows a record more.

    Args:
        samples: one of each user, from the inner dataset.
        is_changed: the marks to write in another form of the same length.
    """

    def __init__(
        self,
        task: Task,
        inner: Dataset,
        samples: Sequence[Sample],
        is_changed: Callable[[Mark], bool] = lambda mark: False,
    ) -> None:
        super().__init__(inner)
        self.marks: list[Mark] = []
        self._marks_responses = task.kind == "text"
        self._is_changed = is_changed
        self._samples = [marked for sample in samples for marked in self._mark_sample(sample)]

    def index(self) -> Sequence[tuple[str, str]]:
        return [(sample.id, sample.user_id) for sample in self._samples]

    def load(self, position: int) -> Sample:
        return self._samples[position]

    def population(self) -> Iterator[User]:
        for sample in self._samples[1::2]:
            yield User(sample.user_id, sample.history)

    def _mark_sample(self, sample: Sample) -> tuple[Sample, Sample]:
        user = sample.user_id
        history = tuple(
            self._mark_record(record, Mark("record", user, record.id)) for record in sample.history
        )
        later_id = f"{sample.history[-1].id}-later"
        later = msgspec.structs.replace(sample.history[-1], id=later_id)
        mark = self._write(Mark("reference", user, sample.id))
        first = msgspec.structs.replace(
            sample,
            history=history,
            references=tuple(f"{reference} {mark}" for reference in sample.references or ("",)),
        )
        last = self._mark_record(later, Mark("later", user, later_id))
        second = msgspec.structs.replace(first, id=f"{sample.id}-2", history=(*history, last))
        return first, second

    def _mark_record(self, record: Record, place: Mark) -> Record:
        mark = self._write(place)
        if record.stimulus is None:
            return msgspec.structs.replace(record, response=f"{record.response} {mark}")
        response = f"{record.response} {mark}" if self._marks_responses else record.response
        return msgspec.structs.replace(
            record, stimulus=f"{record.stimulus} {mark}", response=response
        )

    def _write(self, mark: Mark) -> str:
        letter = "w" if self._is_changed(mark) else "v"
        self.marks.append(mark)
        return f"zqx{letter}{len(self.marks) - 1:05}z"


def _find_longest(dataset: Dataset) -> list[Sample]:
    """Each user's sample with the longest history, the longest of all first."""
    longest: dict[str, Sample] = {}
    for sample in dataset.samples():
        known = longest.get(sample.user_id)
        if len(sample.history) > (0 if known is None else len(known.history)):
            longest[sample.user_id] = sample
    return sorted(longest.values(), key=lambda sample: (-len(sample.history), sample.user_id))


class _Users(Wrapped):
    """The samples of some users."""

    def __init__(self, inner: Dataset, users: Sequence[str], split: str) -> None:
        super().__init__(inner)
        self.split = split
        index = inner.index()
        self._positions = [at for at, (_, user) in enumerate(index) if user in users]

    def index(self) -> Sequence[tuple[str, str]]:
        index = self.inner.index()
        return [index[position] for position in self._positions]

    def load(self, position: int) -> Sample:
        return self.inner.load(self._positions[position])


@dataclass(frozen=True)
class TrainingExamples:
    """Example data divided into tested users and those of the population stage.

    Attributes:
        tested: the samples of the tested users; longest: that of each user with most history.
        data: what trials train with.
    """

    task: Task
    tested: Dataset
    longest: Sequence[Sample]
    data: TrainingData

    @property
    def users(self) -> list[str]:
        """The tested users, in the order of their training."""
        return [sample.user_id for sample in self.longest]


@contextmanager
def open_training_examples(
    method: TrainedMethod, task: Task, dataset: Dataset
) -> Iterator[TrainingExamples | str]:
    """Provide what a method is trained with; a reason if it cannot be trained here."""
    samples = _find_longest(dataset)
    users = [sample.user_id for sample in samples]
    tested, corpus = users[:TESTED], users[TESTED : TESTED + CORPUS]
    if not corpus:
        yield f"{task.name} has {len(users)} users with a history, and {TESTED + 1} are needed"
        return
    if method.needs_base():
        try:
            require_packages()
        except PersonabenchError as error:
            yield str(error)
            return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = ""
        if method.needs_base():
            # Imported on use: an extra.
            from personabench.testing.tiny_model import write_tiny_model

            base = str(write_tiny_model(folder / "model"))
        data = TrainingData(folder / "results", Loaded(_Users(dataset, corpus, "corpus")), base)
        part = _Users(dataset, tested, dataset.split)
        yield TrainingExamples(task, part, samples[:TESTED], data)


class _Training(NamedTuple):
    """The result of one training.

    Attributes:
        files: SHA-256 of each file of an owner's artifact by its path; the owner "" is the corpus.
        texts: the bytes of these files and of the log, by owner.
        calls: refused calls that would have read data.
        error: why it ended; empty if it did not.
    """

    files: Mapping[str, Mapping[str, str]]
    texts: Mapping[str, bytes]
    without: int
    calls: Sequence[str]
    error: str


def check_training(method: TrainedMethod, examples: TrainingExamples) -> Iterator[Finding]:
    """Train a method on marked data and look for what it must not see.

    If the first finding does not hold, or nothing was trained, it is the only one.
    """
    dataset = Marked(examples.task, examples.tested, examples.longest)
    first = _train(method, examples, dataset)
    if first.error:
        yield Finding(_ENDS, False, first.error)
        return
    detail = f"{len(examples.users)} users, {first.without} of them without an artifact"
    is_trained = first.without < len(examples.users)
    yield Finding(_ENDS, is_trained or None, detail)
    if not is_trained:
        return
    yield Finding("training reads no task's data", not first.calls, list_some(first.calls))

    again = _train(method, examples, dataset)
    different = [
        f"{_name(owner)}: {file}"
        for owner in first.files
        for file in _compare(first.files[owner], again.files.get(owner, {}))
    ]
    is_repeatable = not different and not again.error
    yield Finding(
        "two trainings give the same files", is_repeatable, again.error or list_some(different)
    )

    leaks = _find_marks(first, dataset.marks)
    if is_repeatable:
        for hidden, leak in _find_influences(method, examples, first).items():
            leaks[hidden] = leaks.get(hidden) or leak
    for hidden in (OTHERS, REFERENCES, LATER):
        yield Finding(hidden.check, not leaks.get(hidden), list_some(leaks.get(hidden, [])))


def _find_marks(training: _Training, marks: Sequence[Mark]) -> dict[Hidden, list[str]]:
    """Describe marks in files and logs that are hidden from their owner's training."""
    leaks: dict[Hidden, list[str]] = {}
    for owner, text in training.texts.items():
        for number in sorted({int(digits) for digits in _MARK.findall(text)}):
            mark = marks[number]
            hidden = mark.hidden_from(owner)
            if hidden is not None:
                leaks.setdefault(hidden, []).append(f"{_name(owner)}: {mark.describe(hidden)}")
    return leaks


def _find_influences(
    method: TrainedMethod, examples: TrainingExamples, first: _Training
) -> dict[Hidden, list[str]]:
    """Train with other texts of what the last user's training must not see, all kinds at once.

    Only if files change, each kind is changed alone, to tell them apart.
    """
    last = examples.users[-1]

    def describe_change(*kinds: Hidden) -> list[str]:
        def is_changed(mark: Mark) -> bool:
            return mark.hidden_from(last) in kinds

        dataset = Marked(examples.task, examples.tested, examples.longest, is_changed)
        changed = _train(method, examples, dataset)
        places = [mark.describe(kinds[0]) for mark in dataset.marks if is_changed(mark)]
        return [
            f"{_name(owner)}: {file} depends on {list_some(places)}"
            for owner in ("", last)
            for file in _compare(first.files.get(owner, {}), changed.files.get(owner, {}))
        ]

    kinds = (OTHERS, REFERENCES, LATER)
    if not describe_change(*kinds):
        return {}
    return {hidden: describe_change(hidden) for hidden in kinds}


def _compare(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """The paths of files that differ."""
    return sorted({path for path, _ in first.items() ^ second.items()})


def _name(owner: str) -> str:
    return f"user {owner}" if owner else "the population stage"


def _train(method: TrainedMethod, examples: TrainingExamples, dataset: Dataset) -> _Training:
    """Train a new copy of a method for all users of a dataset, in their order."""
    # A method may keep state on itself, which must not reach the next training.
    method = create(type(method), method.params)
    files: dict[str, Mapping[str, str]] = {}
    texts: dict[str, bytes] = {}
    kinds: list[str] = []
    error = ""
    with _collect_log() as lines, tempfile.TemporaryDirectory() as results:

        def notify(report: Report) -> None:
            artifact = report.artifact
            owner = artifact.card.owner
            files[owner] = artifact.card.files
            paths = [path for path in artifact.folder.rglob("*") if path.is_file()]
            written = [path.read_bytes() for path in paths if path.name not in (CARD, SEEN)]
            texts[owner] = b"\n".join([*written, *(line.encode() for line in lines)])
            lines.clear()
            if owner:
                kinds.append(artifact.card.kind)

        loaded = Loaded(dataset)
        data = examples.data.at(Path(results))
        with refuse_data_access() as calls:
            try:
                asyncio.run(data.train(examples.task, loaded, method, notify))
            except PersonabenchError as failure:
                error = str(failure)
                # The message of a plugin's own fault has its line.
                if not isinstance(failure, PluginError):
                    error += f" ({locate_failure(method, failure) or type(method).__name__})"
    return _Training(files, texts, kinds.count("none"), list(dict.fromkeys(calls)), error)


@contextmanager
def _collect_log() -> Iterator[list[str]]:
    """Collect the lines that training writes to its log in the block."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.getLogger("personabench.train")
    handler, level = Collector(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
