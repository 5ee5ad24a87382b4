"""Judged tasks: a judge model assesses the answers."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from personabench.api.interface import Interface
from personabench.api.task import JsonObject, Task
from personabench.metrics.metric import Metric
from personabench.models.roles import Role
from personabench.types import Sample


class JudgedTask(Task, Interface):
    """A task whose answers a judge assesses, always or when the run names a judge.

    Attributes:
        judged_metrics: the metrics that come with an optional judge.
        judge_params: the options that change no answer, such as the judge's rubric: they are part
            of the judge's key and of no run's fingerprint.
        judge_content: the hash of the judge's wording, a rubric from a file included: part of the
            judge's key, and the version of its prompt.  Empty if the task's source is the version.
        judge_sees_own_history: True if `assess` gets the user's own history even where a control
            shows methods another one.
    """

    interface_methods = ("assess",)
    judged_metrics: ClassVar[tuple[Metric, ...]] = ()
    judge_params: ClassVar[tuple[str, ...]] = ()
    judge_content: ClassVar[str] = ""
    judge_sees_own_history: ClassVar[bool] = False

    @abstractmethod
    async def assess(
        self,
        sample: Sample,
        output: str,
        interaction: JsonObject,
        judge: Role,
    ) -> JsonObject | None:
        """Have the judge assess an answer; None when its reply cannot be read."""


# A task may be judged without deriving from JudgedTask (see Interface), so its declarations are
# read with a default.


def judged_metrics(task: Task) -> tuple[Metric, ...]:
    """The metrics that an optional judge adds to a task's own."""
    metrics: tuple[Metric, ...] = getattr(task, "judged_metrics", ())
    return metrics


def judge_params(task: Task) -> tuple[str, ...]:
    """The names of a task's options that only its judge reads."""
    option_names: tuple[str, ...] = getattr(task, "judge_params", ())
    return option_names


def judge_content(task: Task) -> str:
    """The hash of the judge's wording; empty for tasks whose source is its version."""
    return str(getattr(task, "judge_content", ""))


def metrics_added_by_judge(task: Task) -> tuple[str, ...] | None:
    """The metrics that an optional judge adds, by name; None if the judge is not optional."""
    if "judge" in task.roles or "judge" not in task.optional_roles:
        return None

    return tuple(metric.name for metric in judged_metrics(task))
