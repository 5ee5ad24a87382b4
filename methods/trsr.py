"""Summaries for long histories: block by block, each taking up where the last one stopped, or all merged at the end.

Blocks are cut from the oldest record on, so one more record changes the last block only; what the model said of the
others is found in the response cache, where it is kept under the block's text and the summary before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from personabench import Context, Message, Method, Record, Sample, User
from personabench.api.method import retrieval_needs
from personabench.methods.summary import written


class Trsr(Method):
    """Summarise the history in blocks, recurrently or hierarchically; answer with it and the newest records."""

    name = "trsr"
    version = 2
    paper = (
        "Harnessing Large Language Models for Text-Rich Sequential Recommendation, arXiv 2403.13325"
    )
    needs = ("history",)
    designed_for = ()

    @dataclass(frozen=True)
    class Params:
        """mode: recurrent rewrites one summary block after block, hierarchical merges a summary of each block.

        k: records retrieved and shown with the question; retriever, embedder: as for rag.
        block: records per block; max_blocks: newest blocks used, 0 for all.
        recent: newest records shown beside the summary, where they are not retrieved anyway.
        summary_max_tokens: allowance of every summary; fan_in: summaries merged by one call.
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
            for name, least in (("block", 1), ("max_blocks", 0), ("recent", 0), ("fan_in", 2)):
                if getattr(self, name) < least:
                    raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")

    def requirements(self) -> set[str]:
        return super().requirements() | retrieval_needs(self.params.retriever)

    async def profile(self, user: User, ctx: Context) -> str:
        """The summary of the history; empty for a user without one.  Flags `undated` where order is the file's."""
        p = self.params
        if any(record.time is None for record in user.history):
            ctx.flag("undated")
        blocks = [
            user.history[start : start + p.block] for start in range(0, len(user.history), p.block)
        ]
        blocks = blocks[-p.max_blocks :]
        return await (
            self._recurrent(blocks, ctx)
            if p.mode == "recurrent"
            else self._hierarchical(blocks, ctx)
        )

    async def predict(self, sample: Sample, state: str, ctx: Context) -> str:
        p = self.params
        records = await ctx.retrieve(sample, p.k, p.retriever, embedder=p.embedder)
        shown = {record.id for record in records}
        newest = sample.history[-p.recent :] if p.recent else ()
        recent = [record for record in newest if record.id not in shown]
        notes = _notes(state, recent, ctx)
        while (
            recent
            and ctx.excess(
                ctx.task.render(sample, (), notes, ctx.tokens).messages, ctx.answer_tokens
            )
            > 0
        ):
            ctx.flag("recent_dropped")
            recent = recent[1:]
            notes = _notes(state, recent, ctx)
        return await ctx.answer(sample, records, notes=notes)

    async def _recurrent(self, blocks: Sequence[Sequence[Record]], ctx: Context) -> str:
        summary = ""
        for block in blocks:
            summary = await self._block(block, summary, ctx) or summary
        return summary

    async def _hierarchical(self, blocks: Sequence[Sequence[Record]], ctx: Context) -> str:
        summaries = await asyncio.gather(*(self._block(block, "", ctx) for block in blocks))
        level = [summary for summary in summaries if summary]
        while len(level) > 1:
            groups = [
                level[start : start + self.params.fan_in]
                for start in range(0, len(level), self.params.fan_in)
            ]
            merged = await asyncio.gather(*(self._merged(group, ctx) for group in groups))
            level = [summary for summary in merged if summary]
        return level[0] if level else ""

    async def _block(self, block: Sequence[Record], before: str, ctx: Context) -> str:
        messages = ctx.fit(
            lambda kept: _block_prompt(kept[::-1], before, ctx),
            block[::-1],
            self.params.summary_max_tokens,
        )
        return await written(messages, self.params.summary_max_tokens, ctx)

    async def _merged(self, summaries: Sequence[str], ctx: Context) -> str:
        """One summary of several, halves first where all do not fit; the newest where the model says nothing."""
        if len(summaries) == 1:
            return summaries[0]
        messages = _merge_prompt(summaries, ctx)
        if len(summaries) > 2 and ctx.excess(messages, self.params.summary_max_tokens) > 0:
            ctx.flag("merge_split")
            half = len(summaries) // 2
            halves = await asyncio.gather(
                self._merged(summaries[:half], ctx), self._merged(summaries[half:], ctx)
            )
            return await self._merged(halves, ctx)
        return await written(messages, self.params.summary_max_tokens, ctx) or summaries[-1]


def _block_prompt(records: Sequence[Record], before: str, ctx: Context) -> tuple[Message, ...]:
    """The first summary, or, with one from `before`, the complete summary that takes its place."""
    words = ctx.task.words
    shown = "\n\n".join(ctx.task.describe(record) for record in records)
    study = f"You study one {words.person} over time. {words.profile_question} "
    if not before:
        system = study + "Write one short paragraph about habits that hold across the records."
        return Message("system", system), Message(
            "user", f"The {words.person}'s records, oldest first:\n\n{shown}\n\nSummary:"
        )
    system = study + (
        "You get the summary so far and newer records. Write the whole summary anew as one short paragraph that takes "
        "its place: keep what still holds, add what is new, say which habits changed."
    )
    return Message("system", system), Message(
        "user",
        f"Summary so far:\n{before}\n\nNewer records, oldest first:\n\n{shown}\n\nNew summary:",
    )


def _merge_prompt(summaries: Sequence[str], ctx: Context) -> tuple[Message, ...]:
    words = ctx.task.words
    system = (
        f"You study one {words.person} over time. {words.profile_question} You get summaries of successive periods, "
        "oldest first. Write one short paragraph that takes their place: what holds throughout, and what changed."
    )
    listed = "\n\n".join(f"{number}. {summary}" for number, summary in enumerate(summaries, 1))
    return Message("system", system), Message("user", f"{listed}\n\nSummary:")


def _notes(summary: str, recent: Sequence[Record], ctx: Context) -> str:
    parts = [summary] if summary else []
    if recent:
        shown = "\n\n".join(ctx.task.describe(record) for record in recent)
        parts.append(f"Latest records, oldest first:\n\n{shown}")
    return "\n\n".join(parts)
