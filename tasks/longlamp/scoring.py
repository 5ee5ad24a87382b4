"""Scores of LongLaMP: ROUGE, METEOR and BLEU of a long text against one reference.

The reference implementation leaves out every item whose generation is empty or missing, so that
failures raise its mean.  Here all items count, an empty one with 0; the reference's reading stands
beside it with the number of items that it leaves out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from personabench.metrics import meteor
from personabench.metrics.bleu import corpus_bleu, count_ngrams, signature
from personabench.metrics.metric import Metric, Value
from personabench.metrics.rouge import IMPORTS, create_scorer
from personabench.metrics.scripts import LATIN, SPACED

COMPATIBLE = "reference-compatible"
_GRAM = 4


def _mean_of_answered(values: npt.NDArray[np.float64]) -> float:
    """The mean over answered items, 0 without any; rows are (value, whether it is answered)."""
    answered = values[values[:, 1] == 1, 0]
    return float(answered.mean()) if len(answered) else 0.0


def _count_answered(values: npt.NDArray[np.float64]) -> int:
    return int((values[:, 1] == 1).sum())


def _sum(values: npt.NDArray[np.float64]) -> float:
    return float(values.sum())


def _compatible(name: str) -> Metric:
    return Metric(f"{name}-{COMPATIBLE}", aggregate=_mean_of_answered, size=_count_answered)


METRICS: tuple[Metric, ...] = (
    Metric("rouge-1", scope=LATIN, imports=IMPORTS),
    Metric("rouge-L", scope=LATIN, imports=IMPORTS),
    Metric("meteor", scope=SPACED),
    Metric("rouge-2", scope=LATIN, imports=IMPORTS),
    Metric("rouge-Lsum", scope=LATIN, imports=IMPORTS),
    Metric("bleu", aggregate=corpus_bleu, signature=signature, scope=SPACED),
    *(_compatible(name) for name in ("rouge-1", "rouge-L", "meteor")),
    Metric("n-skipped", higher_is_better=False, aggregate=_sum),
    Metric("repeated-4-grams", higher_is_better=False),
    Metric("words"),
)
# ROUGE's names in the package.
_NAMES = {"rouge-1": "rouge1", "rouge-L": "rougeL", "rouge-2": "rouge2", "rouge-Lsum": "rougeLsum"}


@lru_cache(maxsize=1)
def _create_scorer() -> Any:
    return create_scorer(list(_NAMES.values()))


def measure_text(text: str, gold: str, has_meteor: bool) -> dict[str, Value]:
    """Measure a stripped text against its gold; `bleu` is on 0 to 100, the others on 0 to 1."""
    scores = _create_scorer().score(gold, text)
    single = {name: float(scores[stored].fmeasure) for name, stored in _NAMES.items()}
    if has_meteor:
        single["meteor"] = meteor.meteor(text, gold)
    answered = float(bool(text))
    values: dict[str, Value] = {
        **single,
        "bleu": count_ngrams(text, gold),
        "n-skipped": 1.0 - answered,
        "repeated-4-grams": measure_repetition(text),
        "words": float(len(text.split())),
    }
    for name in ("rouge-1", "rouge-L", "meteor"):
        if name in single:
            values[f"{name}-{COMPATIBLE}"] = [single[name], answered]
    return values


def measure_repetition(text: str) -> float:
    """The share of the sequences of four words that have occurred before in the text."""
    words = text.split()
    grams = [tuple(words[start : start + _GRAM]) for start in range(len(words) - _GRAM + 1)]
    if not grams:
        return 0.0
    counts: Mapping[tuple[str, ...], int] = Counter(grams)
    return 1 - len(counts) / len(grams)
