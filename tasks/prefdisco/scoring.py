"""PrefDisco's metrics: NormAlign over samples, its interval over problems, and PrefAlign by part.

NormAlign = 100 (final - base) / (known - base) of the mean PrefAligns, never of single records.
Rows are (base, known, final) of records judged in all conditions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from personabench.metrics.metric import Metric

LEAST = 0.1
"""Least distance from base to known: below it, NormAlign divides by noise and is not a number."""

# Means such as 2.1 - 2.0 miss the least distance by the last bit.
_ROUNDING = 1e-9


def compute_normalign(rows: npt.NDArray[np.float64]) -> float:
    """NormAlign of rows (base, known, final), shape (n, 3).

    Not a number if known does not exceed base by 0.1.
    """
    base, ceiling, final = rows.mean(axis=0)
    if ceiling - base < LEAST - _ROUNDING:
        return float("nan")
    return float(100 * (final - base) / (ceiling - base))


def bootstrap_normalign(
    rows: npt.NDArray[np.float64],
    problems: Sequence[str],
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """The 95 % percentile interval of NormAlign over resampled problems.

    None with fewer than two problems, or if NormAlign is not a number in more than a tenth of the
    resamples.
    """
    clusters = sorted(set(problems))
    if len(clusters) < 2:
        return None

    # Records of one problem share its difficulty, so problems are resampled and not records.
    labels = np.asarray(problems)
    groups = [np.flatnonzero(labels == problem) for problem in clusters]
    rng = np.random.default_rng(seed)
    values = []
    for picks in rng.integers(len(clusters), size=(resamples, len(clusters))):
        indices = np.concatenate([groups[pick] for pick in picks])
        values.append(compute_normalign(rows[indices]))

    # Dropping many resamples would bias the interval towards those with a large denominator.
    defined = np.array(values)[~np.isnan(values)]
    if len(defined) < 0.9 * resamples:
        return None
    low, high = np.quantile(defined, (0.025, 0.975))
    return float(low), float(high)


def split_prefalign(
    grades: Mapping[str, int | None],
    weights: Mapping[str, float],
    revealed: set[str],
) -> tuple[float | None, float | None, float]:
    """PrefAlign over criteria revealed before, over the rest, and the weight share of the former.

    Weights are renormalised within each part; a part without a graded criterion is None.
    """
    old = [name for name in grades if name in revealed]
    new = [name for name in grades if name not in revealed]
    total = sum(weights[name] for name in grades)
    share = sum(weights[name] for name in old) / total
    return _average_grades(grades, weights, old), _average_grades(grades, weights, new), share


def _average_grades(
    grades: Mapping[str, int | None],
    weights: Mapping[str, float],
    criteria: Sequence[str],
) -> float | None:
    """Weighted mean of the grades of some criteria, None if none is graded."""
    part = {name: grades[name] for name in criteria}
    graded = {name: grade for name, grade in part.items() if grade is not None}
    total = sum(weights[name] for name in graded)
    if not total:
        return None
    return sum(weights[name] * grade for name, grade in graded.items()) / total


SHARED = (
    Metric("prefalign-base"),
    Metric("prefalign-known"),
    Metric("accuracy"),
    Metric("accuracy-base"),
    Metric("accuracy-known"),
)
COLD: tuple[Metric, ...] = (
    Metric("prefalign"),
    Metric("normalign", aggregate=compute_normalign),
    *SHARED,
    Metric("questions"),
    Metric("no-question", higher_is_better=False),
)

# NormAlign has another name here: with a history it measures another thing than in the paper.
WARM: tuple[Metric, ...] = (
    Metric("prefalign"),
    Metric("normalign-warm", aggregate=compute_normalign),
    *SHARED,
    Metric("prefalign-seen"),
    Metric("prefalign-unseen"),
    Metric("seen-share"),
    Metric("agreement"),
)
ASKING: tuple[Metric, ...] = (
    Metric("prefalign-ask"),
    Metric("normalign-ask", aggregate=compute_normalign),
    Metric("questions"),
    Metric("no-question", higher_is_better=False),
)
