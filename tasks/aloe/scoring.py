"""The alignment curve AL(k): the mean score of turn k, its overall mean, slope and fit.

A sample's row holds the scores of its turns, 0 for those without one, and then for each turn
whether it has a score, so that every resample of samples has its own curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from personabench.metrics.metric import Metric, Value

MAX_TURNS = 10
Floats = npt.NDArray[np.float64]


def compute_curve(rows: Floats) -> tuple[Floats, Floats]:
    """Return the turns that have scores, from 1, and the mean score of each."""
    turns = rows.shape[1] // 2
    counts = rows[:, turns:].sum(axis=0)
    scored = counts > 0
    means = rows[:, :turns].sum(axis=0)[scored] / counts[scored]
    return np.arange(1.0, turns + 1)[scored], means


def compute_alignment(rows: Floats) -> float:
    """The mean of AL(k) over the turns."""
    means = compute_curve(rows)[1]
    return float(means.mean()) if len(means) else float("nan")


def fit_line(rows: Floats) -> tuple[float, float]:
    """Slope and R² of the least-squares line through AL(k).

    A curve of one turn has neither; that of a constant curve is flat, and explains nothing.
    """
    turns, means = compute_curve(rows)
    if len(turns) < 2:
        return float("nan"), float("nan")
    centred = turns - turns.mean()
    slope = float((centred * (means - means.mean())).sum() / (centred**2).sum())
    total = float(((means - means.mean()) ** 2).sum())
    if total == 0:
        return 0.0, 0.0
    residual = float((((means - means.mean()) - slope * centred) ** 2).sum())
    return slope, 1 - residual / total


def _slope(rows: Floats) -> float:
    return fit_line(rows)[0]


def _r_squared(rows: Floats) -> float:
    return fit_line(rows)[1]


def _mean_of_turn(rows: Floats, turn: int) -> float:
    turns = rows.shape[1] // 2
    if turn > turns or not rows[:, turns + turn - 1].any():
        return float("nan")
    return float(rows[:, turn - 1].sum() / rows[:, turns + turn - 1].sum())


def _count_turn(rows: Floats, turn: int) -> int:
    turns = rows.shape[1] // 2
    return int(rows[:, turns + turn - 1].sum()) if turn <= turns else 0


METRICS = (
    Metric("alignment", aggregate=compute_alignment),
    Metric("improvement-rate", aggregate=_slope),
    Metric("improvement-r2", aggregate=_r_squared),
    *(
        Metric(
            f"al-{turn}",
            aggregate=partial(_mean_of_turn, turn=turn),
            size=partial(_count_turn, turn=turn),
        )
        for turn in range(1, MAX_TURNS + 1)
    ),
)


def make_values(scores: Sequence[int | None], turns: int) -> Mapping[str, Value]:
    """The values of a sample from the scores of its turns; empty if none has a score."""
    padded = [*scores, *[None] * (turns - len(scores))]
    if all(score is None for score in padded):
        return {}
    row = [float(score or 0) for score in padded]
    row += [float(score is not None) for score in padded]
    names = ["alignment", "improvement-rate", "improvement-r2"]
    names += [f"al-{turn}" for turn in range(1, turns + 1)]
    return dict.fromkeys(names, row)
