"""LongMemEval's retrieval scores over sessions (arXiv 2410.10813).

A ranking of turns becomes one of sessions by first occurrence.  The gain of the second place is not
discounted, as in the released code.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from personabench.metrics.metric import Metric

CUTOFFS = (5, 10)
METRICS = tuple(
    Metric(f"{name}@{k}") for k in CUTOFFS for name in ("recall-any", "recall-all", "ndcg")
)


def score_ranking(ranking: Sequence[str], evidence: Collection[str]) -> Mapping[str, float]:
    """Return the values of `METRICS` for a ranking of session ids, best first."""
    values = {}
    for k in CUTOFFS:
        top = list(dict.fromkeys(ranking))[:k]
        hits = [float(session in evidence) for session in top]
        values[f"recall-any@{k}"] = float(any(hits))
        values[f"recall-all@{k}"] = float(sum(hits) == len(evidence))
        ideal = [1.0] * min(len(evidence), k)
        values[f"ndcg@{k}"] = _gain(hits) / _gain(ideal)
    return values


def _gain(hits: Sequence[float]) -> float:
    later = (hit / math.log2(rank) for rank, hit in enumerate(hits[1:], start=2))
    return math.fsum([*hits[:1], *later])
