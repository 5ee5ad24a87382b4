"""Difference-aware personalization: what is particular about a user, seen against others who met the same thing.

For some of the user's records the model states how the user's response differs from those of a few representative
other people; the differences are condensed into a profile, and the answer is given with the profile and the k nearest
records, as every other method shows them.  Who the others are is in `peers`, which of them are shown in `selectors`,
the wording in `prompts`, the two presets in `settings`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

from personabench import Context, Method, Population, Record, Response, Sample
from personabench.api.method import retrieval_needs
from personabench.api.wording import ResponseKind
from personabench.methods.dpl.peers import Asker, Peers
from personabench.methods.dpl.prompts import (
    Case,
    agreement,
    difference_drafts,
    fitting,
    profile_drafts,
    untagged,
)
from personabench.methods.dpl.selectors import Peer, agree, mean_similarity, select
from personabench.methods.dpl.settings import resolve
from personabench.methods.summary import Summary

REMEMBERED = 4096


class Dpl(Method):
    """Compare the user with people who responded to the same, and answer from what sets the user apart."""

    name = "dpl"
    paper = "Measuring What Makes You Unique: Difference-Aware User Modeling, arXiv 2503.02450"
    designed_for = ("reviews*",)
    needs = ("history", "population")

    @dataclass(frozen=True)
    class Params:
        """preset: lamp (any task) or faithful (the paper's review setting); what is not given is the preset's.

        n_docs: records compared, and records shown with the question; k_peers: people shown in a comparison.
        min_peers: people a comparison must have to choose from; 0 means k_peers.
        selector: auto (by the kind of response), kmeans_closest, kmeans_random, random, least_similar, most_similar.
        n_init, seed: of K-means and of random selection.
        retriever: bm25, dense, recency, random or recency+dense; embedder: of dense retrieval and of comparisons.
        tiers: which comparisons are tried, in order: T1 same item, T2 same stimulus, T3 near stimulus, user.
        max_pool: people to choose from at most, 0 for no bound; tau: least similarity in T3.
        dup_max: similarity to the question from which a peer's record is left out; 0 compares items only.
        temporal_guard: leave out peers' records that are newer than the question.
        difference_max_tokens, profile_max_tokens: allowances of the two intermediate calls.
        population_max_users: a seeded draw of people when there are more; 0 for all.
        """

        preset: str = "lamp"
        n_docs: int | None = None
        k_peers: int | None = None
        min_peers: int | None = None
        selector: str | None = None
        n_init: int | None = None
        seed: int | None = None
        retriever: str | None = None
        embedder: str | None = None
        tiers: str | None = None
        max_pool: int | None = None
        tau: float | None = None
        dup_max: float | None = None
        temporal_guard: bool | None = None
        difference_max_tokens: int | None = None
        profile_max_tokens: int | None = None
        population_max_users: int | None = None

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        given = asdict(self.params)
        self.settings = s = resolve(given.pop("preset"), given)
        self.summary = Summary(
            Summary.Params(
                k=s.n_docs,
                retriever=s.retriever,
                embedder=s.embedder,
                summary_max_tokens=s.profile_max_tokens,
            )
        )
        self.population: Population | None = None
        self.chosen: OrderedDict[tuple[object, ...], tuple[Peer, ...]] = OrderedDict()

    def requirements(self) -> set[str]:
        dates = {"dates"} if self.settings.temporal_guard else set()
        return super().requirements() | retrieval_needs(self.settings.retriever) | dates

    async def prepare(self, population: Population, ctx: Context) -> None:
        """Index everybody's records, or those of a seeded draw of people."""
        users, bound = population.users, self.settings.population_max_users
        if 0 < bound < len(users):
            users = ctx.rng("dpl population").sample(sorted(users, key=lambda user: user.id), bound)
        self.peers = Peers(users, self.settings, ctx.task.kind)
        if "user" in self.settings.tiers:
            await self.peers.cluster(partial(ctx.embed, embedder=self.settings.embedder))
        self.population = population
        guard = (
            "only older than the question"
            if self.settings.temporal_guard
            else "of any time (transductive)"
        )
        ctx.log(
            f"{len(users)} of {len(population.users)} people of {population.hash[:12]}, their records {guard}"
        )

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        found = await self._cases(sample, ctx)
        cases = [
            case
            for case in await asyncio.gather(*(self._told(case, ctx) for case in found))
            if case.difference
        ]
        self._count(cases, len(found), ctx)
        if not cases:
            return await self._fallback(sample, ctx)
        s = self.settings
        records = await ctx.retrieve(sample, s.n_docs, s.retriever, embedder=s.embedder)
        messages = fitting(profile_drafts(cases, records, ctx), s.profile_max_tokens, ctx)
        if messages is None:
            return await self._fallback(sample, ctx)
        notes, tagged = untagged(
            self._said(await ctx.complete(messages, max_tokens=s.profile_max_tokens), ctx)
        )
        if tagged:
            ctx.flag("tag_stripped")
        if not notes:
            ctx.flag("empty_notes")
        prompt = ctx.render(sample, records, notes=notes)
        return self._said(await ctx.complete(prompt, max_tokens=ctx.answer_tokens), ctx).strip()

    def _said(self, reply: Response, ctx: Context) -> str:
        """What of a reply counts."""
        return reply.text

    async def _cases(self, sample: Sample, ctx: Context) -> list[Case]:
        """The best `n_docs` records that somebody can be compared on, best first."""
        if self.population is None:
            return []
        s = self.settings
        text = sample.stimulus or ctx.task.query_text(sample)
        embed = partial(ctx.embed, embedder=s.embedder)
        asker = await self.peers.asker(self.population.people_of(sample), sample, text, embed)
        eligible = [doc for doc in sample.history if self.peers.possible(doc, asker)]
        if not eligible:
            return []
        ranked = await ctx.retrieve(
            sample, len(eligible), s.retriever, records=eligible, embedder=s.embedder
        )
        cases: list[Case] = []
        while ranked and len(cases) < s.n_docs:
            batch, ranked = ranked[: s.n_docs - len(cases)], ranked[s.n_docs - len(cases) :]
            found = await asyncio.gather(*(self._case(doc, asker, ctx) for doc in batch))
            cases += [case for case in found if case is not None]
        return cases

    async def _case(self, doc: Record, asker: Asker, ctx: Context) -> Case | None:
        embed = partial(ctx.embed, embedder=self.settings.embedder)
        kind: ResponseKind = "text" if doc.stimulus is None else ctx.task.kind
        pool = await self.peers.pool(doc, asker, embed)
        if pool is None:
            return None
        if agree(doc, pool.peers, kind):
            return Case(doc, pool.tier, (), mean_similarity(pool.peers), agreeing=len(pool.peers))
        key = (doc.id, doc.response, *((peer.person, peer.record.id) for peer in pool.peers))
        chosen = self.chosen.get(key)
        if chosen is None:
            chosen = await select(doc, pool.peers, kind, self.settings, embed)
            self.chosen[key] = chosen
            if len(self.chosen) > REMEMBERED:
                self.chosen.popitem(last=False)
        return Case(doc, pool.tier, chosen, mean_similarity(chosen)) if chosen else None

    async def _told(self, case: Case, ctx: Context) -> Case:
        """The case with its difference; an empty one where the model said nothing or could not be asked."""
        if case.agreeing:
            return case._replace(difference=agreement(case, ctx))
        allowance = self.settings.difference_max_tokens
        messages = fitting(difference_drafts(case, ctx), allowance, ctx)
        if messages is None:
            return case
        return case._replace(
            difference=(await ctx.complete(messages, max_tokens=allowance)).text.strip()
        )

    async def _fallback(self, sample: Sample, ctx: Context) -> str:
        ctx.flag("fallback")
        return await self.summary.predict(sample, await self.summary.profile(sample.user, ctx), ctx)

    def _count(self, cases: Sequence[Case], found: int, ctx: Context) -> None:
        ctx.flag("n_eff", len(cases))
        if found > len(cases):
            ctx.flag("failed_docs", found - len(cases))
        for case in cases:
            ctx.flag(f"tier_{case.tier.removeprefix('T')}")
            ctx.flag("k_eff", len(case.peers))
            if case.agreeing:
                ctx.flag("agreement_lines")
            if case.tier == "T3":
                ctx.flag("t3_similarity", case.similarity)
