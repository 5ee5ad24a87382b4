"""Metrics beside a benchmark's own that papers often report: ROUGE-2, BLEU, METEOR, accuracy.

They depend on the kind of responses only. None of them is official for a task that does not list
it among its own metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from personabench.metrics import bleu, meteor
from personabench.metrics.bleu import corpus_bleu, count_ngrams, signature
from personabench.metrics.metric import Metric, Value
from personabench.metrics.ratings import parse_number
from personabench.metrics.rouge import IMPORTS, create_scorer
from personabench.metrics.scripts import LATIN, SPACED

ROUGE_2 = Metric("rouge-2", scope=LATIN, imports=IMPORTS)
BLEU = Metric(
    "bleu", aggregate=corpus_bleu, signature=signature, scope=SPACED, imports=bleu.IMPORTS
)
METEOR = Metric("meteor", scope=SPACED, imports=meteor.IMPORTS)
ACCURACY = Metric("accuracy")


def choose_extras(kind: Literal["category", "ordinal", "text"]) -> tuple[Metric, ...]:
    """Return the extra metrics for a kind of responses, METEOR only if WordNet is installed."""
    if kind == "ordinal":
        return (ACCURACY,)
    if kind == "category":
        return ()
    if meteor.describe_missing_data():
        return ROUGE_2, BLEU
    return ROUGE_2, BLEU, METEOR


def measure_extras(
    metrics: tuple[Metric, ...],
    parsed: str | None,
    reference: str,
) -> Mapping[str, Value]:
    """Measure an answer by extra metrics; an unparsed one counts as empty, or as wrong.

    Of several references, callers pass the first.
    """
    values: dict[str, Value] = {}
    text = parsed or ""
    for metric in metrics:
        if metric is ROUGE_2:
            values["rouge-2"] = _create_scorer().score(reference, text)["rouge2"].fmeasure
        elif metric is BLEU:
            values["bleu"] = count_ngrams(text, reference)
        elif metric is METEOR:
            values["meteor"] = meteor.meteor(text, reference)
        else:
            values["accuracy"] = float(_is_equal(parsed, reference))
    return values


def _is_equal(parsed: str | None, reference: str) -> bool:
    """Whether two ratings are the same number, or the same text if one is no number."""
    if parsed is None:
        return False
    numbers = parse_number(parsed), parse_number(reference)
    return parsed == reference if None in numbers else numbers[0] == numbers[1]


@lru_cache(maxsize=1)
def _create_scorer() -> Any:
    return create_scorer(["rouge2"])
