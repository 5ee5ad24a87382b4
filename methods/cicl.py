"""Contrastive in-context examples: the user's responses beside ones the user would not give.

The contrast is a peer's response to the same or a comparable stimulus, or the model's own draft,
requested exactly as `none` requests its answer.  The model first describes the contrast, then
answers; only the answer is scored.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from personabench import Context, Message, PromptFile, Record, Sample
from personabench.methods.cipher.prompts import draft_questions
from personabench.methods.comparing import PeerMethod, find_response_kind
from personabench.methods.dpl.peers import Pool
from personabench.methods.dpl.selectors import Peer, all_agree
from personabench.methods.summary import PROMPTS as SUMMARY_PROMPTS

_ANSWER = re.compile(r"^(?:[^\S\n]|[*_#>-])*answer[\s*_]*:[\s*_]*", re.IGNORECASE | re.MULTILINE)
# Tokens left free around a draft's request, so that a chat template does not push it over the
# window.
_MARGIN = 128
PROMPTS = PromptFile(__file__, "cicl.prompts.toml")


class Cicl(PeerMethod):
    """Show preferred and non-preferred responses in pairs and answer from their contrast."""

    name = "cicl"
    paper = (
        "Customizing Language Model Responses with Contrastive In-Context Learning, arXiv "
        "2401.17390"
    )
    designed_for = ()
    needs = ("history", "population")
    prompts = (PROMPTS, SUMMARY_PROMPTS)

    @dataclass(frozen=True)
    class Params(PeerMethod.Params):
        """k: pairs shown; retriever, embedder, temporal_guard, population_max_users: as in
        `Comparing`.

        negatives: peer, a peer's response; draft, the model's own; auto, a peer's if the data names
            items or has no stimulus, else a draft.
        n_negatives: contrasts of a record, as far as there are so many peers; a draft is one.
        analyse: analyse the contrast before answering; without it, the pairs alone are shown.
        two_step: analyse in a separate call.
        show_pairs: show the pairs beside the analysis of a separate call.
        analysis_max_tokens: maximum tokens of the analysis.
        """

        negatives: Literal["auto", "peer", "draft"] = "auto"
        n_negatives: int = 1
        analyse: bool = True
        two_step: bool = False
        show_pairs: bool = True
        analysis_max_tokens: int = 256

        def __post_init__(self) -> None:
            if self.n_negatives < 1:
                raise ValueError(f"n_negatives must be at least 1, not {self.n_negatives}")
            if self.two_step and not self.analyse:
                raise ValueError("two_step is for the analysis, which analyse=false leaves out")
            if not self.show_pairs and not self.two_step:
                raise ValueError("show_pairs=false leaves the analysis alone: set two_step=true")

    def requirements(self) -> set[str]:
        requirements = super().requirements()
        if self.params.negatives == "draft":
            requirements -= {"population"}
        return requirements

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        p = self.params
        records = await ctx.retrieve(sample, p.k, p.retriever, embedder=p.embedder)
        negatives = await self._collect_negatives(sample, records, ctx)

        if not negatives:
            return await self.answer_by_summary(sample, ctx)

        ctx.flag("pairs", len(negatives))
        if len(negatives) < len(records):
            ctx.flag("positive_only", len(records) - len(negatives))

        if not p.analyse:
            return await self._answer(sample, records, negatives, "", ctx)
        if p.two_step:
            return await self._answer_in_two_steps(sample, records, negatives, ctx)
        return await self._answer_in_one_step(sample, records, negatives, ctx)

    async def _answer_in_two_steps(
        self,
        sample: Sample,
        records: Sequence[Record],
        negatives: Mapping[str, str],
        ctx: Context,
    ) -> str:
        max_tokens = self.params.analysis_max_tokens
        profiling = ctx.profiling()
        messages = profiling.fit(
            lambda fitted: profiling.prompt(
                PROMPTS, "analysis", pairs=_format_pairs(fitted, negatives, profiling)
            ),
            records,
            max_tokens,
        )
        response = await profiling.complete(messages, max_tokens=max_tokens)
        analysis = response.text.strip()
        if not analysis:
            ctx.flag("empty_analysis")

        shown = records if self.params.show_pairs else ()
        return await self._answer(sample, shown, negatives, analysis, ctx)

    async def _answer(
        self,
        sample: Sample,
        records: Sequence[Record],
        negatives: Mapping[str, str],
        analysis: str,
        ctx: Context,
    ) -> str:
        """Request the answer in the task's own form."""
        messages = self._build_request(
            sample,
            records,
            negatives,
            analysis=analysis,
            contract="",
            max_tokens=ctx.answer_tokens,
            ctx=ctx,
        )
        response = await ctx.complete(messages, max_tokens=ctx.answer_tokens)
        return response.text.strip()

    async def _answer_in_one_step(
        self,
        sample: Sample,
        records: Sequence[Record],
        negatives: Mapping[str, str],
        ctx: Context,
    ) -> str:
        """Request analysis and answer in one reply; retry once, then return the whole reply."""
        max_tokens = self.params.analysis_max_tokens + ctx.answer_tokens
        contract = ctx.part(PROMPTS, "request")

        reminders = ("", ctx.part(PROMPTS, "reminder"))
        for attempt, reminder in enumerate(reminders):
            messages = self._build_request(
                sample,
                records,
                negatives,
                analysis="",
                contract=contract + reminder,
                max_tokens=max_tokens,
                ctx=ctx,
            )
            response = await ctx.complete(
                messages, max_tokens=max_tokens, attempt=attempt, attempts=len(reminders)
            )
            text = response.text.strip()
            answer = read_answer(text)
            if answer:
                return answer
            ctx.flag("answer_missing" if reminder else "answer_retried")
        return text

    async def _collect_negatives(
        self,
        sample: Sample,
        records: Sequence[Record],
        ctx: Context,
    ) -> dict[str, str]:
        """Map record ids to a comparable but different response; leave out records without one."""
        peer_records = [record for record in records if self._uses_peer(record)]
        pools = await self.find_pools(sample, peer_records, ctx)
        negatives = {
            record.id: _peer_text(record, pool, self.params.n_negatives, ctx)
            for record, pool in zip(peer_records, pools, strict=True)
        }

        draft_records = [
            record
            for record in records
            if record.id not in negatives and record.stimulus is not None
        ]
        drafts = await asyncio.gather(
            *(_write_draft(record, sample, ctx.shared()) for record in draft_records)
        )
        for record, draft in zip(draft_records, drafts, strict=True):
            negatives[record.id] = draft

        return {record_id: text for record_id, text in negatives.items() if text}

    def _uses_peer(self, record: Record) -> bool:
        negatives: str = self.params.negatives
        if negatives == "auto":
            return record.stimulus is None or record.item is not None
        return negatives == "peer"

    def _build_request(
        self,
        sample: Sample,
        records: Sequence[Record],
        negatives: Mapping[str, str],
        *,
        analysis: str,
        contract: str,
        max_tokens: int,
        ctx: Context,
    ) -> tuple[Message, ...]:
        """The question with an analysis and as many pairs as fit, and the form of the reply."""
        flags: dict[str, float] = {}

        def build(fitted: Sequence[Record]) -> tuple[Message, ...]:
            nonlocal flags
            parts = (_format_pairs(fitted, negatives, ctx), analysis)
            content = "\n\n".join(part for part in parts if part)
            notes = ctx.part(PROMPTS, "notes", content=content) if content else ""
            rendered = ctx.word(sample, notes=notes, contract=contract)
            flags = rendered.flags
            return rendered.messages

        messages = ctx.fit(build, records, max_tokens)
        # Only the rendering that was sent counts, not the longer ones that did not fit.
        for name, amount in flags.items():
            ctx.flag(name, amount)
        return messages


def read_answer(text: str) -> str:
    """The text after the last answer tag; empty without one."""
    parts = _ANSWER.split(text)
    return parts[-1].strip() if len(parts) > 1 else ""


def _peer_text(record: Record, pool: Pool | None, count: int, ctx: Context) -> str:
    """Random peers' records whose labels differ from the user's; "" if there are none."""
    if pool is None:
        return ""

    kind = find_response_kind(record, ctx)
    candidates = [peer for peer in pool.peers if not all_agree(record, [peer], kind)]
    if not candidates:
        return ""

    rng = ctx.rng("cicl", record.id)
    chosen = [rng.choice(candidates)]
    rest = [peer for peer in candidates if peer is not chosen[0]]
    chosen += rng.sample(rest, min(count - 1, len(rest)))

    peer_records = [peer.record for peer in chosen]
    # In the closer tiers both responses share a stimulus, which the user's record shows already.
    if pool.tier != "T3":
        peer_records = [msgspec.structs.replace(one, stimulus=None) for one in peer_records]
    return "\n".join(map(ctx.task.describe, peer_records))


async def _write_draft(record: Record, sample: Sample, ctx: Context) -> str:
    """The model's own response to the stimulus; "" if it is the user's or cannot be parsed."""
    for question in draft_questions(record, sample, ctx):
        messages = ctx.task.render(question, (), "", ctx.tokens).messages
        if ctx.count_excess_tokens(messages, ctx.answer_tokens + _MARGIN) <= 0:
            break

    output = await ctx.answer(question)
    draft = ctx.task.parse(output, question, "lenient")
    if draft is None:
        ctx.flag("draft_unreadable")
        return ""

    drafted_record = msgspec.structs.replace(record, response=draft)
    same_label = all_agree(record, [Peer("", drafted_record, 1.0)], find_response_kind(record, ctx))
    same_text = draft.split() == record.response.split()
    if same_label or same_text or not draft.strip():
        return ""
    return f"{ctx.task.words.response.capitalize()}: {draft}"


def _format_pairs(
    records: Sequence[Record],
    negatives: Mapping[str, str],
    ctx: Context,
) -> str:
    if not records:
        return ""

    examples = []
    for number, record in enumerate(records, 1):
        described = ctx.task.describe(record)
        if record.id in negatives:
            example = ctx.part(
                PROMPTS,
                "example",
                number=str(number),
                record=described,
                negative=negatives[record.id],
            )
        else:
            example = ctx.part(PROMPTS, "positive_example", number=str(number), record=described)
        examples.append(example)
    return ctx.part(PROMPTS, "pairs", examples="\n\n".join(examples))
