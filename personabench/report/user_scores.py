"""The scores of single users in two rows, on the samples that both rows have."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from personabench.leaderboard.column import aggregate_of
from personabench.report.groups import ReportRow
from personabench.results.index import SCORER, Run
from personabench.results.published import Vector, vector

# At most so many users are kept of a row: evenly spaced quantiles beyond.
POINTS = 200


def user_gains(member: ReportRow, base: ReportRow) -> list[float] | None:
    """Compute the gain of each user on the primary metric, lowest first, averaged over seeds.

    On the samples that both rows have; at most `POINTS` gains. None for metrics that are not one
    number per sample.
    """
    pairs = _score_users(member, base)
    if pairs is None:
        return None

    sign = _direction(member)
    gains = np.sort([sign * (value - base_value) for value, base_value in pairs])
    if len(gains) > POINTS:
        # Midpoints of equal shares, so that the quantiles stand for the same number of users each.
        midpoints = (np.arange(POINTS) + 0.5) / POINTS
        gains = np.quantile(gains, midpoints)
    return [float(gain) for gain in gains]


def user_pairs(member: ReportRow, other: ReportRow) -> list[tuple[float, float]] | None:
    """The primary metric of each user in two rows, the largest loss of the first row first.

    On the samples that both rows have; at most `POINTS` users, evenly spaced in this order. None
    as in `user_gains`.
    """
    pairs = _score_users(member, other)
    if pairs is None:
        return None

    sign = _direction(member)
    ordered = sorted(pairs, key=lambda pair: sign * (pair[0] - pair[1]))
    if len(ordered) > POINTS:
        positions = np.linspace(0, len(ordered) - 1, POINTS).round().astype(int)
        ordered = [ordered[position] for position in positions]
    return ordered


def _direction(member: ReportRow) -> float:
    summary = member.runs[0].summary
    return 1.0 if summary.higher_is_better[member.row.primary] else -1.0


def _score_users(member: ReportRow, other: ReportRow) -> list[tuple[float, float]] | None:
    """The primary metric of each user in two rows, averaged over seeds, on common samples."""
    metric = member.row.primary
    scores = [vector(run) for run in member.runs]
    other_scores = [vector(run) for run in other.runs]
    samples = [_samples_with(seed_scores, metric) for seed_scores in (*scores, *other_scores)]
    common = set.intersection(*samples)

    by_user = _mean_by_user(member, scores, common)
    other_by_user = _mean_by_user(other, other_scores, common)
    if by_user is None or other_by_user is None:
        return None
    return [(value, other_by_user[user]) for user, value in by_user.items()]


def _samples_with(scores: Vector, metric: str) -> set[str]:
    """The samples that have a metric."""
    metrics = scores.values.get(SCORER, {})
    values = metrics.get(metric)
    if not values:
        return set()

    pairs = zip(scores.ids, values, strict=True)
    return {sample for sample, value in pairs if value is not None}


def _mean_by_user(
    member: ReportRow,
    vectors: Sequence[Vector],
    common: Collection[str],
) -> dict[str, float] | None:
    """The primary metric of each user on the common samples, averaged over seeds."""
    seeds = []
    for run, scores in zip(member.runs, vectors, strict=True):
        by_user = _metric_by_user(run, scores, member.row.primary, common)
        if by_user is None:
            return None
        seeds.append(by_user)

    means = {}
    for user in seeds[0]:
        seed_values = [by_user[user] for by_user in seeds]
        means[user] = float(np.mean(seed_values))
    return means


def _metric_by_user(
    run: Run,
    scores: Vector,
    metric: str,
    common: Collection[str],
) -> dict[str, float] | None:
    metrics = scores.values.get(SCORER, {})
    values = metrics.get(metric, [])
    aggregate = aggregate_of(run, metric, scores)
    if aggregate is None or not values:
        return None
    if any(isinstance(value, list) for value in values):
        return None

    values_by_user: dict[str, list[Any]] = {}
    for sample, user, value in zip(scores.ids, scores.users, values, strict=True):
        if sample in common:
            user_values = values_by_user.setdefault(user, [])
            user_values.append(value)

    scores_by_user = {}
    for user, user_values in values_by_user.items():
        array = np.array(user_values, dtype=np.float64)
        scores_by_user[user] = aggregate(array)
    return scores_by_user
