"""Rules without a model: the score that needs no understanding.

Labels are counted or copied from histories; a user without any gets the task's first choice, so
that every sample is answered.  Which rule runs where follows from the capabilities of a task.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from personabench import Context, Method, Population, Record, Sample
from personabench.api.method import retrieval_needs

# Shorter words are mostly function words, which every text shares with every history.
_WORD = re.compile(r"[^\W_]{3,}")


class Majority(Method):
    """The label most frequent in the histories of all users."""

    name = "majority"
    rule = True
    needs = ("population", "labels", "precedents")
    designed_for = ("*",)

    label = ""

    async def prepare(self, population: Population, ctx: Context) -> None:
        self.label = _most_frequent_label(record for _, record in population.records())

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return _valid_label(self.label, sample, ctx)


class UserMajority(Method):
    """The label most frequent in the user's own history, the newest of equally frequent ones."""

    name = "user_majority"
    rule = True
    needs = ("history", "labels", "precedents")
    designed_for = ("*",)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        # Newest first, because the first label of equally frequent ones is taken.
        label = _most_frequent_label(reversed(sample.history))
        return _valid_label(label, sample, ctx)


class UserMean(Method):
    """The choice nearest to the mean of the user's own scores, the lower of equals."""

    name = "user_mean"
    rule = True
    needs = ("history", "scores", "precedents")
    designed_for = ("*",)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        scores = _numbers(record.response for record in sample.history)
        if not scores:
            return _valid_label("", sample, ctx)

        mean = sum(score for score, _ in scores) / len(scores)
        choices = _numbers(sample.choices)
        if not choices:
            return f"{mean:g}"
        # The value breaks a tie of two distances, so the lower choice wins whatever their order.
        _, _, nearest = min(
            (
                abs(value - mean),
                value,
                text,
            )
            for value, text in choices
        )
        return nearest


class CopyNearest(Method):
    """The response of the record that best fits the question.

    Where labels are asked for and the history holds none, it is the choice with the largest share
    of words from the history.
    """

    name = "copy_nearest"
    rule = True
    needs = ("history",)
    designed_for = ("*",)

    @dataclass(frozen=True)
    class Params:
        """retriever, embedder: as in rag."""

        retriever: str = "bm25"
        embedder: str = "wordllama"

    def requirements(self) -> set[str]:
        return super().requirements() | retrieval_needs(self.params.retriever)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        p = self.params
        records = await ctx.retrieve(
            sample,
            1,
            p.retriever,
            embedder=p.embedder,
        )
        if not records:
            return _valid_label("", sample, ctx)

        nearest = records[0]
        if ctx.task.kind != "text" and nearest.stimulus is None:
            return _most_familiar_choice(sample, ctx)
        return nearest.response


class MostFamiliar(Method):
    """The option with the largest share of words that occur in the user's history."""

    name = "most_familiar"
    rule = True
    needs = ("history", "options")
    designed_for = ("*",)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        if not sample.history:
            ctx.flag("empty_profile")
        return _most_familiar_choice(sample, ctx)


class CopyInput(Method):
    """The question's own text, word for word: the score of a text task that repetition reaches."""

    name = "copy_input"
    rule = True
    needs = ("texts",)
    designed_for = ("*",)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return sample.stimulus or ctx.task.query_text(sample)


class Constant(Method):
    """The same answer to every question."""

    name = "constant"
    rule = True
    designed_for = ("*",)

    @dataclass(frozen=True)
    class Params:
        """value: the answer; empty for the first choice, or, without choices, the task's word for a
        response.
        """

        value: str = ""

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        value: str = self.params.value
        if value:
            return value
        return sample.choices[0] if sample.choices else ctx.task.words.response


class AlwaysRefuse(Method):
    """The same refusal to every request: the score of a model that never helps."""

    name = "always_refuse"
    rule = True
    needs = ("safety", "texts")
    designed_for = ("*",)

    @dataclass(frozen=True)
    class Params:
        """value: the refusal."""

        value: str = "I'm sorry, but I can't help with that."

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return str(self.params.value)


def _most_frequent_label(records: Iterable[Record]) -> str:
    """The most frequent response, the first of equally frequent ones; empty without records."""
    counts = Counter(record.response.strip() for record in records)
    return max(
        counts,
        key=lambda label: counts[label],
        default="",
    )


def _valid_label(label: str, sample: Sample, ctx: Context) -> str:
    """The label; the first choice, flagged, if it is empty or not a choice."""
    if label and (not sample.choices or label in sample.choices):
        return label
    ctx.flag("no_label")
    return sample.choices[0] if sample.choices else ""


def _most_familiar_choice(sample: Sample, ctx: Context) -> str:
    """The choice with the largest share of words that occur in the history; the first of equals."""
    history_words: set[str] = set()
    for record in sample.history:
        history_words |= _words(record.response)

    def familiar_share(text: str) -> float:
        words = _words(text)
        return len(words & history_words) / len(words) if words else 0.0

    shares = [familiar_share(text) for text in ctx.task.options(sample)]
    # Without readable options every choice is as good as the first.
    if not shares:
        return _valid_label("", sample, ctx)
    return sample.choices[shares.index(max(shares))]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _numbers(texts: Iterable[str]) -> list[tuple[float, str]]:
    """The texts that are numbers, each with its value."""
    numbers = []
    for text in texts:
        try:
            numbers.append((float(text), text))
        except ValueError:
            continue
    return numbers
