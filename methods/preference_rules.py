"""Rules that choose among responses from a user's comparisons, without a model.

They show how much of a preference is length or single words.  A method for preference pairs that
does not beat them has not shown that it understands the user.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

from personabench import Context, Method, Record, Sample, rejected_responses

_WORD = re.compile(r"\w+")


class LengthDirection(Method):
    """The longest response if the user mostly preferred longer ones, the shortest if shorter ones.

    A record counts for longer if the preferred response has more characters than the mean of the
    others.  Without a direction the first response is chosen, which is right as often as chance if
    both orders are put.
    """

    name = "length_direction"
    rule = True
    needs = ("history", "comparisons", "options")
    designed_for = ("*",)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        direction = sum(_length_direction(record) for record in sample.history)
        if not direction:
            ctx.flag("no_direction")
            return sample.choices[0]

        lengths = [len(option) for option in ctx.task.options(sample)]
        length = max(lengths) if direction > 0 else min(lengths)
        if lengths.count(length) > 1:
            ctx.flag("length_ties")
        return sample.choices[lengths.index(length)]


def _length_direction(record: Record) -> int:
    """1 if the preferred response is longer than the others, -1 if shorter, else 0."""
    rejected = rejected_responses(record)
    if not rejected:
        return 0
    mean_length = sum(map(len, rejected)) / len(rejected)
    length = len(record.response)
    return (length > mean_length) - (length < mean_length)


class NaiveBayes(Method):
    """The response whose words are the likeliest in preferred rather than in other responses.

    Counts of words are smoothed by one; the score of a response is the mean log odds of its words.
    """

    name = "naive_bayes"
    rule = True
    needs = ("history", "comparisons", "options")
    designed_for = ("*",)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        preferred = _count_words(record.response for record in sample.history)
        rejected = _count_words(
            text for record in sample.history for text in rejected_responses(record)
        )
        vocabulary_size = len(preferred | rejected)
        if not vocabulary_size:
            ctx.flag("empty_profile")
            return sample.choices[0]

        offset = math.log(rejected.total() + vocabulary_size)
        offset -= math.log(preferred.total() + vocabulary_size)

        def mean_log_odds(text: str) -> float:
            words = _WORD.findall(text.casefold())
            log_odds = [math.log((preferred[word] + 1) / (rejected[word] + 1)) for word in words]
            return offset + math.fsum(log_odds) / len(words) if words else 0.0

        scores = [mean_log_odds(option) for option in ctx.task.options(sample)]
        best = max(scores)
        if scores.count(best) > 1:
            ctx.flag("score_ties")
        return sample.choices[scores.index(best)]


def _count_words(texts: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_WORD.findall(text.casefold()))
    return counts


class PopulationMajority(Method):
    """The response that most other users prefer (sees their preferences for the same question)."""

    name = "population_majority"
    rule = True
    privileged = True
    needs = ("majority",)
    designed_for = ("*",)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        if "population_majority" in sample.hidden:
            return sample.hidden["population_majority"]
        ctx.flag("no_majority")
        return sample.choices[0]
