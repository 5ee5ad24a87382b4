"""Profile-augmented generation: a summary of the user, then retrieval as usual.

`summary` writes it once per user from the history alone, so two questions share it; `summary_retrieved` writes it for
each question from the records retrieved for it, which some papers call by the same name.  Long conversations come in
blocks: each is summarised by itself, so that a later cut of the same conversation asks only for what is new in it, and
the summaries are merged in order.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from personabench import Context, Message, Method, Record, Sample, User
from personabench.api.method import retrieval_needs

_LABEL = re.compile(r"\A[\s*_#]*(?:new |user )?(?:summary|profile)[\s*_]*:[\s*_]*", re.IGNORECASE)


class Summary(Method):
    """Summarise the user's history once; answer with the summary and the k nearest records."""

    name = "summary"
    version = 2
    paper = "Integrating Summarization and Retrieval for Enhanced Personalization via LLMs, arXiv 2310.20081"
    needs = ("history",)
    designed_for = ("lamp*",)

    @dataclass(frozen=True)
    class Params:
        """k: records shown with the question, 0 for the summary alone; retriever, embedder: as for rag.

        summary_budget_tokens: how much of the history the summary is made from; the newest records are kept.
            0 takes all of it, as far as the model's window goes.  In blocks, it is the budget of each block.
        summary_max_tokens: allowance of the summary.
        blocks: summarise each block of a history that has blocks (PersonaMem), then merge.
        """

        k: int = 8
        retriever: str = "bm25"
        embedder: str = "wordllama"
        summary_budget_tokens: int = 6000
        summary_max_tokens: int = 512
        blocks: bool = True

    def requirements(self) -> set[str]:
        return super().requirements() | retrieval_needs(self.params.retriever)

    async def profile(self, user: User, ctx: Context) -> str:
        """The summary text; empty for a user without history."""
        blocks: dict[str, list[Record]] = {}
        for record in user.history:
            blocks.setdefault(record.fields.get("block", ""), []).append(record)
        if not self.params.blocks or len(blocks) < 2:
            return await self._summary(user.history, ctx)
        parts = await asyncio.gather(*(self._summary(block, ctx) for block in blocks.values()))
        told = [Record(name, None, part) for name, part in zip(blocks, parts, strict=True) if part]
        if len(told) < 2:
            return told[0].response if told else ""
        messages = ctx.fit(
            lambda kept: _merge(kept, ctx), told[::-1], self.params.summary_max_tokens
        )
        return await written(messages, self.params.summary_max_tokens, ctx)

    async def _summary(self, history: Sequence[Record], ctx: Context) -> str:
        newest_first = history[::-1]
        budget = self.params.summary_budget_tokens or ctx.window
        if budget is not None:
            kept = ctx.within([ctx.task.describe(record) for record in newest_first], budget)
            newest_first = newest_first[:kept]
        return await summarised(newest_first, self.params.summary_max_tokens, ctx)

    async def predict(self, sample: Sample, state: str, ctx: Context) -> str:
        records = await ctx.retrieve(
            sample, self.params.k, self.params.retriever, embedder=self.params.embedder
        )
        return await ctx.answer(sample, records, notes=state)


class SummaryRetrieved(Method):
    """Summarise the k nearest records for each question; answer with the summary and the same records."""

    name = "summary_retrieved"
    version = 2
    paper = "Integrating Summarization and Retrieval for Enhanced Personalization via LLMs, arXiv 2310.20081"
    needs = ("history",)
    designed_for = ("lamp*",)

    @dataclass(frozen=True)
    class Params:
        """k: records summarised and shown; retriever, embedder: as for rag; summary_max_tokens: as for summary."""

        k: int = 8
        retriever: str = "bm25"
        embedder: str = "wordllama"
        summary_max_tokens: int = 512

    def requirements(self) -> set[str]:
        return super().requirements() | retrieval_needs(self.params.retriever)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        records = await ctx.retrieve(
            sample, self.params.k, self.params.retriever, embedder=self.params.embedder
        )
        shown = {record.id for record in records}
        newest_first = [record for record in reversed(sample.history) if record.id in shown]
        notes = await summarised(newest_first, self.params.summary_max_tokens, ctx)
        return await ctx.answer(sample, records, notes=notes)


async def summarised(newest_first: Sequence[Record], max_tokens: int, ctx: Context) -> str:
    """What some records say of the user, as far as they fit the window; empty, and no call, without records."""
    if not newest_first:
        return ""
    messages = ctx.fit(lambda records: _prompt(records, ctx), newest_first, max_tokens)
    return await written(messages, max_tokens, ctx)


async def written(messages: Sequence[Message], max_tokens: int, ctx: Context) -> str:
    """The summary a reply holds, without a label before it; flags `tag_stripped` and `empty_summary`."""
    reply = (await ctx.complete(messages, max_tokens=max_tokens)).text.strip()
    summary = _LABEL.sub("", reply, count=1)
    if summary != reply:
        ctx.flag("tag_stripped")
    if not summary:
        ctx.flag("empty_summary")
    return summary


def _prompt(newest_first: Sequence[Record], ctx: Context) -> tuple[Message, ...]:
    words = ctx.task.words
    system = (
        f"You study one {words.person}. {words.profile_question} "
        "Write one short paragraph about habits that hold across the records. "
        "Describe the person, not single records, and do not number or quote them."
    )
    shown = "\n\n".join(ctx.task.describe(record) for record in reversed(newest_first))
    return Message("system", system), Message(
        "user", f"The {words.person}'s records, oldest first:\n\n{shown}\n\nProfile:"
    )


def _merge(newest_first: Sequence[Record], ctx: Context) -> tuple[Message, ...]:
    words = ctx.task.words
    system = (
        f"You study one {words.person}. {words.profile_question} "
        "Below are summaries of their conversations, oldest first. Merge them into one paragraph that keeps what "
        "changed, in which order and why; where they disagree, the later one holds now. Invent nothing."
    )
    shown = "\n\n".join(summary.response for summary in reversed(newest_first))
    return Message("system", system), Message("user", f"The summaries:\n\n{shown}\n\nProfile:")
