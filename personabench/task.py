"""What a task is: data in, wording, reading of answers, metrics.

A task says *what* is asked and how answers are read; it knows no method.  A static task implements `open`, `render`,
`parse` and `measure` and declares its metrics; everything else has a default.  Benchmark folders may define several
tasks; the registry finds each class that has a literal `name`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from personabench.errors import UsageError
from personabench.types import Message, Record, Sample, User

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

ResponseKind = Literal["text", "category", "ordinal"]
Value = float | list[float]


def mean(values: Floats) -> float:
    """The mean of one value per sample."""
    return float(values.mean())


@dataclasses.dataclass(frozen=True)
class Metric:
    """A named number over samples.

    `aggregate` maps the per-sample values, shape (n,) or (n, d), to the metric; it must accept any resample of rows.
    """

    name: str
    higher_is_better: bool = True
    aggregate: Callable[[Floats], float] = mean


class Words(msgspec.Struct, frozen=True):
    """A task's vocabulary, shared by all methods' prompts.

    Attributes:
        person: who the user is to the task ("author").
        stimulus: what they respond to ("article").
        response: what they produce ("headline").
        profile_question: what a summary of the person should answer.
        axes: the dimensions on which two people's responses may differ, as (name, definition) pairs.
        instruction: the output contract in one sentence.
    """

    person: str
    stimulus: str
    response: str
    profile_question: str
    axes: tuple[tuple[str, str], ...]
    instruction: str


@dataclasses.dataclass
class Rendered:
    """A request in the task's wording: messages, the records that made it in, and what happened on the way."""

    messages: tuple[Message, ...]
    records: tuple[Record, ...] = ()
    flags: dict[str, float] = dataclasses.field(default_factory=dict)


class Tokens(ABC):
    """The token counter of the model under test."""

    exact: bool = True

    @abstractmethod
    def count(self, text: str) -> int:
        """Number of tokens of a text."""

    @abstractmethod
    def cut(self, text: str, limit: int) -> str:
        """The longest prefix of a text that has at most `limit` tokens."""


class Dataset(ABC):
    """An opened split: samples in file order, without holding them all in memory.

    Attributes:
        separation, split: the part of the benchmark; `sample`: this is the bundled sample, not the benchmark.
        dated: every record has a time; identified: the data names its users.
        hash: SHA-256 of the files; source: where they lie, for people; warnings: defects worth telling.
    """

    separation: str
    split: str
    sample: bool = False
    dated: bool = False
    identified: bool = True
    hash: str
    source: str
    warnings: tuple[str, ...] = ()

    @abstractmethod
    def index(self) -> Sequence[tuple[str, str]]:
        """(sample id, user id) of every sample, in file order."""

    @abstractmethod
    def load(self, position: int) -> Sample:
        """The sample at a position of `index()`, references included where the split has them."""

    def samples(self) -> Iterator[Sample]:
        """Every sample, in file order."""
        for position in range(len(self.index())):
            yield self.load(position)

    def population(self) -> Iterator[User]:
        """Every user of the whole split with the longest history visible in any of their samples; never any gold."""
        last: dict[str, int] = {}
        for position, (_, user) in enumerate(self.index()):
            last[user] = position
        for user, position in last.items():
            yield User(user, self.load(position).history)


class Task(ABC):
    """A benchmark task.

    Class attributes: `name`, `title`, `version` (raise it when prompts or scores change), `kind` of response,
    `metrics` (the first is primary), `source`, `licence`, `max_tokens` of an answer, `labels` in the benchmark's
    order (empty for text), and `Params`, a frozen dataclass of options set with `--set task.key=value`.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    version: ClassVar[int] = 1
    kind: ClassVar[ResponseKind] = "text"
    metrics: ClassVar[tuple[Metric, ...]]
    scorers: ClassVar[tuple[str, ...]] = ("official", "lenient")
    default_split: ClassVar[str] = "dev"
    source: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    max_tokens: ClassVar[int] = 64
    labels: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[Words]

    @dataclasses.dataclass(frozen=True)
    class Params:
        """Options of the task; none by default."""

    def __init__(self, params: Any = None) -> None:
        self.params = params if params is not None else self.Params()

    @abstractmethod
    def open(self, split: str, data: Path | None) -> Dataset:
        """Open a split from a folder, or the bundled sample when `data` is None.

        Raises:
            UsageError: no such split.
            DataError: the files are missing or broken; the message names file, record and field.
        """

    @abstractmethod
    def render(self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens) -> Rendered:
        """The request to the model: the sample, chosen records (best first) and notes about the user.

        All methods share this wording; with no records and no notes it is the non-personalised request.
        """

    def describe(self, record: Record) -> str:
        """A record as labelled plain text, for prompts about the user."""
        parts = [] if record.stimulus is None else [f"{self.words.stimulus.capitalize()}: {record.stimulus}"]
        return "\n".join([*parts, f"{self.words.response.capitalize()}: {record.response}"])

    def query_text(self, sample: Sample) -> str:
        """What history is searched with."""
        return sample.stimulus or sample.input

    def document_text(self, record: Record) -> str:
        """What a record is found by; never a label or score."""
        return record.stimulus or record.response

    @abstractmethod
    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """Read an answer as a scorer does; None when it cannot be read."""

    @abstractmethod
    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        """The values one sample contributes to each metric; `parsed` None is a parse failure."""

    def audit(self, dataset: Dataset) -> list[str]:
        """Places in the data itself where an answer can be looked up, one line each; none known by default."""
        return []

    def read_references(self, path: Path) -> dict[str, Sample]:
        """Samples, by id, from an official reference file: enough of each to score an answer."""
        raise UsageError(f"task {self.name} has no official prediction files to score")

    def read_predictions(self, path: Path) -> tuple[str | None, list[tuple[str, str | None]]]:
        """The task name a prediction file states, if any, and its (id, output) pairs in file order."""
        raise UsageError(f"task {self.name} has no official prediction files to score")

    def submission(self, outputs: Iterable[tuple[str, str]]) -> Iterator[str]:
        """The benchmark's own submission file, in pieces, for (sample id, output) pairs; nothing where it has none."""
        return iter(())

    def download(self, split: str, target: Path, **options: Any) -> None:
        """Fetch the official files after checking their content.

        Raises:
            UsageError: the task has nothing to download.
            DataError: what came back is not the data.
        """
        raise UsageError(f"task {self.name} has nothing to download; pass a local copy with --data")
