"""Profile-augmented generation: a summary of the user, then retrieval as usual.

`summary` writes it once per user from the history alone, so that questions share it;
`summary_retrieved` writes it for each question from the records retrieved for it, a method that
some papers call by the same name.  Long conversations come in blocks: each is summarised by itself,
so that a longer part of the same conversation costs calls for its new blocks only, and the
summaries are merged in order.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from personabench import Context, Message, Method, PromptFile, Record, Sample, User
from personabench.api.method import retrieval_needs

PROMPTS = PromptFile(__file__, "summary.prompts.toml")

# Models repeat the prompt's last word; as notes for the answer the heading would be shown to the
# model twice.
_LABEL = re.compile(r"\A[\s*_#]*(?:new |user )?(?:summary|profile)[\s*_]*:[\s*_]*", re.IGNORECASE)


class Summary(Method):
    """Summarise the user's history once; answer with the summary and the k nearest records."""

    name = "summary"
    version = 2
    paper = (
        "Integrating Summarization and Retrieval for Enhanced Personalization via LLMs, arXiv "
        "2310.20081"
    )
    needs = ("history",)
    designed_for = ("lamp[1-7]*",)
    prompts = (PROMPTS,)

    @dataclass(frozen=True)
    class Params:
        """k: records shown with the question, 0 for the summary alone; retriever, embedder: as in
        rag.

        summary_budget_tokens: tokens of history that the summary is made from; the newest records
            are kept.  0 uses all that fits the model's window.  With blocks, it is the budget of
            each block.
        summary_max_tokens: maximum tokens of the summary.
        blocks: summarise each block of a history that has blocks, then merge.
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
            return await self._summarize_block(user.history, ctx)

        texts = await asyncio.gather(
            *(self._summarize_block(block, ctx) for block in blocks.values())
        )
        # As records, the summaries can be fitted to the window like a history, the oldest dropped
        # first.
        summaries = [
            Record(name, None, text) for name, text in zip(blocks, texts, strict=True) if text
        ]
        if not summaries:
            return ""
        if len(summaries) == 1:
            return summaries[0].response

        messages = ctx.fit(
            lambda fitted: _merge_prompt(fitted, ctx),
            summaries[::-1],
            self.params.summary_max_tokens,
        )
        return await request_summary(messages, self.params.summary_max_tokens, ctx)

    async def _summarize_block(self, history: Sequence[Record], ctx: Context) -> str:
        newest_first = history[::-1]
        budget = self.params.summary_budget_tokens or ctx.window
        if budget is not None:
            texts = [ctx.task.describe(record) for record in newest_first]
            count = ctx.count_within(texts, budget)
            newest_first = newest_first[:count]
        return await summarize(newest_first, self.params.summary_max_tokens, ctx)

    async def predict(self, sample: Sample, state: str, ctx: Context) -> str:
        p = self.params
        records = await ctx.retrieve(sample, p.k, p.retriever, embedder=p.embedder)
        return await ctx.answer(sample, records, notes=format_notes(state, ctx))


class SummaryRetrieved(Method):
    """Summarise the k nearest records per question; answer with summary and records."""

    name = "summary_retrieved"
    version = 2
    paper = (
        "Integrating Summarization and Retrieval for Enhanced Personalization via LLMs, arXiv "
        "2310.20081"
    )
    needs = ("history",)
    designed_for = ("lamp[1-7]*",)
    uses_profiler = True
    prompts = (PROMPTS,)

    @dataclass(frozen=True)
    class Params:
        """k: records summarised and shown; retriever, embedder: as in rag; summary_max_tokens: as
        in summary.
        """

        k: int = 8
        retriever: str = "bm25"
        embedder: str = "wordllama"
        summary_max_tokens: int = 512

    def requirements(self) -> set[str]:
        return super().requirements() | retrieval_needs(self.params.retriever)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        p = self.params
        records = await ctx.retrieve(sample, p.k, p.retriever, embedder=p.embedder)

        # The summary reads records in time order, whatever order they were retrieved in.
        retrieved = {record.id for record in records}
        newest_first = [record for record in reversed(sample.history) if record.id in retrieved]
        summary = await summarize(newest_first, p.summary_max_tokens, ctx.profiling())
        return await ctx.answer(sample, records, notes=format_notes(summary, ctx))


async def summarize(
    newest_first: Sequence[Record],
    max_tokens: int,
    ctx: Context,
) -> str:
    """Summarise as many of the newest records as fit; empty, without a call, for no records."""
    if not newest_first:
        return ""
    messages = ctx.fit(lambda fitted: _summary_prompt(fitted, ctx), newest_first, max_tokens)
    return await request_summary(messages, max_tokens, ctx)


async def request_summary(
    messages: Sequence[Message],
    max_tokens: int,
    ctx: Context,
) -> str:
    """The summary in the model's reply, without a heading; flags repairs and empty replies."""
    response = await ctx.complete(messages, max_tokens=max_tokens)
    reply = response.text.strip()
    summary = _LABEL.sub("", reply, count=1)

    if summary != reply:
        ctx.flag("tag_stripped")
    if not summary:
        ctx.flag("empty_summary")
    return summary


def format_notes(summary: str, ctx: Context) -> str:
    """The summary as a request for an answer shows it; empty without one."""
    return ctx.part(PROMPTS, "notes", summary=summary) if summary else ""


def _summary_prompt(newest_first: Sequence[Record], ctx: Context) -> tuple[Message, ...]:
    records = "\n\n".join(ctx.task.describe(record) for record in reversed(newest_first))
    return ctx.prompt(PROMPTS, "profile", records=records)


def _merge_prompt(newest_first: Sequence[Record], ctx: Context) -> tuple[Message, ...]:
    summaries = "\n\n".join(summary.response for summary in reversed(newest_first))
    return ctx.prompt(PROMPTS, "merge", summaries=summaries)
