"""Corpus BLEU as computed by sacrebleu, from per-sample statistics.

BLEU is not a mean over samples: n-gram counts and lengths are summed over the corpus first.  Each
sample contributes its own counts, so that any subset or resample of samples has its exact corpus
BLEU without the texts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

IMPORTS = ("sacrebleu.metrics.bleu",)
"""Modules that are imported on use."""
ORDER = 4


def count_ngrams(
    prediction: str,
    reference: str,
) -> list[float]:
    """Count one pair for `corpus_bleu`, 10 numbers: lengths, matching n-grams, n-grams (n = 1-4).

    Tokens are sacrebleu's `13a`, case kept; one reference.
    """
    # sacrebleu has no public function for the counts of one sentence.
    scorer = _create_scorer()
    # sacrebleu shows the counts of a pair in no other way.
    (counts,) = scorer._extract_corpus_statistics([prediction], [[reference]])  # noqa: SLF001
    return [float(count) for count in counts]


def corpus_bleu(rows: npt.NDArray[np.float64]) -> float:
    """BLEU of a corpus, 0 to 100, from the statistics of its samples, shape (n, 10).

    Smoothing is exponential.
    """
    sums = [int(total) for total in rows.sum(axis=0)]
    score = _create_scorer().compute_bleu(
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
    scorer = _create_scorer()
    # The signature is complete only after a corpus was scored.
    scorer.corpus_score(["a"], [["a"]])
    return str(scorer.get_signature())


@lru_cache(maxsize=1)
def _create_scorer() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(
        tokenize="13a",
        smooth_method="exp",
        lowercase=False,
        effective_order=False,
        max_ngram_order=ORDER,
    )
