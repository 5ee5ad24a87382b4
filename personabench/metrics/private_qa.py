"""Metrics of PersonaBench, Salesforce's benchmark of questions over private documents.

Source: arXiv 2502.20616.  It shares this project's name, so a task made of it would be called
`personabench-qa`.  To get the words of a text, every character but letters a-z, digits and blanks
is deleted, in lower case; letters of other scripts vanish, as in the reference implementation, and
answers that this empties are counted.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class RetrievalScore(NamedTuple):
    """Recall and NDCG of a ranking, each the best over all choices of one segment per value."""

    recall: float
    ndcg: float


class OverlapScore(NamedTuple):
    """Precision, recall and F1 of word sets.

    `emptied` is true if the prediction was not empty, but had no words after normalisation.
    """

    precision: float
    recall: float
    f1: float
    emptied: bool


def score_retrieval(
    values: Sequence[Sequence[str]],
    ranking: Sequence[str],
    k: int = 5,
) -> RetrievalScore:
    """Score a ranking of segments against an answer whose values have alternative gold segments.

    A segment that is retrieved again counts once, so NDCG cannot exceed 1.

    Raises:
        ValueError: there are no values, or a value has no segments.
    """
    if not values or not all(values):
        raise ValueError("every answer needs values, and every value a gold segment")

    retrieved = list(dict.fromkeys(ranking))[:k]
    recalls = []
    gains = []
    # One segment may hold several values, so combinations can be equal as sets of segments.
    choices = {frozenset(combination) for combination in itertools.product(*values)}
    for segments in choices:
        ranks = []
        for rank, segment in enumerate(retrieved, 1):
            if segment in segments:
                ranks.append(rank)
        ideal_count = min(len(segments), k)
        ideal_ranks = range(1, ideal_count + 1)
        recalls.append(len(ranks) / len(segments))
        gains.append(_discounted_gain(ranks) / _discounted_gain(ideal_ranks))
    return RetrievalScore(max(recalls), max(gains))


def score_overlap(prediction: str, gold: object) -> OverlapScore:
    """Compare the words of a prediction with those of a gold answer.

    The gold answer is a text, a number, an object, or a list of these.
    """
    predicted_words = split_words(prediction)
    gold_words = split_words(gold)
    shared = len(predicted_words & gold_words)

    emptied = bool(prediction.strip()) and not predicted_words
    if not shared:
        return OverlapScore(0.0, 0.0, 0.0, emptied)

    precision = shared / len(predicted_words)
    recall = shared / len(gold_words)
    f1 = 2 * precision * recall / (precision + recall)
    return OverlapScore(precision, recall, f1, emptied)


def outdated_recall(prediction: str, old: object) -> float | None:
    """The share of an outdated value's words in a prediction, lower is better.

    None if the value has no words.
    """
    stale_words = split_words(old)
    if not stale_words:
        return None
    repeated_words = stale_words & split_words(prediction)
    return len(repeated_words) / len(stale_words)


def split_words(value: object) -> set[str]:
    """The words of a text or number, of members of a list, or of an object's keys and values."""
    if isinstance(value, Mapping):
        return split_words(value.keys()) | split_words(value.values())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return set[str]().union(*map(split_words, value))
    text = re.sub(r"[^a-zA-Z0-9\s]", "", str(value))
    return set(text.lower().split())


def robustness(f1_lowest_noise: float, f1_highest_noise: float) -> float:
    """1 minus the loss of F1 from the lowest to the highest noise."""
    return 1 - (f1_lowest_noise - f1_highest_noise)


def _discounted_gain(ranks: Iterable[int]) -> float:
    return math.fsum(1 / math.log2(rank + 1) for rank in ranks)
