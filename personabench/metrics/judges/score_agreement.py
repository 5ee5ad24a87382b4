"""Agreement of a judge's scores with a person's own: how far to trust the judge.

Rank correlation counts, because scores compare methods: a judge that is always a point too kind
orders them just as well.  Intervals are percentile bootstraps over the labelled answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from personabench.types import Judgement

RECOMMENDED = 20
"""Labels below which a report asks for more."""
TOTAL = "total"
_DRAWS = 2000
_FEWEST = 5
# Lower ends of the interval of the rank correlation for "much as you do" and "in part".
_GOOD = 0.6


class ScoreAgreement(msgspec.Struct, frozen=True):
    """Agreement of `n` scores with labels.

    Attributes:
        criterion: the name of the criterion, or "total".
        exact: the share of answers with equal scores.
        bias: the mean of judge minus label; difference: the mean absolute difference.
        correlation: Spearman's, None if either side gives one score only; with a 95 % interval.
    """

    criterion: str
    n: int
    exact: float
    bias: float
    difference: float
    correlation: float | None
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """Say in a clause how far the judge can be trusted."""
        if self.n < _FEWEST:
            return f"{self.n} labels tell nothing yet"
        if self.correlation is None:
            return "no order to compare: one side gives all answers the same score"
        if self.low is None or self.low <= 0:
            return "not shown to order answers better than chance"
        if self.low >= _GOOD:
            return "orders answers much as you do"
        return "orders answers in part as you do; do not trust small differences"


def scores_of(judgement: Judgement) -> dict[str, float]:
    """Collect the numbers of a judgement: the total, and the score of each criterion."""
    values: Mapping[str, Any] = judgement.values or {}
    scores = {name: float(score) for name, score in (values.get("scores") or {}).items()}
    plain = [value for value in values.values() if isinstance(value, int | float)]
    if TOTAL in values:
        scores[TOTAL] = float(values[TOTAL])
    elif len(plain) == 1:
        scores[TOTAL] = float(plain[0])
    return scores


def compare_scores(
    judgements: Sequence[Judgement],
    labels: Mapping[str, Mapping[str, float]],
) -> list[ScoreAgreement]:
    """Compare judged scores with labels, by sample id and criterion."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for judgement in judgements:
        scores = scores_of(judgement)
        for criterion, label in labels.get(judgement.sample_id, {}).items():
            if criterion in scores:
                pairs.setdefault(criterion, []).append((scores[criterion], label))
    return [_compare(criterion, values) for criterion, values in pairs.items()]


def choose_for_labels(judgements: Sequence[Judgement], count: int) -> list[str]:
    """Choose judged answers to label, spread over the whole range of the judge's scores."""
    totals = {item.sample_id: scores_of(item).get(TOTAL, 0.0) for item in judgements if item.values}
    # By id among equals, so that the choice depends on nothing but the judgements.
    ranked = sorted(totals, key=lambda sample: (totals[sample], sample))
    if len(ranked) <= count:
        return ranked
    positions = np.linspace(0, len(ranked) - 1, count).round().astype(int)
    return [ranked[position] for position in positions]


def _compare(criterion: str, pairs: Sequence[tuple[float, float]]) -> ScoreAgreement:
    judge, label = np.array(pairs, dtype=np.float64).T
    draws = [value for value in _resampled(judge, label) if value is not None]
    low, high = np.quantile(draws, [0.025, 0.975]) if draws else (None, None)
    return ScoreAgreement(
        criterion=criterion,
        n=len(pairs),
        exact=float(np.mean(judge == label)),
        bias=float(np.mean(judge - label)),
        difference=float(np.mean(np.abs(judge - label))),
        correlation=_rank_correlation(judge, label),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
    )


def _resampled(judge: Any, label: Any) -> Iterator[float | None]:
    if _rank_correlation(judge, label) is None or len(judge) < _FEWEST:
        return
    random = np.random.default_rng(0)
    for _ in range(_DRAWS):
        chosen = random.integers(0, len(judge), len(judge))
        yield _rank_correlation(judge[chosen], label[chosen])


def _rank_correlation(a: Any, b: Any) -> float | None:
    """Spearman's correlation, with mean ranks for ties; None if either side is constant."""
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    if np.ptp(ranks_a) == 0 or np.ptp(ranks_b) == 0:
        return None
    return float(np.corrcoef(ranks_a, ranks_b)[0, 1])


def _ranks(values: Any) -> Any:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]
