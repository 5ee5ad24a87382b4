"""What a task is: data in, wording, reading of answers, metrics.

A task says *what* is asked and how answers are read; it knows no method.  A static task implements `open`, `render`,
`parse` and `measure` and declares its metrics; everything else has a default.  An online task adds `react`, a dialogue
task `converse`, a judged one `assess`, and each of them `measure_interaction`.
Benchmark folders may define several tasks;
the registry finds each class that has a literal `name`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from personabench.api.dataset import Dataset
from personabench.api.wording import Rendered, ResponseKind, Vocabulary
from personabench.errors import DataError, UsageError
from personabench.metrics.metric import Metric, Value
from personabench.models.tokens import Tokens
from personabench.types import Record, Sample, User

if TYPE_CHECKING:
    from personabench.api.context import Context
    from personabench.models.roles import Role, RoleName


Protocol = Literal["static", "online", "dialogue"]
JsonObject = Mapping[str, Any]
"""What an interactive task writes down or tells, any JSON object."""
Reply = Callable[[Sample], Awaitable[str]]
"""The method under test, for one variant of a sample; what the method must not see is taken out of it."""


class Wrapped(Dataset):
    """Another dataset, shown differently: what a subclass does not change is the other's."""

    def __init__(self, inner: Dataset) -> None:
        self.inner = inner
        self.separation, self.split, self.sample = inner.separation, inner.split, inner.sample
        self.dated, self.identified = inner.dated, inner.identified
        self.hash, self.source, self.warnings = inner.hash, inner.source, inner.warnings
        self.lacking, self.disliked = inner.lacking, inner.disliked

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


class Task(ABC):
    """A benchmark task.

    Class attributes: `name`, `title`, `version` (raise it when prompts or scores change), `kind` of response,
    `metrics` (the first is primary), `source`, `licence`, `max_tokens` of an answer, `labels` in the benchmark's
    order (empty for text), and `Params`, a frozen dataclass of options set with `--set task.key=value`.

    `protocol` says how an answer comes about: `static` is one request, `dialogue` a conversation that `converse` leads,
    `online` one round of a user's trajectory, which the user's `react` ends and the method learns from.  `offers` is
    what methods find there: "history", "population", "feedback", "dialogue".  `roles` are the further models that are
    always needed, `optional_roles` those that are used when the run names them; an option may change either on the
    instance.  `judged_metrics` come with an optional judge.  `judge_params` names options that change no
    answer, such as what only the judge reads: they are part of the judge's key and of no run's fingerprint.  An
    `example` is a task whose bundled sample suits any method: one is tried where none is named.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    example: ClassVar[bool] = False
    version: ClassVar[int] = 1
    kind: ClassVar[ResponseKind] = "text"
    metrics: ClassVar[tuple[Metric, ...]]
    scorers: ClassVar[tuple[str, ...]] = ("official", "lenient")
    default_split: ClassVar[str] = "dev"
    source: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    max_tokens: ClassVar[int] = 64
    labels: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[Vocabulary]
    protocol: ClassVar[Protocol] = "static"
    offers: ClassVar[tuple[str, ...]] = ("history", "population")
    roles: tuple[RoleName, ...] = ()
    optional_roles: tuple[RoleName, ...] = ()
    judged_metrics: ClassVar[tuple[Metric, ...]] = ()
    judge_params: ClassVar[tuple[str, ...]] = ()

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
    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """The request to the model: the sample, chosen records (best first) and notes about the user.

        All methods share this wording; with no records and no notes it is the non-personalised request.
        """

    @classmethod
    def metrics_of(cls, names: Collection[str]) -> tuple[Metric, ...]:
        """The metrics of a run that reports these names; a task whose metrics depend on its data overrides it."""
        return (*cls.metrics, *cls.judged_metrics)

    @property
    def judge_adds(self) -> tuple[str, ...] | None:
        """The metrics that come with an optional judge; None where there is always a judge, or never one."""
        optional = "judge" in self.optional_roles and "judge" not in self.roles
        return tuple(metric.name for metric in self.judged_metrics) if optional else None

    def describe(self, record: Record) -> str:
        """A record as labelled plain text, for prompts about the user."""
        parts = (
            []
            if record.stimulus is None
            else [f"{self.words.stimulus.capitalize()}: {record.stimulus}"]
        )
        return "\n".join([*parts, f"{self.words.response.capitalize()}: {record.response}"])

    def query_text(self, sample: Sample) -> str:
        """What history is searched with."""
        return sample.stimulus or sample.input

    def document_text(self, record: Record) -> str:
        """What a record is found by; never a label or score."""
        return record.stimulus or record.response

    def question(self, record: Record, like: Sample) -> Sample:
        """A record as a question of its own, worded like another: what a draft of a past response is asked for with.

        By default the record's stimulus stands where `like` has its own; a task whose questions say more of a record
        than that overrides it.  A record without a stimulus has its response for one.
        """
        stimulus = wording = record.stimulus or record.response
        if like.stimulus and like.stimulus in like.input:
            before, _, after = like.input.rpartition(like.stimulus)
            wording = f"{before}{stimulus}{after}"
        return Sample(
            id=record.id,
            user_id=like.user_id,
            input=wording,
            stimulus=stimulus,
            choices=like.choices,
            attributes={
                name: record.fields[name] for name in like.attributes if name in record.fields
            },
            time=record.time,
            item=record.item,
        )

    def facts(self, known: Mapping[str, str]) -> str:
        """What is known of a response beside its stimulus, such as a review's rating, as text; nothing by default.

        `known` is a sample's attributes or a record's fields.
        """
        return ""

    def exchanges(self, sample: Sample) -> Sequence[Record] | None:
        """What the user said to an assistant's replies before the sample, in time order; None where nobody talked.

        A record's `stimulus` is what the user had said before, `fields["reply"]` the assistant's reply to that, and
        `response` what the user said next.
        """
        return None

    @abstractmethod
    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """Read an answer as a scorer does; None when it cannot be read."""

    @abstractmethod
    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        """The values one sample contributes to each metric; `parsed` None is a parse failure."""

    async def converse(
        self, sample: Sample, reply: Reply, ctx: Context, simulator: Role
    ) -> tuple[str, JsonObject]:
        """Dialogue tasks: lead one sample's conversation; returns the final answer and what to write down.

        `sample` is whole.  `reply(variant)` is the method under test on the sample with another `dialogue`, history or
        attributes; `ctx` asks the model under test without the method.
        """
        return await reply(sample), {}

    async def react(
        self, sample: Sample, output: str, simulator: Role
    ) -> tuple[JsonObject, JsonObject]:
        """Online tasks: end a round; returns the feedback that the method learns from and what to write down.

        `sample` is whole.  A BackendError stops the user's trajectory here, to be taken up by the same command.
        """
        return {}, {}

    async def assess(
        self, sample: Sample, output: str, record: JsonObject, judge: Role
    ) -> JsonObject | None:
        """Judged tasks: what the judge makes of an answer; None when its words cannot be read."""
        return None

    def measure_interaction(
        self, record: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        """Metric values from what an interactive task wrote down and from the judge's assessment.

        They go over those of `measure`.  A metric left out is missing for the sample; without a value of the primary
        metric the sample has no score.
        """
        return {}

    def audit(self, dataset: Dataset) -> list[str]:
        """Places in the data itself where an answer can be looked up, one line each; none known by default."""
        return []

    def read_references(self, path: Path) -> dict[str, Sample]:
        """Samples, by id, from an official reference file: enough of each to score an answer."""
        raise UsageError(f"task {self.name} has no official prediction files to score")

    def read_predictions(self, path: Path) -> tuple[str | None, list[tuple[str, str | None]]]:
        """The task name a prediction file states, if any, and its (id, output) pairs in file order."""
        raise DataError(f'{path}: expected JSON lines of {{"id", "output"}}, ids as strings')

    def submission(self, outputs: Iterable[tuple[str, str]]) -> Iterator[str]:
        """The benchmark's own submission file, in pieces, for (sample id, output) pairs; nothing where it has none."""
        return iter(())

    async def generate(
        self, source: str, target: Path, models: Sequence[Role], **options: Any
    ) -> Path:
        """Write a new set of the task's form into a folder, with models as its authors; returns the file.

        Raises:
            UsageError: the task makes no sets.
            DataError: the source cannot be used, or nothing came about.
            BackendError: a call failed for good.
        """
        raise UsageError(f"task {self.name} makes no sets of its own")

    def download(self, split: str, target: Path, **options: Any) -> None:
        """Fetch the official files after checking their content.

        Options are `progress`, called as `personabench.downloads.Progress`, and `base_url`, a mirror.

        Raises:
            UsageError: the task has nothing to download.
            DataError: what came back is not the data.
        """
        raise UsageError(f"task {self.name} has nothing to download; pass a local copy with --data")
