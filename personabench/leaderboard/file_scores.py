"""Intervals and paired tests of scored prediction files, with the statistics of leaderboards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personabench.errors import UsageError
from personabench.leaderboard.column import Column
from personabench.leaderboard.estimates import Estimate
from personabench.leaderboard.run_comparison import RunComparison, compare_metrics
from personabench.results.index import SCORER
from personabench.results.published import Vector
from personabench.run.score_file import FileScores


def estimate_scores(scores: FileScores) -> dict[str, Estimate]:
    """Estimate each metric of a file with its 95 % interval over users."""
    vector = _make_vector(scores)
    columns = _make_columns(scores, [vector])
    return {name: column.estimate(0) for name, column in columns.items()}


def compare_scores(a: FileScores, b: FileScores) -> RunComparison:
    """Compare two files of answers to the same samples, metric by metric.

    Raises:
        UsageError: the files share no sample.
    """
    vectors = [_make_vector(a), _make_vector(b)]
    common = set(vectors[0].ids) & set(vectors[1].ids)
    if not common:
        raise UsageError("the two files of predictions share no scored sample")

    users = {sample.user_id for sample in a.samples if sample.id in common}
    return RunComparison(
        differences=(),
        n=len(common),
        users=len(users),
        only={"a": a.n - len(common), "b": b.n - len(common)},
        metrics=compare_metrics(_make_columns(a, vectors)),
        skipped=(),
    )


def to_dict(scores: FileScores, estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Plain values of a file's scores, as `score --json` prints them: metrics, then the rest."""
    fields: dict[str, Any] = {
        **scores.metrics,
        "task": scores.task,
        "scorer": scores.scorer,
        "n": scores.n,
        "users": scores.users,
        "partial": scores.partial,
        "unparsed": scores.parse_failures,
        "null_outputs": scores.null_outputs,
        "missing": len(scores.missing),
        "extra": len(scores.extra),
        "repeated": len(scores.repeated),
        "intervals": {name: _interval(estimate) for name, estimate in estimates.items()},
        "extras": dict(scores.extras),
        "warnings": list(scores.warnings),
    }
    shared = scores.divergence
    if not isinstance(shared, str):
        fields["divergence"] = {
            **shared.scores._asdict(),
            "stimuli": shared.stimuli,
            "samples": shared.samples,
            "simplified": shared.simplified,
        }
    return fields


def _interval(estimate: Estimate) -> dict[str, Any]:
    return {"low": estimate.low, "high": estimate.high, "reason": estimate.reason}


def _make_vector(scores: FileScores) -> Vector:
    samples = scores.samples
    columns = {
        metric.name: [sample.values.get(metric.name) for sample in samples]
        for metric in scores.measured
    }
    return Vector(
        [sample.id for sample in samples],
        [sample.user_id for sample in samples],
        {SCORER: columns},
    )


def _make_columns(scores: FileScores, vectors: list[Vector]) -> dict[str, Column]:
    rows = [[vector] for vector in vectors]
    return {
        metric.name: Column(
            rows,
            metric.name,
            metric.higher_is_better,
            metric.aggregate,
            cluster=metric.cluster,
        )
        for metric in scores.measured
        # A variant repeats its metric on most data.
        if metric.variant_of is None
    }
