"""Base class of the baselines that compare users, with pools and guards as in `dpl`.

A method that needs, for some of the user's records, a peer's response to the same or a comparable
stimulus builds on `Comparing` and calls `pools`.  If nothing can be compared, `summary` answers
instead, flagged `fallback`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from personabench import Context, Method, Population, Record, Sample, User
from personabench.api.method import retrieval_needs
from personabench.api.wording import ResponseKind
from personabench.methods.dpl.peers import Peers, Pool, index_users
from personabench.methods.dpl.settings import Settings
from personabench.methods.summary import Summary

# Of the draws among peers that compare equally well, as in `dpl`.
SEED = Settings.seed


class PeerMethod(Method):
    """A method that compares the user's records with those of peers."""

    needs = ("history", "population")
    uses_profiler = True

    @dataclass(frozen=True)
    class Params:
        """k: records retrieved; retriever, embedder: as in `rag`, the embedder also for similarity
        of stimuli.

        temporal_guard: leave out peers' records that are newer than the question.
        population_max_users: size of a seeded sample of a larger population; 0 for all users.
        """

        k: int = 8
        retriever: str = "bm25"
        embedder: str = "wordllama"
        temporal_guard: bool = False
        population_max_users: int = 2000

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        p = self.params
        summary_params = Summary.Params(
            k=p.k,
            retriever=p.retriever,
            embedder=p.embedder,
        )
        self.summary = Summary(summary_params)
        self.population: Population | None = None
        self._users: Sequence[User] = ()
        self._kind: ResponseKind = "text"

    def requirements(self) -> set[str]:
        requirements = super().requirements() | retrieval_needs(self.params.retriever)
        if self.params.temporal_guard:
            requirements |= {"dates"}
        return requirements

    async def prepare(self, population: Population, ctx: Context) -> None:
        """Select the users to compare with; they are indexed on first use."""
        self._users = limit_users(population, self.params.population_max_users, ctx)
        self._kind = ctx.task.kind
        self._tokenizer = ctx.task.tokenizer
        self.population = population

    # An index of a large population takes seconds, and a run whose answers are all stored needs
    # none.
    @cached_property
    def _peers(self) -> Peers:
        settings = Settings(
            seed=SEED,
            embedder=self.params.embedder,
            temporal_guard=self.params.temporal_guard,
        )
        assert self.population is not None
        return index_users(self.population, self._users, settings, self._kind, self._tokenizer)

    async def find_pools(
        self,
        sample: Sample,
        records: Sequence[Record],
        ctx: Context,
    ) -> list[Pool | None]:
        """The peers comparable with the user on each record, per question; None without any."""
        if self.population is None or not records:
            return [None] * len(records)

        embed = partial(ctx.embed, embedder=self.params.embedder)
        text = sample.stimulus or ctx.task.query_text(sample)
        user_ids = self.population.non_peers(sample)
        question = await self._peers.describe_question(user_ids, sample, text, embed)
        return await asyncio.gather(
            *(self._peers.find_pool(record, question, embed) for record in records)
        )

    async def answer_by_summary(self, sample: Sample, ctx: Context) -> str:
        """Answer as `summary` does, flagged."""
        ctx.flag("fallback")
        profile = await self.summary.profile(sample.user, ctx.shared().profiling())
        return await self.summary.predict(sample, profile, ctx)


def limit_users(population: Population, limit: int, ctx: Context) -> Sequence[User]:
    """All users of a population, or `limit` of them, drawn by the run's seed alone."""
    users = population.users
    if 0 < limit < len(users):
        # Sorting first makes the draw independent of the order of the data files.
        ordered = sorted(users, key=lambda user: user.id)
        users = ctx.rng("population").sample(ordered, limit)
    ctx.log(f"{len(users)} of {len(population.users)} users of {population.hash[:12]}")
    return users


def find_response_kind(record: Record, ctx: Context) -> ResponseKind:
    """How a record's response is compared with others."""
    # Without a stimulus the response is free text even in a task whose answers are labels.
    return "text" if record.stimulus is None else ctx.task.kind
