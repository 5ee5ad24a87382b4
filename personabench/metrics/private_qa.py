"""Metrics of PersonaBench, Salesforce's benchmark of questions over private documents (arXiv 2502.20616).

It shares this project's name, so a task made of it would be `personabench-qa`.  Words are what is left when every
character but letters a-z, digits and blanks is deleted, in lower case; letters of other scripts vanish, as in the
reference, and answers that this empties are counted.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Retrieved(NamedTuple):
    """Recall and NDCG of a ranking, each the best over all choices of one gold segment per value."""

    recall: float
    ndcg: float


class Overlap(NamedTuple):
    """Precision, recall and F1 of word sets; `emptied` says that a text was not empty but its words were."""

    precision: float
    recall: float
    f1: float
    emptied: bool


def retrieval(values: Sequence[Sequence[str]], ranking: Sequence[str], k: int = 5) -> Retrieved:
    """How well a ranking of segments covers an answer whose values each have alternative gold segments.

    A segment that is retrieved again counts once, so NDCG cannot exceed 1.

    Raises:
        ValueError: no value, or one without segments.
    """
    if not values or not all(values):
        raise ValueError("every answer needs values, and every value a gold segment")
    top = list(dict.fromkeys(ranking))[:k]
    recalls, gains = [], []
    for choice in {frozenset(each) for each in itertools.product(*values)}:
        hits = [rank for rank, segment in enumerate(top, 1) if segment in choice]
        recalls.append(len(hits) / len(choice))
        gains.append(_dcg(hits) / _dcg(range(1, min(len(choice), k) + 1)))
    return Retrieved(max(recalls), max(gains))


def overlap(prediction: str, gold: object) -> Overlap:
    """The words of a prediction against those of a gold answer: a text, a number, an object, or a list of these."""
    said, wanted = words(prediction), words(gold)
    both = len(said & wanted)
    precision = both / len(said) if said else 0.0
    recall = both / len(wanted) if wanted else 0.0
    f1 = 2 * precision * recall / (precision + recall) if both else 0.0
    return Overlap(precision, recall, f1, bool(prediction.strip()) and not said)


def outdated(prediction: str, old: object) -> float | None:
    """The share of an outdated value's words in a prediction, lower is better; None where the value has no words."""
    stale = words(old)
    return len(stale & words(prediction)) / len(stale) if stale else None


def words(value: object) -> set[str]:
    """The word set of a text or a number, of all members of a list, or of an object's keys and values."""
    if isinstance(value, Mapping):
        return words(value.keys()) | words(value.values())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return {word for each in value for word in words(each)}
    return set(re.sub(r"[^a-zA-Z0-9\s]", "", str(value)).lower().split())


def robustness(f1_lowest_noise: float, f1_highest_noise: float) -> float:
    """1 minus what F1 loses from the lowest to the highest noise."""
    return 1 - (f1_lowest_noise - f1_highest_noise)


def _dcg(ranks: Iterable[int]) -> float:
    return math.fsum(1 / math.log2(rank + 1) for rank in ranks)
