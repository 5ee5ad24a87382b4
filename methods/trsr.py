"""Summaries of long histories, block by block: each continues the last, or all are merged.

Blocks start from the oldest record, so that one more record changes the last block only; the
summaries of all earlier blocks come from the response cache, since their requests (a block's text
and the summary before it) stay the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from personabench import Context, Message, Method, PromptFile, Record, Sample, User
from personabench.api.method import retrieval_needs
from personabench.methods.summary import request_summary

PROMPTS = PromptFile(__file__, "trsr.prompts.toml")
T = TypeVar("T")


class Trsr(Method):
    """Summarise the history in blocks; answer with the summary and the newest records."""

    name = "trsr"
    version = 2
    paper = (
        "Harnessing Large Language Models for Text-Rich Sequential Recommendation, arXiv 2403.13325"
    )
    needs = ("history",)
    designed_for = ()
    paper_settings = {"block": 5, "recent": 5}
    prompts = (PROMPTS,)

    @dataclass(frozen=True)
    class Params:
        """mode: recurrent rewrites one summary block after block, hierarchical merges a summary of
        each block.

        k: records retrieved and shown with the question; retriever, embedder: as in rag.
        block: records per block; max_blocks: newest blocks used, 0 for all.
        recent: newest records shown beside the summary, unless they are retrieved anyway.
        summary_max_tokens: maximum tokens of every summary; fan_in: summaries merged by one call.
        """

        mode: Literal["recurrent", "hierarchical"] = "recurrent"
        k: int = 8
        retriever: str = "bm25"
        embedder: str = "wordllama"
        block: int = 5
        max_blocks: int = 0
        recent: int = 5
        summary_max_tokens: int = 256
        fan_in: int = 8

        def __post_init__(self) -> None:
            # With a fan-in of 1 a merge would never reduce the number of summaries.
            minima = {"block": 1, "max_blocks": 0, "recent": 0, "fan_in": 2}
            for name, minimum in minima.items():
                value = getattr(self, name)
                if value < minimum:
                    raise ValueError(f"{name} must be at least {minimum}, not {value}")

    def requirements(self) -> set[str]:
        return super().requirements() | retrieval_needs(self.params.retriever)

    async def profile(self, user: User, ctx: Context) -> str:
        """The summary of the history, empty without one; flags `undated` without dates."""
        p = self.params
        if any(record.time is None for record in user.history):
            ctx.flag("undated")

        blocks = _split(user.history, p.block)
        # A maximum of 0 keeps all blocks, since [-0:] is the whole list.
        blocks = blocks[-p.max_blocks :]
        if p.mode == "recurrent":
            return await self._summarize_recurrently(blocks, ctx)
        return await self._summarize_hierarchically(blocks, ctx)

    async def predict(self, sample: Sample, state: str, ctx: Context) -> str:
        p = self.params
        records = await ctx.retrieve(sample, p.k, p.retriever, embedder=p.embedder)
        retrieved = {record.id for record in records}
        newest = sample.history[-p.recent :] if p.recent else ()
        recent = [record for record in newest if record.id not in retrieved]

        notes = _format_notes(state, recent, ctx)
        while recent and _exceeds_window(sample, notes, ctx):
            ctx.flag("recent_dropped")
            recent = recent[1:]
            notes = _format_notes(state, recent, ctx)
        return await ctx.answer(sample, records, notes=notes)

    async def _summarize_recurrently(
        self,
        blocks: Sequence[Sequence[Record]],
        ctx: Context,
    ) -> str:
        summary = ""
        for block in blocks:
            # An empty reply must not erase the summary of all earlier blocks.
            summary = await self._summarize_block(block, summary, ctx) or summary
        return summary

    async def _summarize_hierarchically(
        self,
        blocks: Sequence[Sequence[Record]],
        ctx: Context,
    ) -> str:
        summaries = await asyncio.gather(
            *(self._summarize_block(block, "", ctx) for block in blocks)
        )
        level = [summary for summary in summaries if summary]
        while len(level) > 1:
            groups = _split(level, self.params.fan_in)
            merged = await asyncio.gather(*(self._merge(group, ctx) for group in groups))
            level = [summary for summary in merged if summary]
        return level[0] if level else ""

    async def _summarize_block(
        self,
        block: Sequence[Record],
        previous_summary: str,
        ctx: Context,
    ) -> str:
        # Newest first for the window, whose lowest-ranked records go; the prompt is in time order
        # again.
        messages = ctx.fit(
            lambda fitted: _block_prompt(fitted[::-1], previous_summary, ctx),
            block[::-1],
            self.params.summary_max_tokens,
        )
        return await request_summary(messages, self.params.summary_max_tokens, ctx)

    async def _merge(self, summaries: Sequence[str], ctx: Context) -> str:
        """One summary of several, by halves if all do not fit; the newest if the reply is empty."""
        if len(summaries) == 1:
            return summaries[0]

        max_tokens = self.params.summary_max_tokens
        messages = _merge_prompt(summaries, ctx)
        if len(summaries) > 2 and ctx.count_excess_tokens(messages, max_tokens) > 0:
            ctx.flag("merge_split")
            middle = len(summaries) // 2
            halves = await asyncio.gather(
                self._merge(summaries[:middle], ctx),
                self._merge(summaries[middle:], ctx),
            )
            return await self._merge(halves, ctx)

        merged = await request_summary(messages, max_tokens, ctx)
        return merged or summaries[-1]


def _split(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _exceeds_window(sample: Sample, notes: str, ctx: Context) -> bool:
    messages = ctx.task.render(sample, (), notes, ctx.tokens).messages
    return ctx.count_excess_tokens(messages, ctx.answer_tokens) > 0


def _block_prompt(
    records: Sequence[Record],
    previous_summary: str,
    ctx: Context,
) -> tuple[Message, ...]:
    """The request for the first summary, or for the one that replaces `previous_summary`."""
    shown_records = "\n\n".join(ctx.task.describe(record) for record in records)
    if not previous_summary:
        return ctx.prompt(PROMPTS, "first", records=shown_records)
    return ctx.prompt(PROMPTS, "update", summary=previous_summary, records=shown_records)


def _merge_prompt(summaries: Sequence[str], ctx: Context) -> tuple[Message, ...]:
    listed = "\n\n".join(f"{number}. {summary}" for number, summary in enumerate(summaries, 1))
    return ctx.prompt(PROMPTS, "merge", summaries=listed)


def _format_notes(summary: str, recent: Sequence[Record], ctx: Context) -> str:
    parts = []
    if summary:
        parts.append(summary)
    if recent:
        records = "\n\n".join(ctx.task.describe(record) for record in recent)
        parts.append(ctx.part(PROMPTS, "recent", records=records))
    return ctx.part(PROMPTS, "notes", content="\n\n".join(parts)) if parts else ""
