"""Retrieval chosen by validation: the way to retrieve that answers the user's past questions best.

Each option, a retriever with a number of records or no history at all, answers the user's newest
past questions from the records before them.  The answers are scored against the user's
own, and the best option retrieves for the question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from personabench import Context, Method, Record, Sample, UsageError
from personabench.api.method import retrieval_needs
from personabench.methods.past_answers import list_precedents, score_past_answer


class Option(NamedTuple):
    """A way to retrieve: the retriever and the number of records, 0 for no history."""

    retriever: str
    k: int

    @property
    def name(self) -> str:
        """The option as parameters have it."""
        return f"{self.retriever}:{self.k}" if self.k else "none"


class RagSelect(Method):
    """Retrieve in the way that answers the user's newest past questions best."""

    name = "rag_select"
    paper = (
        "Optimization Methods for Personalizing LLMs through Retrieval Augmentation, arXiv "
        "2404.05970"
    )
    designed_for = ()
    needs = ("history", "precedents")

    @dataclass(frozen=True)
    class Params:
        """options: ways to retrieve, as retriever:k or none; of equals the first is chosen.

        validate: the newest past questions that choose.
        embedder: for dense, as in rag.
        """

        options: str = "bm25:4,none,bm25:8,dense:4,dense:8"
        validate: int = 4
        embedder: str = "wordllama"

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        if self.params.validate < 1:
            raise UsageError(f"rag_select: validate must be at least 1, not {self.params.validate}")
        self.options = [_read_option(text) for text in self.params.options.split(",")]

    def requirements(self) -> set[str]:
        needs = (retrieval_needs(option.retriever) for option in self.options if option.k)
        return super().requirements().union(*needs)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        scores = await self._validate(sample, ctx.shared())
        chosen = self.options[0]
        if scores:
            # `max` returns the first of equals.
            chosen = max(self.options, key=lambda option: scores[option.name])
        else:
            ctx.flag("not_validated")
        ctx.note("option", chosen.name)
        ctx.note("validation", scores)
        if not chosen.k:
            ctx.flag("history_unused")
        return await ctx.answer(sample, await self._retrieve(chosen, sample, sample.history, ctx))

    async def _validate(self, sample: Sample, ctx: Context) -> dict[str, float]:
        """The mean score of each option, by name; empty without a question that has a past."""
        records = list_precedents(sample, ctx)
        # The oldest record has no record before it.
        first = max(1, len(records) - self.params.validate)
        questions = [(records[:index], records[index]) for index in range(first, len(records))]
        if not questions:
            return {}

        async def score(option: Option, earlier: Sequence[Record], record: Record) -> float:
            question = ctx.task.question(record, like=sample)
            retrieved = await self._retrieve(option, question, earlier, ctx)
            points, _ = await score_past_answer(record, sample, retrieved, "", ctx)
            return points

        means = {}
        for option in self.options:
            points = await asyncio.gather(*(score(option, *question) for question in questions))
            means[option.name] = round(sum(points) / len(points), 6)
        return means

    async def _retrieve(
        self, option: Option, question: Sample, records: Sequence[Record], ctx: Context
    ) -> Sequence[Record]:
        if not option.k:
            return ()
        return await ctx.retrieve(
            question, option.k, option.retriever, records=records, embedder=self.params.embedder
        )


def _read_option(text: str) -> Option:
    """An option of the parameters.

    Raises:
        UsageError: it is neither `none` nor a retriever with a number.
    """
    name, _, count = text.strip().partition(":")
    if name == "none" and not count:
        return Option("none", 0)
    if not count.isdecimal() or int(count) < 1 or name == "ranked":
        raise UsageError(
            f"rag_select: option '{text}': write none, or a retriever with a number, as bm25:4"
        )
    retrieval_needs(name)
    return Option(name, int(count))
