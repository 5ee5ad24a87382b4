"""Corpus BLEU as sacrebleu computes it, from per-sample statistics.

BLEU is not a mean over samples: n-gram counts and lengths are summed over the corpus first.  Each sample contributes
its own counts, so that any subset or resample of samples has its exact corpus BLEU without the texts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ORDER = 4


def statistics(prediction: str, reference: str) -> list[float]:
    """What a pair contributes, 10 numbers: both lengths in tokens, matching n-grams and n-grams for n = 1 to 4.

    Tokens are sacrebleu's `13a`, case kept; one reference.
    """
    scorer = _scorer()
    (found,) = scorer._extract_corpus_statistics([prediction], [[reference]])
    return [float(number) for number in found]


def corpus_bleu(rows: npt.NDArray[np.float64]) -> float:
    """BLEU of a corpus, 0 to 100, from the statistics of its samples, shape (n, 10); exponential smoothing."""
    sums = [int(total) for total in rows.sum(axis=0)]
    scorer = _scorer()
    score = scorer.compute_bleu(
        correct=sums[2 : 2 + ORDER],
        total=sums[2 + ORDER :],
        sys_len=sums[0],
        ref_len=sums[1],
        smooth_method="exp",
        effective_order=False,
        max_ngram_order=ORDER,
    )
    return float(score.score)


def signature() -> str:
    """sacrebleu's own description of the settings, with its version."""
    scorer = _scorer()
    scorer.corpus_score(["a"], [["a"]])
    return str(scorer.get_signature())


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(
        tokenize="13a",
        smooth_method="exp",
        lowercase=False,
        effective_order=False,
        max_ngram_order=ORDER,
    )
