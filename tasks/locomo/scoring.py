"""LoCoMo's official scorer, and the metrics by category of question.

Answers are compared as multisets of stemmed words.  A temporal or single-hop answer is compared
whole, an open-domain one with the gold before the first semicolon, a multi-hop one part by part.
An adversarial question is answered by saying that the conversation does not mention it (arXiv
2402.17753).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from personabench.metrics.metric import Metric, Value

MULTI_HOP, TEMPORAL, OPEN_DOMAIN, SINGLE_HOP, ADVERSARIAL = range(1, 6)
CATEGORIES = {
    MULTI_HOP: "multi-hop",
    TEMPORAL: "temporal",
    OPEN_DOMAIN: "open-domain",
    SINGLE_HOP: "single-hop",
    ADVERSARIAL: "adversarial",
}
NOT_MENTIONED = "Not mentioned in the conversation"
_ABSTENTIONS = ("no information available", "not mentioned")
_STOP_WORDS = {"a", "an", "the", "and"}
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LETTER = re.compile(r"\W*([ab])\W*", re.IGNORECASE)


def count_words(text: str) -> Counter[str]:
    """Count the stemmed words of a text without punctuation, articles and "and"."""
    words = text.lower().translate(_PUNCTUATION).split()
    return Counter(_stem(word) for word in words if word not in _STOP_WORDS)


@cache
def _stem(word: str) -> str:
    stemmed: str = _stemmer().stem(word)
    return stemmed


@cache
def _stemmer() -> Any:
    # Imported on use: only a run of this task needs it.
    from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]

    return PorterStemmer()


def f1(answer: str, gold: str) -> float:
    """F1 of the words of an answer against those of a gold; 0 if they share none."""
    answer_words, gold_words = count_words(answer), count_words(gold)
    shared = (answer_words & gold_words).total()
    if not shared:
        return 0.0
    precision = shared / answer_words.total()
    recall = shared / gold_words.total()
    return 2 * precision * recall / (precision + recall)


def f1_of_parts(answer: str, gold: str) -> float:
    """Mean over the gold's parts, split at commas, of the best F1 of a part of the answer."""
    answers = [part.strip() for part in answer.split(",")]
    golds = [part.strip() for part in gold.split(",")]
    best = [max(f1(part, gold_part) for part in answers) for gold_part in golds]
    return sum(best) / len(best)


def is_abstention(answer: str) -> bool:
    """Whether an answer says that the conversation does not hold it."""
    lowered = answer.lower()
    return any(phrase in lowered for phrase in _ABSTENTIONS)


def score(answer: str, gold: str, category: int) -> float:
    """Score an answer as the official script does, 0 to 1."""
    if category == ADVERSARIAL:
        return float(is_abstention(answer))
    if category == MULTI_HOP:
        return f1_of_parts(answer, gold)
    if category == OPEN_DOMAIN:
        gold = gold.partition(";")[0].strip()
    return f1(answer, gold)


def read_letter(answer: str) -> str:
    """Return `a` or `b` if that is the whole answer, else an empty text."""
    match = _LETTER.fullmatch(answer)
    return match[1].lower() if match else ""


def _belongs(values: npt.NDArray[np.float64], categories: frozenset[int]) -> npt.NDArray[np.bool_]:
    # A look-up takes a tenth of the time of `np.isin`, and intervals need it thousands of times.
    members = np.zeros(ADVERSARIAL + 1, dtype=np.bool_)
    members[list(categories)] = True
    return members[values[:, 0].astype(np.intp)]


def _mean(values: npt.NDArray[np.float64], categories: frozenset[int]) -> float:
    """Mean over the samples of some categories; rows of `values` are (category, score)."""
    scores = values[_belongs(values, categories), 1]
    return float(scores.mean()) if len(scores) else float("nan")


def _count(values: npt.NDArray[np.float64], categories: frozenset[int]) -> int:
    return int(_belongs(values, categories).sum())


ANSWERABLE = frozenset({MULTI_HOP, TEMPORAL, OPEN_DOMAIN, SINGLE_HOP})


def _make_metric(name: str, categories: frozenset[int]) -> Metric:
    return Metric(
        name,
        aggregate=partial(_mean, categories=categories),
        size=partial(_count, categories=categories),
    )


def make_metrics(prefix: str, overall: frozenset[int] = ANSWERABLE) -> tuple[Metric, ...]:
    """Make the metric over `overall` and those of the categories."""
    means = [_make_metric(prefix, overall)]
    for category in sorted(CATEGORIES):
        if category in ANSWERABLE:
            means.append(_make_metric(f"{prefix}-{CATEGORIES[category]}", frozenset({category})))
    return tuple(means)


METRICS = (*make_metrics("f1"), _make_metric("adversarial", frozenset({ADVERSARIAL})))
JUDGED_METRICS = make_metrics("judged")


def make_values(value: float, category: int, metrics: tuple[Metric, ...]) -> Mapping[str, Value]:
    """Return a sample's value for each metric: its category and its score."""
    return {metric.name: [float(category), value] for metric in metrics}
