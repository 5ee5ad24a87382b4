"""Predictors that ask no model: what a score is worth before anything was understood.

Labels are counted or copied from histories; a user without any gets the task's first choice, so that every sample is
answered.  Where histories hold no labels (LaMP-1), only what needs none is offered.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from personabench import Context, Method, Population, Record, Sample, UsageError
from personabench.api.method import retrieval_needs

_WORD = re.compile(r"[^\W_]{3,}")


class Majority(Method):
    """The label most frequent in everybody's histories."""

    name = "majority"
    needs = ("population",)
    designed_for = ("*",)
    refuses = {
        "lamp1": "its histories hold papers, not choices to count",
        "lamp4": "free texts have no majority",
        "lamp5": "free texts have no majority",
        "lamp6": "free texts have no majority",
        "lamp7": "free texts have no majority",
        "longlamp*": "free texts have no majority",
        "lampqa*": "free texts have no majority",
        "prelude*": "free texts have no majority",
        "reviews*": "free texts have no majority",
        "personamem*": "its histories hold conversations, not choices to count",
        "prefdisco*": "its histories hold conversations, not choices to count",
    }

    label = ""

    async def prepare(self, population: Population, ctx: Context) -> None:
        _refuse_texts(self.name, ctx)
        self.label = _most_frequent(record for _, record in population.records())

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return _offered(self.label, sample, ctx)


class UserMajority(Method):
    """The label most frequent in the user's own history, the newest of equally frequent ones."""

    name = "user_majority"
    needs = ("history",)
    designed_for = ("*",)
    refuses = {
        "lamp1": "its histories hold papers, not choices to count",
        "lamp4": "free texts have no majority",
        "lamp5": "free texts have no majority",
        "lamp6": "free texts have no majority",
        "lamp7": "free texts have no majority",
        "longlamp*": "free texts have no majority",
        "lampqa*": "free texts have no majority",
        "prelude*": "free texts have no majority",
        "reviews*": "free texts have no majority",
        "personamem*": "its histories hold conversations, not choices to count",
        "prefdisco*": "its histories hold conversations, not choices to count",
    }

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        _refuse_texts(self.name, ctx)
        return _offered(_most_frequent(reversed(sample.history)), sample, ctx)


class UserMean(Method):
    """The choice nearest to the mean of the user's own scores, the lower of two equally near ones."""

    name = "user_mean"
    needs = ("history",)
    designed_for = ("lamp3",)
    refuses = {
        "lamp[124567]*": "its responses are not scores",
        "longlamp*": "its responses are not scores",
        "lampqa*": "its responses are not scores",
        "prelude*": "its responses are not scores",
        "reviews*": "its responses are not scores",
        "personamem*": "its responses are not scores",
        "prefdisco*": "its responses are not scores",
    }

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        if ctx.task.kind != "ordinal":
            raise UsageError(
                f"{self.name} needs scores, and the responses of {ctx.task.name} are none"
            )
        scores = [
            score for record in sample.history if (score := _number(record.response)) is not None
        ]
        if not scores:
            return _offered("", sample, ctx)
        mean = sum(scores) / len(scores)
        choices = [
            (abs(value - mean), value, text)
            for text in sample.choices
            if (value := _number(text)) is not None
        ]
        return min(choices)[2] if choices else f"{mean:g}"


class CopyNearest(Method):
    """The response of the record that best fits the question; of choices, the one whose words the history knows best.

    The latter is for tasks whose histories hold no choices: a choice is read as what follows `choice:` in the input.
    """

    name = "copy_nearest"
    needs = ("history",)
    designed_for = ("*",)

    @dataclass(frozen=True)
    class Params:
        """retriever, embedder: as for rag."""

        retriever: str = "bm25"
        embedder: str = "wordllama"

    def requirements(self) -> set[str]:
        return super().requirements() | retrieval_needs(self.params.retriever)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        nearest = await ctx.retrieve(
            sample, 1, self.params.retriever, embedder=self.params.embedder
        )
        if nearest and ctx.task.kind != "text" and nearest[0].stimulus is None:
            return _best_known(sample)
        return nearest[0].response if nearest else _offered("", sample, ctx)


class CopyInput(Method):
    """What the question is about, word for word: how far a text task is solved by repeating it."""

    name = "copy_input"
    designed_for = ("*",)
    refuses = {
        "lamp[123]*": "its answers are labels, never parts of the input",
    }

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return sample.stimulus or ctx.task.query_text(sample)


class Constant(Method):
    """The same answer to every question."""

    name = "constant"
    designed_for = ("*",)

    @dataclass(frozen=True)
    class Params:
        """value: the answer; empty for the first choice, or in tasks without choices for the name of a response."""

        value: str = ""

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return self.params.value or (
            sample.choices[0] if sample.choices else ctx.task.words.response
        )


def _refuse_texts(method: str, ctx: Context) -> None:
    if ctx.task.kind == "text":
        raise UsageError(
            f"{method} counts labels, and the responses of {ctx.task.name} are free texts"
        )


def _most_frequent(records: Iterable[Record]) -> str:
    """The most frequent response, the first seen of equally frequent ones; empty without records."""
    counts = Counter(record.response.strip() for record in records)
    return max(counts, key=lambda label: counts[label], default="")


def _offered(label: str, sample: Sample, ctx: Context) -> str:
    """A label; the first choice, flagged, where there is none or it is no choice."""
    if label and (not sample.choices or label in sample.choices):
        return label
    ctx.flag("no_label")
    return sample.choices[0] if sample.choices else ""


def _best_known(sample: Sample) -> str:
    """The choice with the largest share of words that occur in the history; the first of equals."""
    known = {word for record in sample.history for word in _words(record.response)}
    ends = "|".join(re.escape(f"{choice}:") for choice in sample.choices)
    parts = re.split(f"({ends})", sample.input)
    texts = dict(zip((mark[:-1] for mark in parts[1::2]), parts[2::2], strict=True))

    def share(choice: str) -> float:
        words = _words(texts.get(choice, ""))
        return len(words & known) / len(words) if words else 0.0

    return max(sample.choices, key=share)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
