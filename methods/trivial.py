"""Predictors without a model: the score that needs no understanding.

Labels are counted or copied from histories; a user without any gets the task's first choice, so
that every sample is answered.  On tasks whose histories hold no labels (LaMP-1), only the
predictors that need none run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from personabench import Context, Method, Population, Record, Sample, UsageError
from personabench.api.method import retrieval_needs

# Shorter words are mostly function words, which every text shares with every history.
_WORD = re.compile(r"[^\W_]{3,}")


class Majority(Method):
    """The label most frequent in the histories of all users."""

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
        self.label = _most_frequent_label(record for _, record in population.records())

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        return _valid_label(self.label, sample, ctx)


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
        # Newest first, because the first label of equally frequent ones is taken.
        label = _most_frequent_label(reversed(sample.history))
        return _valid_label(label, sample, ctx)


class UserMean(Method):
    """The choice nearest to the mean of the user's own scores, the lower of equals."""

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
                f"{self.name} needs scores, and the responses of {ctx.task.name} are not scores"
            )

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
    """The response of the record that best fits the question, or the choice whose words are
    commonest in the history.

    The latter is for tasks whose histories hold no choices: a choice's text is what follows
    `choice:` in the input.
    """

    name = "copy_nearest"
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
            return _most_familiar_choice(sample)
        return nearest.response


class CopyInput(Method):
    """The question's own text, word for word: the score of a text task that repetition reaches."""

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
        """value: the answer; empty for the first choice, or, without choices, the task's word for a
        response.
        """

        value: str = ""

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        value: str = self.params.value
        if value:
            return value
        return sample.choices[0] if sample.choices else ctx.task.words.response


def _refuse_texts(method: str, ctx: Context) -> None:
    if ctx.task.kind == "text":
        raise UsageError(
            f"{method} counts labels, and the responses of {ctx.task.name} are free texts"
        )


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


def _most_familiar_choice(sample: Sample) -> str:
    """The choice with the largest share of words that occur in the history; the first of equals."""
    history_words: set[str] = set()
    for record in sample.history:
        history_words |= _words(record.response)

    # With a capturing group, `split` keeps the marks: text, mark, text, mark, text.
    marks = "|".join(re.escape(f"{choice}:") for choice in sample.choices)
    parts = re.split(f"({marks})", sample.input)
    texts = {mark[:-1]: text for mark, text in zip(parts[1::2], parts[2::2], strict=True)}

    def familiar_share(choice: str) -> float:
        words = _words(texts.get(choice, ""))
        return len(words & history_words) / len(words) if words else 0.0

    return max(sample.choices, key=familiar_share)


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
