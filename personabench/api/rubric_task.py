"""Add a rubric to a task: a judge scores its answers beside the task's own metrics."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from personabench.api.judged import JudgedTask
from personabench.api.task import JsonObject, Task
from personabench.errors import UsageError
from personabench.metrics.judges.custom_rubric import Rubric
from personabench.metrics.judges.rubric_protocols import RubricJudge
from personabench.metrics.metric import Metric, Value
from personabench.models.roles import Role
from personabench.types import Sample


class RubricJudged(JudgedTask):
    """The judged part of a task with a rubric; the task itself is the other base class."""

    judge_sees_own_history = True
    rubric: ClassVar[Rubric]

    async def assess(
        self, sample: Sample, output: str, interaction: JsonObject, judge: Role
    ) -> JsonObject | None:
        """Have the judge score the answer by each criterion; see `Rubric`."""
        judged = await self._rubric_judge.assess(
            judge,
            request=sample.input,
            # The official parser, so that a judgement does not depend on the scorer.
            answer=self.parse(output, sample, self.scorers[0]) or "",
            references=sample.references,
            records=[self.describe(record) for record in sample.history],
        )
        if judged is None:
            return None
        if judged.retries:
            judge.flag("judge_retried", judged.retries)
        for name, count in judged.flags.items():
            if count:
                judge.flag(name, count)
        if not judged.values:
            return None
        total = {} if judged.total is None else {"total": judged.total}
        return {
            "scores": dict(judged.scores),
            **total,
            "values": dict(judged.values),
            "evidence": judged.evidence,
        }

    @cached_property
    def _rubric_judge(self) -> RubricJudge:
        return RubricJudge(self.rubric)

    def measure_interaction(
        self, interaction: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        """Return the metrics of the rubric, beside those that the task takes from interactions."""
        values = dict(super().measure_interaction(interaction, None, sample))
        if assessment:
            # Judgements from before there were protocols have the scores alone.
            values |= assessment.get("values") or self.rubric.values(assessment["scores"])
        return values


def with_rubric(cls: type[Task], rubric: Rubric) -> type[Task]:
    """Derive a task whose answers are scored by a rubric.

    Its source hash, and so its runs, are those of the task: the rubric belongs to the judge.

    Raises:
        UsageError: the task's answers are no text, or it always has a judge of its own.
    """
    if cls.kind != "text":
        raise UsageError(f"--judge-rubric: the answers of {cls.name} are no text, but {cls.kind}")
    if "judge" in cls.roles or cls.protocol == "dialogue":
        raise UsageError(f"--judge-rubric: {cls.name} has a judge of its own; leave it out")

    metrics = tuple(Metric(name) for name in rubric.metrics)
    names = [metric.name for metric in cls.metrics]
    repeated = [name for name in rubric.metrics if name in names]
    if repeated:
        raise UsageError(
            f"--judge-rubric: {cls.name} has a metric {repeated[0]}; rename the rubric"
        )

    # A judge that ranks is always there; one that only adds metrics leaves the others comparable.
    attributes: dict[str, Any] = {
        "__module__": cls.__module__,
        "__doc__": cls.__doc__,
        "rubric": rubric,
        "judge_content": rubric.identity,
        "judge_params": getattr(cls, "judge_params", ()),
        "roles": (*cls.roles, "judge") if rubric.primary else cls.roles,
        "optional_roles": () if rubric.primary else ("judge",),
        "metrics": (*metrics, *cls.metrics) if rubric.primary else cls.metrics,
        "judged_metrics": () if rubric.primary else metrics,
    }
    return type(cls.__name__, (RubricJudged, cls), attributes)
