"""Compare two runs sample by sample on every metric, as `personabench compare` does."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from personabench.api import registry
from personabench.errors import PersonabenchError, UsageError
from personabench.leaderboard.column import (
    SEED,
    Column,
    aggregate_of,
    chance_of,
    check_summary,
    cluster_of,
    metric_values,
)
from personabench.leaderboard.estimates import ALPHA, Contrast, Count, Estimate
from personabench.leaderboard.rows import conditions, judge_of, metric_directions
from personabench.leaderboard.stats import holm
from personabench.leaderboard.stats.scores import DRAWS
from personabench.results.index import Run
from personabench.results.published import Vector, vector

# Longest text of one side of a difference in an error message.
_VALUE_LENGTH = 60
_DIFFERENCE_LENGTH = 80


@dataclass(frozen=True)
class MetricComparison:
    """One metric of two runs on the samples of both."""

    higher_is_better: bool
    a: Estimate
    b: Estimate
    contrast: Contrast

    @property
    def gain(self) -> Estimate:
        """The gain of a over b."""
        return self.contrast.gain


@dataclass(frozen=True)
class Harmed:
    """Users whose mean is below the score of guessing in one of two runs only.

    Attributes:
        chance: the score of guessing.
        by_a, by_b: users below it in that run, but not in the other.
        users: users with the metric in both runs.
    """

    chance: float
    by_a: int
    by_b: int
    users: int


@dataclass(frozen=True)
class RunComparison:
    """The comparison of run a with run b.

    Attributes:
        differences: the conditions in which the runs differ, in words.
        n, users: scored samples that both runs have, and their users.
        only: number of further samples of each run.
        skipped: metrics that could not be compared.
        harmed: by metric with a score of guessing, how many users a leaves below it and b does not,
            and the other way round.
        derived: numbers that the task computes from both runs, by name.
    """

    differences: Sequence[str]
    n: int
    users: int
    only: Mapping[str, int]
    metrics: Mapping[str, MetricComparison]
    skipped: Sequence[str]
    draws: int = DRAWS
    seed: int = SEED
    alpha: float = ALPHA
    harmed: Mapping[str, Harmed] = field(default_factory=dict)
    derived: Mapping[str, float] = field(default_factory=dict)


def compare_runs(a: Run, b: Run, allow_mismatch: bool = False) -> RunComparison:
    """Compare run a with run b on every metric.

    Each metric is compared on the samples for which both have it; a metric that an optional judge
    adds, only if both have the same judge. p-values are corrected over the metrics.

    Args:
        allow_mismatch: compare runs that differ in more than method, history control and seed.

    Raises:
        UsageError: the runs must not be compared, or share no sample.
        DataError: a score file is damaged.
    """
    differences = _describe_differences(a, b)
    tasks = a.summary.task, b.summary.task
    if tasks[0] != tasks[1]:
        raise UsageError(f"{tasks[0]} and {tasks[1]} are different tasks: they share no sample")
    if differences and not allow_mismatch:
        raise UsageError(
            f"the runs differ in {'; '.join(differences)}; add --allow-mismatch to compare them"
        )

    scores_a, scores_b = vector(a), vector(b)
    common = set(scores_a.ids) & set(scores_b.ids)
    if not common:
        raise UsageError("the runs share no scored sample")

    columns: dict[str, Column] = {}
    harmed: dict[str, Harmed] = {}
    skipped = []
    for name, higher in metric_directions((a, b)).items():
        aggregate = aggregate_of(a, name, scores_a)
        samples = set(metric_values(scores_a, name)) & set(metric_values(scores_b, name))
        same_judge = judge_of(a, name) == judge_of(b, name) or allow_mismatch
        if aggregate is None or not samples or not same_judge:
            skipped.append(name)
            continue
        check_summary(a, name, scores_a, aggregate)
        check_summary(b, name, scores_b, aggregate)
        pair = [[_restrict(scores, samples)] for scores in (scores_a, scores_b)]
        cluster = cluster_of(a, name, scores_a)
        columns[name] = Column(pair, name, higher, aggregate, cluster=cluster)
        chance = chance_of(a, name, scores_a)
        if chance is not None and higher:
            harmed[name] = count_harmed(pair[0][0], pair[1][0], name, chance)

    metrics = compare_metrics(columns)
    users = zip(scores_a.ids, scores_a.users, strict=True)
    return RunComparison(
        differences=differences,
        n=len(common),
        users=len({user for sample, user in users if sample in common}),
        only={"a": len(scores_a.ids) - len(common), "b": len(scores_b.ids) - len(common)},
        metrics=metrics,
        skipped=skipped,
        harmed=harmed,
        derived=_derive(a, b, metrics),
    )


def count_harmed(a: Vector, b: Vector, name: str, chance: float) -> Harmed:
    """Count the users who fall below the score of guessing in one of two runs on the same samples.

    A metric of one number per sample is meant, of which higher is better.
    """
    means_a, means_b = _user_means(a, name), _user_means(b, name)
    users = means_a.keys() & means_b.keys()
    return Harmed(
        chance,
        by_a=sum(means_a[user] < chance <= means_b[user] for user in users),
        by_b=sum(means_b[user] < chance <= means_a[user] for user in users),
        users=len(users),
    )


def _user_means(scores: Vector, name: str) -> dict[str, float]:
    owners = dict(zip(scores.ids, scores.users, strict=True))
    by_user: defaultdict[str, list[float]] = defaultdict(list)
    for sample, value in metric_values(scores, name).items():
        if isinstance(value, int | float):
            by_user[owners[sample]].append(float(value))
    return {user: math.fsum(values) / len(values) for user, values in by_user.items()}


def _derive(a: Run, b: Run, metrics: Mapping[str, MetricComparison]) -> Mapping[str, float]:
    """Numbers of the task that need both runs; none if its task is not installed."""
    try:
        cls = registry.load_recorded("task", a.summary.task, a.task_hash)
    except PersonabenchError:
        return {}
    scores_a = {name: metric.a.value or 0.0 for name, metric in metrics.items()}
    scores_b = {name: metric.b.value or 0.0 for name, metric in metrics.items()}
    return dict(cls.derive((a.task_params, b.task_params), (scores_a, scores_b)))


def compare_metrics(columns: Mapping[str, Column]) -> dict[str, MetricComparison]:
    """Compare the first row of each metric's column with the second, corrected over the metrics."""
    comparisons = {name: column.compare(0, 1) for name, column in columns.items()}
    corrected = holm([comparison.p for comparison in comparisons.values()])
    return {
        name: MetricComparison(
            higher_is_better=column.higher,
            a=column.estimate(0),
            b=column.estimate(1),
            contrast=Contrast(comparisons[name], p),
        )
        for (name, column), p in zip(columns.items(), corrected, strict=True)
    }


def to_dict(comparison: RunComparison) -> dict[str, Any]:
    """Plain values of a comparison, as `compare --json` prints them."""
    metrics = {name: _metric_dict(metric) for name, metric in comparison.metrics.items()}
    return {
        "differences": comparison.differences,
        "n": comparison.n,
        "users": comparison.users,
        "only": comparison.only,
        "draws": comparison.draws,
        "seed": comparison.seed,
        "alpha": comparison.alpha,
        "metrics": metrics,
        "skipped": comparison.skipped,
        "harmed": msgspec.to_builtins(dict(comparison.harmed)),
        "derived": dict(comparison.derived),
    }


def _metric_dict(metric: MetricComparison) -> dict[str, Any]:
    comparison = metric.contrast.comparison
    return {
        "higher_is_better": metric.higher_is_better,
        "a": msgspec.to_builtins(metric.a),
        "b": msgspec.to_builtins(metric.b),
        **msgspec.to_builtins(comparison),
        "hurt": {"samples": _hurt(comparison.samples), "users": _hurt(comparison.by_user)},
        "corrected": metric.contrast.corrected,
    }


def _hurt(count: Count | None) -> float | None:
    return None if count is None else count.hurt


def _restrict(scores: Vector, samples: set[str]) -> Vector:
    """The scores of some samples only."""
    indices = [index for index, sample in enumerate(scores.ids) if sample in samples]
    values = {
        scorer: {metric: [column[index] for index in indices] for metric, column in metrics.items()}
        for scorer, metrics in scores.values.items()
    }
    return Vector(
        [scores.ids[index] for index in indices],
        [scores.users[index] for index in indices],
        values,
    )


def _describe_differences(a: Run, b: Run) -> list[str]:
    """Describe the conditions that keep two runs from being comparable."""
    of_a, of_b = conditions(a), conditions(b)
    return [
        _describe_difference(name, of_a.get(name), of_b.get(name))
        for name in of_a | of_b
        if of_a.get(name) != of_b.get(name)
    ]


def _describe_difference(name: str, a: Any, b: Any) -> str:
    if not isinstance(a, dict) or not isinstance(b, dict):
        return f"{name} ({str(a)[:_VALUE_LENGTH]} against {str(b)[:_VALUE_LENGTH]})"

    keys = [key for key in a | b if a.get(key) != b.get(key)]
    texts = [", ".join(f"{key}={value.get(key)}" for key in keys) for value in (a, b)]
    return f"{name} ({texts[0][:_DIFFERENCE_LENGTH]} against {texts[1][:_DIFFERENCE_LENGTH]})"
