"""Scores of a prompt on the user's past questions, and the questions that it gets wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from personabench import Context, Record, Sample
from personabench.hashing import fold_text
from personabench.metrics.ratings import parse_number
from personabench.metrics.text import rouge
from personabench.types import normalized

# Common words of an answer in a row that are no quotation of it.
_QUOTED_WORDS = 4


class Pair(NamedTuple):
    """A past question and the user's answer; `number` counts from 1, the oldest first."""

    number: int
    question: Sample
    record: Record


@dataclass(frozen=True)
class ScoredPrompt:
    """A prompt and its scores on all pairs, in their order.

    Attributes:
        scores: from 0 to 1; None where no prediction could be parsed.
        predictions: the model's answers; None as for scores.
        order: the position among all prompts that were scored.
    """

    prompt: str
    scores: tuple[float | None, ...]
    predictions: tuple[str | None, ...]
    order: int

    @property
    def mean(self) -> float:
        """The mean of the scores; -1 without any."""
        return self.mean_of(range(len(self.scores)))

    def mean_of(self, indices: Sequence[int]) -> float:
        """The mean of the scores of some pairs; -1 without any."""
        scores = [score for score in (self.scores[index] for index in indices) if score is not None]
        return sum(scores) / len(scores) if scores else -1.0

    def find_failures(self, threshold: float) -> list[int]:
        """Indices of the pairs whose score is under the threshold, or 0."""
        return [
            index
            for index, score in enumerate(self.scores)
            if score is not None and (score < threshold or score == 0)
        ]

    def is_aligned(self, threshold: float) -> bool:
        """Whether every pair has a score, and none of them is a failure."""
        return None not in self.scores and not self.find_failures(threshold)


def score_prediction(
    prediction: str,
    answer: str,
    span: float,
    ctx: Context,
) -> float:
    """The score of a prediction, 0 to 1, by the task's kind of answer.

    1 or 0 for a label, 1 - |difference| / span for a rating, and ROUGE-L for a text.
    """
    if ctx.task.kind == "text":
        return rouge(prediction, answer, every_script=True)["rouge-L"]
    numbers = parse_number(prediction), parse_number(answer)
    if ctx.task.kind == "ordinal" and None not in numbers:
        first, second = numbers
        assert first is not None
        assert second is not None
        return max(0.0, 1 - abs(first - second) / span)
    return float(fold_text(prediction) == fold_text(answer))


def measure_span(pairs: Sequence[Pair], ctx: Context) -> float:
    """The range of the task's ratings, else that of the user's; 1 without numbers."""
    texts = ctx.task.labels or [pair.record.response for pair in pairs]
    numbers = [number for number in map(parse_number, texts) if number is not None]
    span = max(numbers) - min(numbers) if numbers else 0.0
    return span or 1.0


def choose_threshold(first: ScoredPrompt, ctx: Context) -> float:
    """The score under which a pair is a failure: 1, for texts the median of the first prompt."""
    scores = [score for score in first.scores if score is not None]
    if ctx.task.kind != "text" or not scores:
        return 1.0
    return median(scores)


def quotes_pair(prompt: str, pairs: Sequence[Pair]) -> bool:
    """Whether a prompt contains the whole of an answer of at least four words."""
    words = f" {normalized(prompt)} "
    for pair in pairs:
        answer = normalized(pair.record.response)
        if len(answer.split()) >= _QUOTED_WORDS and f" {answer} " in words:
            return True
    return False
