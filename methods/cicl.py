"""Contrastive examples: beside what the user made of something, what they would not have made of it.

The contrast is another person's response to the same or a comparable stimulus, or the model's own draft for it, asked
for exactly as `none` asks.  The model first says what separates the two sides, then answers; only the answer counts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from personabench import Context, Message, Record, Sample
from personabench.methods.cipher.prompts import questions
from personabench.methods.comparing import Comparing, kind_of
from personabench.methods.dpl.peers import Pool
from personabench.methods.dpl.selectors import Peer, agree

_ANSWER = re.compile(r"^[\s*_#>-]*answer[\s*_]*:[\s*_]*", re.IGNORECASE | re.MULTILINE)
_MARGIN = 128
REMINDER = ' Do not leave out the line that begins with "Answer:".'


class Cicl(Comparing):
    """Show preferred and non-preferred responses in pairs, have the contrast analysed, and answer from it."""

    name = "cicl"
    paper = "Customizing Language Model Responses with Contrastive In-Context Learning, arXiv 2401.17390"
    designed_for = ()
    needs = ("history", "population")

    @dataclass(frozen=True)
    class Params(Comparing.Params):
        """k: pairs shown; retriever, embedder, temporal_guard, population_max_users: as `Comparing`.

        negatives: peer, another person's response; draft, the model's own; auto, a peer's where the data names items
            or has no stimulus, else a draft.
        two_step: analyse in a call of its own.
        analysis_max_tokens: allowance of the analysis.
        """

        negatives: Literal["auto", "peer", "draft"] = "auto"
        two_step: bool = False
        analysis_max_tokens: int = 256

    def requirements(self) -> set[str]:
        needed = super().requirements()
        return needed - {"population"} if self.params.negatives == "draft" else needed

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        p = self.params
        docs = await ctx.retrieve(sample, p.k, p.retriever, embedder=p.embedder)
        negatives = await self._negatives(sample, docs, ctx)
        if not negatives:
            return await self.fallback(sample, ctx)
        ctx.flag("pairs", len(negatives))
        if len(negatives) < len(docs):
            ctx.flag("positive_only", len(docs) - len(negatives))
        if p.two_step:
            messages = ctx.fit(
                lambda kept: _analysis_prompt(_listed(kept, negatives, ctx), ctx),
                docs,
                p.analysis_max_tokens,
            )
            analysis = (await ctx.complete(messages, max_tokens=p.analysis_max_tokens)).text.strip()
            if not analysis:
                ctx.flag("empty_analysis")
            messages = self._asked(sample, docs, negatives, analysis, "", ctx.answer_tokens, ctx)
            return (await ctx.complete(messages, max_tokens=ctx.answer_tokens)).text.strip()
        return await self._in_one(sample, docs, negatives, ctx)

    async def _in_one(
        self, sample: Sample, docs: Sequence[Record], negatives: Mapping[str, str], ctx: Context
    ) -> str:
        """Analysis and answer in one reply; asked again once without an answer in it, then the whole is the answer."""
        allowance = self.params.analysis_max_tokens + ctx.answer_tokens
        request = (
            f'Begin with "Analysis:" and say in one or two sentences what this {ctx.task.words.person} prefers. '
            'Then begin a new line with "Answer:" and give the reply alone.'
        )
        for reminder in ("", REMINDER):
            messages = self._asked(sample, docs, negatives, "", request + reminder, allowance, ctx)
            text = (await ctx.complete(messages, max_tokens=allowance)).text.strip()
            found = answer_of(text)
            if found:
                return found
            ctx.flag("answer_missing" if reminder else "answer_retried")
        return text

    async def _negatives(
        self, sample: Sample, docs: Sequence[Record], ctx: Context
    ) -> dict[str, str]:
        """What the user would not have made of each record, as text, by record id; comparable and different only."""
        by_peer = [doc for doc in docs if self._from_peer(doc)]
        pools = await self.pools(sample, by_peer, ctx)
        found = {
            doc.id: _peer_text(doc, pool, ctx) for doc, pool in zip(by_peer, pools, strict=True)
        }
        by_draft = [doc for doc in docs if doc.id not in found and doc.stimulus is not None]
        drafts = await asyncio.gather(*(_draft(doc, sample, ctx) for doc in by_draft))
        found |= {doc.id: draft for doc, draft in zip(by_draft, drafts, strict=True)}
        return {name: text for name, text in found.items() if text}

    def _from_peer(self, doc: Record) -> bool:
        wanted: str = self.params.negatives
        return wanted == "peer" or (
            wanted == "auto" and (doc.stimulus is None or doc.item is not None)
        )

    def _asked(
        self,
        sample: Sample,
        docs: Sequence[Record],
        negatives: Mapping[str, str],
        analysis: str,
        request: str,
        max_tokens: int,
        ctx: Context,
    ) -> tuple[Message, ...]:
        """The question with as many pairs, and an analysis, as fit; `request` follows the question."""
        flags: dict[str, float] = {}

        def build(kept: Sequence[Record]) -> tuple[Message, ...]:
            nonlocal flags
            notes = "\n\n".join(part for part in (_listed(kept, negatives, ctx), analysis) if part)
            rendered = ctx.task.render(sample, (), notes, ctx.tokens)
            flags = rendered.flags
            *before, last = rendered.messages
            return (
                *before,
                Message(last.role, f"{last.content}\n\n{request}" if request else last.content),
            )

        messages = ctx.fit(build, docs, max_tokens)
        for name, amount in flags.items():
            ctx.flag(name, amount)
        return messages


def answer_of(text: str) -> str:
    """What follows the last answer tag; empty without one."""
    parts = _ANSWER.split(text)
    return parts[-1].strip() if len(parts) > 1 else ""


def _peer_text(doc: Record, pool: Pool | None, ctx: Context) -> str:
    """A drawn peer's record that is not the user's own label, with its stimulus where that is another; "" for none."""
    kind = kind_of(doc, ctx)
    unlike = (
        [peer for peer in pool.peers if not agree(doc, [peer], kind)] if pool is not None else []
    )
    if pool is None or not unlike:
        return ""
    record = ctx.rng("cicl", doc.id).choice(unlike).record
    return ctx.task.describe(
        msgspec.structs.replace(record, stimulus=None) if pool.tier != "T3" else record
    )


async def _draft(doc: Record, sample: Sample, ctx: Context) -> str:
    """The model's own response to the record's stimulus; "" where it is the user's or cannot be read."""
    for question in questions(doc, sample, ctx):
        messages = ctx.task.render(question, (), "", ctx.tokens).messages
        if ctx.excess(messages, ctx.answer_tokens + _MARGIN) <= 0:
            break
    draft = ctx.task.parse(await ctx.answer(question), question, "lenient")
    if draft is None:
        ctx.flag("draft_unreadable")
        return ""
    guess = Peer("", msgspec.structs.replace(doc, response=draft), 1.0)
    same = draft.split() == doc.response.split() or agree(doc, [guess], kind_of(doc, ctx))
    return "" if same or not draft.strip() else f"{ctx.task.words.response.capitalize()}: {draft}"


def _listed(docs: Sequence[Record], negatives: Mapping[str, str], ctx: Context) -> str:
    words = ctx.task.words
    parts = []
    for number, doc in enumerate(docs, 1):
        parts.append(f"Example {number}\n{ctx.task.describe(doc)}")
        if doc.id in negatives:
            parts[-1] += f"\nNot as this {words.person} would:\n{negatives[doc.id]}"
    if not parts:
        return ""
    head = f"Earlier {words.response}s by this {words.person}, with ones that are not as this {words.person} would:"
    return "\n\n".join([head, *parts])


def _analysis_prompt(listed: str, ctx: Context) -> tuple[Message, ...]:
    words = ctx.task.words
    system = (
        f"You compare what one {words.person} made with what this {words.person} would not have made. "
        f"Say in two or three sentences what distinguishes this {words.person}'s own across the examples."
    )
    return Message("system", system), Message("user", listed)
