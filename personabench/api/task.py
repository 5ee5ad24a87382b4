"""The `Task` interface: data, wording, reading of answers and metrics.

A task words its requests and reads the answers; it knows no method.  A static task implements
`open`, `render`, `parse` and `measure` and declares its metrics.  Further abilities are interfaces
of their own: `OnlineTask`, `DialogueTask` and `JudgedTask` for interaction, `OfficialFiles` and
`SubmissionFile` for the benchmark's files, `Downloadable`, `Generative` and `Audited` for its data.

A benchmark's folder may define several tasks; the registry lists every class that has a literal
`name`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from personabench.api.dataset import Dataset, Wrapped
from personabench.api.wording import Wording
from personabench.metrics.metric import Metric, Value
from personabench.types import Sample

if TYPE_CHECKING:
    from personabench.models.roles import RoleName

__all__ = ["JsonObject", "Protocol", "Task", "Wrapped"]

Protocol = Literal["static", "online", "dialogue"]
JsonObject = Mapping[str, Any]
"""A recorded interaction, a feedback or an assessment: any JSON object."""


class Task(Wording):
    """A benchmark task.  Its base `Wording` is the part that methods may use.

    Attributes:
        title: one line for lists.
        example: True if the example data suits any method; such a task is used when none is named.
        version: to be raised when prompts or scores change.
        metrics: the metrics; the first is the primary one.
        default_split: the split to use when none is named.
        source, licence: of the data.
        protocol: how an answer comes about.  `static` is one request, `dialogue` a conversation led
            by `DialogueTask.converse`, `online` one round of a user's trajectory, ended by
            `OnlineTask.react`.
        offers: the capabilities that methods find, out of `personabench.api.capabilities`; those
            that follow from `kind` need no declaration.
        roles: the further models that are always needed; an option may change them on the instance.
        optional_roles: the further models that are used when the run names them.
        Params: a frozen dataclass of options, set with `--set task.key=value`.
    """

    title: ClassVar[str] = ""
    example: ClassVar[bool] = False
    version: ClassVar[int] = 1
    metrics: ClassVar[tuple[Metric, ...]]
    default_split: ClassVar[str] = "dev"
    source: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    protocol: ClassVar[Protocol] = "static"
    offers: ClassVar[tuple[str, ...]] = ("history", "population", "dates", "precedents")
    roles: tuple[RoleName, ...] = ()
    optional_roles: tuple[RoleName, ...] = ()

    @abstractmethod
    def open(self, split: str, data: Path | None) -> Dataset:
        """Open a split from a folder, or the example data without one.

        Raises:
            UsageError: unknown split.
            DataError: the files are missing or broken; the message names file, record and field.
        """

    @abstractmethod
    def measure(
        self,
        parsed: str | None,
        sample: Sample,
    ) -> Mapping[str, Value]:
        """Return a sample's values for each metric; `parsed` is None for an unparsed answer."""

    def measure_interaction(
        self,
        record: JsonObject,
        assessment: JsonObject | None,
        sample: Sample,
    ) -> Mapping[str, Value]:
        """Return metric values from a recorded interaction and from the judge's assessment.

        They replace those of `measure`.  A metric left out is missing for the sample; without a
        value of the primary metric the sample has no score.
        """
        return {}

    @classmethod
    def metrics_of(cls, metric_names: Collection[str]) -> tuple[Metric, ...]:
        """Return the metrics of a run that reports these names."""
        # Tasks whose metrics depend on their data override this and select by name.
        # Judged metrics have a default since a task may be judged without being a JudgedTask.
        return (*cls.metrics, *getattr(cls, "judged_metrics", ()))
