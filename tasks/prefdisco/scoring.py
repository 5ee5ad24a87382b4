"""PrefDisco's numbers: per-sample values, NormAlign over them, and its interval over problems.

NormAlign = 100 (final - base) / (known - base) of the mean PrefAligns, never of single records.  Rows are
(base, known, final) of records judged in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from personabench.metrics.metric import Metric

LEAST = 0.1
"""With known closer to base than this, NormAlign has no meaning and is not a number."""


def normalign(rows: npt.NDArray[np.float64]) -> float:
    """NormAlign of rows (base, known, final), shape (n, 3); not a number where known does not exceed base by .1."""
    base, known, final = rows.mean(axis=0)
    if known - base < LEAST - 1e-9:
        return float("nan")
    return float(100 * (final - base) / (known - base))


def by_problem(
    rows: npt.NDArray[np.float64], problems: Sequence[str], draws: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % percentile interval of NormAlign over resampled problems; None with fewer than two problems.

    Draws in which it is not a number are left out; None where those are more than a tenth.
    """
    names = sorted(set(problems))
    if len(names) < 2:
        return None
    places = {name: np.flatnonzero(np.asarray(problems) == name) for name in names}
    rng = np.random.default_rng(seed)
    found = []
    for picked in rng.integers(len(names), size=(draws, len(names))):
        found.append(normalign(rows[np.concatenate([places[names[each]] for each in picked])]))
    known = np.array(found)[~np.isnan(found)]
    if len(known) < 0.9 * draws:
        return None
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)


def parts(
    grades: Mapping[str, int | None], share: Mapping[str, float], seen: set[str]
) -> tuple[float | None, float | None, float]:
    """PrefAlign over criteria whose name was revealed before, over the others, and the weight share of the former.

    Weights are renormalised within each part; a part without a graded criterion is None.
    """

    def mean(names: Sequence[str]) -> float | None:
        told = [(share[name], grade) for name in names if (grade := grades[name]) is not None]
        total = sum(weight for weight, _ in told)
        return sum(weight * grade for weight, grade in told) / total if total else None

    old = [name for name in grades if name in seen]
    new = [name for name in grades if name not in seen]
    return (
        mean(old),
        mean(new),
        sum(share[name] for name in old) / sum(share[name] for name in grades),
    )


ANSWERED = (
    Metric("prefalign-base"),
    Metric("prefalign-known"),
    Metric("accuracy"),
    Metric("accuracy-base"),
    Metric("accuracy-known"),
)
COLD: tuple[Metric, ...] = (
    Metric("prefalign"),
    Metric("normalign", aggregate=normalign),
    *ANSWERED,
    Metric("questions"),
    Metric("no-question", higher_is_better=False),
)
WARM: tuple[Metric, ...] = (
    Metric("prefalign"),
    Metric("normalign-warm", aggregate=normalign),
    *ANSWERED,
    Metric("prefalign-seen"),
    Metric("prefalign-unseen"),
    Metric("seen-share"),
    Metric("agreement"),
)
ASKING: tuple[Metric, ...] = (
    Metric("prefalign-ask"),
    Metric("normalign-ask", aggregate=normalign),
    Metric("questions"),
    Metric("no-question", higher_is_better=False),
)
