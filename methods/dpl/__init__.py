"""Difference-aware personalization: a user's particularities, compared with peers.

For some of the user's records the model describes how the user's response differs from those of
a few representative peers who responded to the same or something comparable; the differences are
condensed into a profile, and the answer is given with the profile and the k nearest records, as
every other method shows them.  Peers are found in `peers` and selected in `selectors`; the wording
is in `prompts`, the two presets in `settings`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar

from personabench import Context, Method, Population, PromptFile, Record, Response, Sample
from personabench.api.method import retrieval_needs
from personabench.api.wording import ResponseKind
from personabench.methods.dpl.peers import Peers, Pool, Question, index_users
from personabench.methods.dpl.prompts import (
    PROMPTS,
    Case,
    choose_axes,
    describe_agreement,
    draft_differences,
    draft_profiles,
    fit_draft,
    format_cases,
    format_notes,
    strip_tag,
)
from personabench.methods.dpl.selectors import Embed, Peer, all_agree, mean_similarity, select_peers
from personabench.methods.dpl.settings import PAPER, resolve
from personabench.methods.summary import PROMPTS as SUMMARY_PROMPTS
from personabench.methods.summary import Summary

# Selections kept in memory: a user's later questions compare the same records with the same peers.
REMEMBERED = 4096


class Dpl(Method):
    """Compare the user with peers who responded to the same, and answer from the differences."""

    name = "dpl"
    paper = "Measuring What Makes You Unique: Difference-Aware User Modeling, arXiv 2503.02450"
    designed_for = ("reviews*",)
    needs = ("history", "population")
    uses_profiler = True
    paper_settings = {**PAPER, "temperature": 0.8, "top_p": 0.95, "max_tokens": 2048}
    prompts: ClassVar[Sequence[PromptFile]] = (PROMPTS, SUMMARY_PROMPTS)

    @dataclass(frozen=True)
    class Params:
        """preset: adapted (any task) or faithful (the paper's review setting), for unset values.

        n_docs: records compared (block B); n_shown: records shown (block A); 0 means n_docs.
        num_documents: newest records of the history that are used at all; 0 for all.
        order: of block A in the request for the profile: best_first, best_last or oldest_first; the
            task's option `order` is that of the answer's request.
        axes: all, or names of the task's axes to compare on, such as Writing,Emotion.
        free_form: compare without axes; summarize: condense the differences into a profile, else
            they are shown themselves.
        k_peers: peers shown in a comparison.
        min_peers: peers a comparison must have to choose from; 0 means k_peers.
        selector: auto (by the kind of response), kmeans_closest, kmeans_random, random,
            least_similar, most_similar.
        n_init, seed: of K-means and of random selection.
        retriever: bm25, dense, recency, random or recency+dense.
        embedder: of dense retrieval and of comparisons.
        tiers: comparisons to try, in order: T1 same item, T2 same stimulus, T3 near stimulus, user.
        max_pool: peers to choose from at most, 0 for no limit; tau: minimum similarity in T3.
        dup_max: similarity to the question from which a peer's record is left out; 0 compares
            items only.
        temporal_guard: leave out peers' records that are newer than the question.
        difference_max_tokens, profile_max_tokens: maximum tokens of the two intermediate calls.
        population_max_users: size of a seeded sample of a larger population; 0 for all users.
        """

        preset: str = "adapted"
        n_docs: int | None = None
        n_shown: int | None = None
        num_documents: int | None = None
        order: str | None = None
        axes: str | None = None
        free_form: bool | None = None
        summarize: bool | None = None
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
        overrides = asdict(self.params)
        preset = overrides.pop("preset")
        self.settings = resolve(preset, overrides)
        self.summary = Summary(
            Summary.Params(
                k=self.settings.n_shown,
                retriever=self.settings.retriever,
                embedder=self.settings.embedder,
                summary_max_tokens=self.settings.profile_max_tokens,
            )
        )
        self.population: Population | None = None
        self.selections: OrderedDict[tuple[object, ...], tuple[Peer, ...]] = OrderedDict()

    def requirements(self) -> set[str]:
        requirements = super().requirements() | retrieval_needs(self.settings.retriever)
        if self.settings.temporal_guard:
            requirements |= {"dates"}
        return requirements

    def resolved_params(self) -> Mapping[str, Any]:
        return {**asdict(self.params), **asdict(self.settings)}

    async def prepare(self, population: Population, ctx: Context) -> None:
        """Index the records of all users, or of a seeded sample of them.

        Raises:
            UsageError: the task lacks an axis of the parameter `axes`.
        """
        choose_axes(self.settings.axes, ctx)
        users = population.users
        limit = self.settings.population_max_users
        if 0 < limit < len(users):
            # Sorting first makes the sample independent of the order of the data files.
            ordered = sorted(users, key=lambda user: user.id)
            users = ctx.rng("dpl population").sample(ordered, limit)

        kind, tokenizer = ctx.task.kind, ctx.task.tokenizer
        if "user" in self.settings.tiers:
            # Not shared, since its clusters depend on the embedder, in whose place a dry run has
            # filler.
            self.peers = Peers(users, self.settings, kind, tokenizer)
            await self.peers.cluster_users(self._embed_with(ctx))
        else:
            self.peers = index_users(population, users, self.settings, kind, tokenizer)
        self.population = population

        guard = "of any time (transductive)"
        if self.settings.temporal_guard:
            guard = "only older than the question"
        ctx.log(
            f"{len(users)} of {len(population.users)} users of {population.hash[:12]}, "
            f"their records {guard}"
        )

    def _embed_with(self, ctx: Context) -> Embed:
        return partial(ctx.embed, embedder=self.settings.embedder)

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        comparable, records = await self._find_cases(sample, ctx)
        described = await asyncio.gather(
            *(self._describe_difference(case, ctx.shared().profiling()) for case in comparable)
        )
        cases = [case for case in described if case.difference]
        self._flag_cases(cases, len(comparable), ctx)
        if not cases:
            return await self._fall_back(sample, ctx)

        s = self.settings
        if not s.summarize:
            return await self._answer_from_differences(sample, cases, records, ctx)

        summarizer = self.choose_summarizer(ctx)
        drafts = draft_profiles(cases, records, s.order, summarizer)
        messages = fit_draft(drafts, s.profile_max_tokens, summarizer)
        if messages is None:
            return await self._fall_back(sample, ctx)

        response = await summarizer.complete(messages, max_tokens=s.profile_max_tokens)
        profile, tagged = strip_tag(self._read_answer(response, summarizer))
        if tagged:
            ctx.flag("tag_stripped")
        if not profile:
            ctx.flag("empty_notes")
        prompt = ctx.render(sample, records, notes=format_notes(profile, ctx))
        response = await ctx.complete(prompt, max_tokens=ctx.answer_tokens)
        return self._read_answer(response, ctx).strip()

    async def _answer_from_differences(
        self,
        sample: Sample,
        cases: Sequence[Case],
        records: Sequence[Record],
        ctx: Context,
    ) -> str:
        """The answer with the differences themselves in place of a profile."""
        notes = format_notes(format_cases(cases, None, ctx), ctx)
        prompt = ctx.render(sample, records, notes=notes)
        response = await ctx.complete(prompt, max_tokens=ctx.answer_tokens)
        return self._read_answer(response, ctx).strip()

    def _select_documents(self, sample: Sample) -> Sequence[Record]:
        """The records of the history that are used at all."""
        return sample.history[-self.settings.num_documents :]

    def choose_summarizer(self, ctx: Context) -> Context:
        """The context of the model that condenses differences into a profile."""
        return ctx.profiling()

    def _read_answer(self, response: Response, ctx: Context) -> str:
        """The part of a response that counts; subclasses may demand a thought before it."""
        return response.text

    async def _find_cases(
        self, sample: Sample, ctx: Context
    ) -> tuple[list[Case], Sequence[Record]]:
        """The best `n_docs` records that the user can be compared on, and the `n_shown` nearest
        ones, best first."""
        if self.population is None:
            return [], ()

        s = self.settings
        text = sample.stimulus or ctx.task.query_text(sample)
        user_ids = self.population.non_peers(sample)
        question = await self.peers.describe_question(user_ids, sample, text, self._embed_with(ctx))
        documents = self._select_documents(sample)
        eligible = [record for record in documents if self.peers.may_have_pool(record, question)]
        if not eligible:
            return [], ()

        # Mostly the same records, searched one after the other so that they are indexed once.
        retrieve = partial(ctx.retrieve, sample, by=s.retriever, embedder=s.embedder)
        ranked = await retrieve(k=len(eligible), records=eligible)
        shown = await retrieve(k=s.n_shown, records=documents)
        # Only a search shows whether a record has a pool, so the next best ones fill the gaps.
        cases: list[Case] = []
        while ranked and len(cases) < s.n_docs:
            size = s.n_docs - len(cases)
            batch, ranked = ranked[:size], ranked[size:]
            results = await asyncio.gather(
                *(self._make_case(record, question, ctx) for record in batch)
            )
            cases += [case for case in results if case is not None]
        return cases, shown

    async def _make_case(
        self,
        record: Record,
        question: Question,
        ctx: Context,
    ) -> Case | None:
        """The record with its peers; None if no tier has enough peers, or none to show."""
        kind: ResponseKind = "text" if record.stimulus is None else ctx.task.kind
        pool = await self.peers.find_pool(record, question, self._embed_with(ctx))
        if pool is None:
            return None

        if all_agree(record, pool.peers, kind):
            similarity = mean_similarity(pool.peers)
            return Case(
                record,
                pool.tier,
                (),
                similarity,
                agreeing=len(pool.peers),
            )

        peers = await self._select_peers(record, pool, kind, ctx)
        if not peers:
            return None
        return Case(record, pool.tier, peers, mean_similarity(peers))

    async def _select_peers(
        self,
        record: Record,
        pool: Pool,
        kind: ResponseKind,
        ctx: Context,
    ) -> tuple[Peer, ...]:
        pool_ids = ((peer.user_id, peer.record.id) for peer in pool.peers)
        key = (record.id, record.response, *pool_ids)
        peers = self.selections.get(key)
        if peers is None:
            peers = await select_peers(
                record, pool.peers, kind, self.settings, self._embed_with(ctx)
            )
            self.selections[key] = peers
            if len(self.selections) > REMEMBERED:
                self.selections.popitem(last=False)
        return peers

    async def _describe_difference(self, case: Case, ctx: Context) -> Case:
        """The case with its difference; an empty one if the reply is, or no request fits."""
        if case.agreeing:
            return case._replace(difference=describe_agreement(case, ctx))

        max_tokens = self.settings.difference_max_tokens
        messages = fit_draft(draft_differences(case, self.settings, ctx), max_tokens, ctx)
        if messages is None:
            return case
        response = await ctx.complete(messages, max_tokens=max_tokens)
        return case._replace(difference=response.text.strip())

    async def _fall_back(self, sample: Sample, ctx: Context) -> str:
        ctx.flag("fallback")
        profile = await self.summary.profile(sample.user, ctx.shared().profiling())
        return await self.summary.predict(sample, profile, ctx)

    def _flag_cases(
        self,
        cases: Sequence[Case],
        comparable: int,
        ctx: Context,
    ) -> None:
        ctx.flag("n_eff", len(cases))
        if comparable > len(cases):
            ctx.flag("failed_docs", comparable - len(cases))
        for case in cases:
            ctx.flag(f"tier_{case.tier.removeprefix('T')}")
            ctx.flag("k_eff", len(case.peers))
            if case.agreeing:
                ctx.flag("agreement_lines")
            if case.tier == "T3":
                ctx.flag("t3_similarity", case.similarity)
