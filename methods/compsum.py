"""Comparative profiles in one call: the user's records beside peers' on the same topic.

For the first few retrieved records the most similar record of another author is looked up; one call
describes the user's style and focus in the pairs, and the answer is given with that
analysis.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from personabench import Context, Message, PromptFile, Record, Sample
from personabench.methods.comparing import SEED, PeerMethod
from personabench.methods.dpl.peers import Pool
from personabench.methods.dpl.selectors import Peer, draw_rank
from personabench.methods.summary import PROMPTS as SUMMARY_PROMPTS

SECTIONS = ("Writing style", "Content focus")
PROMPTS = PromptFile(__file__, "compsum.prompts.toml")
Pair = tuple[Record, Record]


class ComPSum(PeerMethod):
    """Describe how the user's records differ from peers' on each topic; answer with that."""

    name = "compsum"
    paper = "Comparative Personalization for Multi-document Summarization, arXiv 2509.21562"
    designed_for = ()
    needs = ("history", "population")
    prompts = (PROMPTS, SUMMARY_PROMPTS)

    @dataclass(frozen=True)
    class Params(PeerMethod.Params):
        """n_pairs: retrieved records compared; analysis_max_tokens: maximum tokens of the analysis.

        partner: the peer of a record: nearest by stimulus, farthest or random.
        n_partners: peers of each record, as far as there are so many.
        k, retriever, embedder, temporal_guard, population_max_users: as in `Comparing`.
        """

        n_pairs: int = 4
        partner: Literal["nearest", "farthest", "random"] = "nearest"
        n_partners: int = 1
        analysis_max_tokens: int = 512

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        p = self.params
        records = await ctx.retrieve(sample, p.k, p.retriever, embedder=p.embedder)
        pools = await self.find_pools(sample, records, ctx)

        # Records that no peer can be compared on are skipped before the limit, so later ones take
        # their place.
        compared = [
            (record, pool) for record, pool in zip(records, pools, strict=True) if pool is not None
        ]
        pairs = [
            (record, peer.record)
            for record, pool in compared[: p.n_pairs]
            for peer in self._select_partners(record, pool)
        ]
        if not pairs:
            return await self.answer_by_summary(sample, ctx)

        ctx.flag("pairs", len(pairs))
        analysis = await self._analyse(pairs, ctx.profiling())
        notes = ctx.part(PROMPTS, "notes", analysis=analysis) if analysis else ""
        return await ctx.answer(sample, records, notes=notes)

    def _select_partners(self, record: Record, pool: Pool) -> list[Peer]:
        """The peers that a record is compared with; drawn ones of equals."""
        sign = {"nearest": -1, "farthest": 1, "random": 0}[self.params.partner]

        def rank(peer: Peer) -> tuple[float, bytes]:
            return sign * peer.similarity, draw_rank(SEED, record, peer.user_id)

        return sorted(pool.peers, key=rank)[: self.params.n_partners]

    async def _analyse(self, pairs: Sequence[Pair], ctx: Context) -> str:
        """Request the two sections; retry once if one is missing, then use the reply as it is."""
        max_tokens = self.params.analysis_max_tokens
        peer_records: dict[str, list[Record]] = {}
        for record, peer_record in pairs:
            peer_records.setdefault(record.id, []).append(peer_record)
        own_records = list({record.id: record for record, _ in pairs}.values())

        reminders = ("", ctx.part(PROMPTS, "reminder"))
        for attempt, reminder in enumerate(reminders):

            def build(fitted: Sequence[Record], reminder: str = reminder) -> tuple[Message, ...]:
                pairs_shown = [
                    (record, peer_record)
                    for record in fitted
                    for peer_record in peer_records[record.id]
                ]
                return _analysis_prompt(pairs_shown, reminder, ctx)

            messages = ctx.fit(build, own_records, max_tokens)
            response = await ctx.complete(
                messages, max_tokens=max_tokens, attempt=attempt, attempts=len(reminders)
            )
            analysis = response.text.strip()
            if is_complete(analysis):
                return analysis
            ctx.flag("analysis_incomplete" if reminder else "analysis_retried")
        return analysis


def is_complete(analysis: str) -> bool:
    """Whether both sections are present and not empty."""
    names = "|".join(SECTIONS)
    # Models decorate headings (bold, numbered, Markdown), so a heading is the name alone on a line
    # or with a colon.
    prefix = r"(?:[^\S\n]|[*_#>\d.-])*"
    parts = re.split(rf"(?im)^{prefix}({names})[\s*_]*(?::|$)[\s*_]*", analysis)
    sections = {
        name.capitalize()
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
        if body.strip(" \t\r\n*_#>-")
    }
    return sections == set(SECTIONS)


def _analysis_prompt(
    pairs: Sequence[Pair],
    reminder: str,
    ctx: Context,
) -> tuple[Message, ...]:
    examples = [
        ctx.part(
            PROMPTS,
            "pair",
            number=str(number),
            record=ctx.task.describe(record),
            peer_record=ctx.task.describe(peer_record),
        )
        for number, (record, peer_record) in enumerate(pairs, 1)
    ]
    return ctx.prompt(PROMPTS, "analysis", pairs="\n\n".join(examples), reminder=reminder)
