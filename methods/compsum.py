"""Comparative profiles at the price of one call: own records beside other people's on the same topic.

For the first few of the retrieved records the nearest record of another author is found; one call says what the pairs
show of the user's style and focus, and the answer is given with that analysis.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from personabench import Context, Message, Record, Sample
from personabench.methods.comparing import Comparing

SECTIONS = ("Writing style", "Content focus")
REMINDER = "Both sections must be there, each on a line that begins with its name."
Pair = tuple[Record, Record]


class ComPSum(Comparing):
    """Say in one call what sets the user's records apart from another author's on each topic; answer with it."""

    name = "compsum"
    paper = "Comparative Personalization for Multi-document Summarization, arXiv 2509.21562"
    designed_for = ()
    needs = ("history", "population")

    @dataclass(frozen=True)
    class Params(Comparing.Params):
        """n_pairs: retrieved records compared; analysis_max_tokens: allowance of the analysis.

        k, retriever, embedder, temporal_guard, population_max_users: as `Comparing`.
        """

        n_pairs: int = 4
        analysis_max_tokens: int = 512

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        p = self.params
        records = await ctx.retrieve(sample, p.k, p.retriever, embedder=p.embedder)
        pools = await self.pools(sample, records, ctx)
        pairs = [
            (record, max(pool.peers, key=lambda peer: peer.similarity).record)
            for record, pool in zip(records, pools, strict=True)
            if pool is not None
        ][: p.n_pairs]
        if not pairs:
            return await self.fallback(sample, ctx)
        ctx.flag("pairs", len(pairs))
        return await ctx.answer(sample, records, notes=await self._analysis(pairs, ctx))

    async def _analysis(self, pairs: Sequence[Pair], ctx: Context) -> str:
        """The two sections; asked again once when one is missing, then flagged and taken as it is."""
        others = {own.id: other for own, other in pairs}
        for reminder in ("", REMINDER):

            def build(kept: Sequence[Record], reminder: str = reminder) -> tuple[Message, ...]:
                return _prompt([(own, others[own.id]) for own in kept], reminder, ctx)

            messages = ctx.fit(build, [own for own, _ in pairs], self.params.analysis_max_tokens)
            text = (
                await ctx.complete(messages, max_tokens=self.params.analysis_max_tokens)
            ).text.strip()
            if complete(text):
                return text
            ctx.flag("analysis_incomplete" if reminder else "analysis_retried")
        return text


def complete(analysis: str) -> bool:
    """Whether both sections are there, each with something in it."""
    heads = "|".join(SECTIONS)
    parts = re.split(rf"(?im)^[\s*_#>\d.-]*({heads})[\s*_]*(?::|$)[\s*_]*", analysis)
    found = {
        name.capitalize()
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
        if body.strip()
    }
    return found == set(SECTIONS)


def _prompt(pairs: Sequence[Pair], reminder: str, ctx: Context) -> tuple[Message, ...]:
    words = ctx.task.words
    system = (
        f"You find out what sets one {words.person} apart. You get pairs: a record of this {words.person} and one of "
        "somebody else on the same topic. Reply with two sections that hold across the pairs, each one or two "
        f"sentences long:\n{SECTIONS[0]}: how this {words.person} puts things, unlike the others.\n"
        f"{SECTIONS[1]}: what this {words.person} attends to, unlike the others."
    )
    if reminder:
        system += f"\n{reminder}"
    shown = [
        f"Pair {number}\nThis {words.person}:\n{ctx.task.describe(own)}\nSomebody else:\n{ctx.task.describe(other)}"
        for number, (own, other) in enumerate(pairs, 1)
    ]
    return Message("system", system), Message("user", "\n\n".join(shown))
