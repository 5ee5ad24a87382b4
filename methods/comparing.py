"""What the baselines that look at other people share with `dpl`: the same pools, the same guards, the same fallback.

A method that needs for some of the user's records what somebody else made of the same or a comparable stimulus builds
on `Comparing` and asks `pools`.  What cannot be compared is handed to `summary`, flagged `fallback`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from personabench import Context, Method, Population, Record, Sample, User
from personabench.api.method import retrieval_needs
from personabench.api.wording import ResponseKind
from personabench.methods.dpl.peers import Peers, Pool
from personabench.methods.dpl.settings import Settings
from personabench.methods.summary import Summary


class Comparing(Method):
    """A method that compares the user's records with other people's."""

    needs = ("history", "population")

    @dataclass(frozen=True)
    class Params:
        """k: records retrieved; retriever, embedder: as for rag, the embedder also for the nearness of stimuli.

        temporal_guard: leave out other people's records that are newer than the question.
        population_max_users: a seeded draw of people when there are more; 0 for all.
        """

        k: int = 8
        retriever: str = "bm25"
        embedder: str = "wordllama"
        temporal_guard: bool = False
        population_max_users: int = 2000

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        p = self.params
        self.summary = Summary(Summary.Params(k=p.k, retriever=p.retriever, embedder=p.embedder))
        self.population: Population | None = None
        self._users: Sequence[User] = ()
        self._kind: ResponseKind = "text"

    def requirements(self) -> set[str]:
        dates = {"dates"} if self.params.temporal_guard else set()
        return super().requirements() | retrieval_needs(self.params.retriever) | dates

    async def prepare(self, population: Population, ctx: Context) -> None:
        """Remember everybody, or a seeded draw of people; they are indexed when first asked for."""
        self._users = drawn(population, self.params.population_max_users, ctx)
        self._kind = ctx.task.kind
        self.population = population

    @cached_property
    def _peers(self) -> Peers:
        p = self.params
        return Peers(
            self._users, Settings(embedder=p.embedder, temporal_guard=p.temporal_guard), self._kind
        )

    async def pools(
        self, sample: Sample, docs: Sequence[Record], ctx: Context
    ) -> list[Pool | None]:
        """Who can be compared with the user on each record, for this question; None where nobody can."""
        if self.population is None or not docs:
            return [None] * len(docs)
        embed = partial(ctx.embed, embedder=self.params.embedder)
        text = sample.stimulus or ctx.task.query_text(sample)
        asker = await self._peers.asker(self.population.people_of(sample), sample, text, embed)
        return await asyncio.gather(*(self._peers.pool(doc, asker, embed) for doc in docs))

    async def fallback(self, sample: Sample, ctx: Context) -> str:
        """The answer of `summary`, counted."""
        ctx.flag("fallback")
        return await self.summary.predict(sample, await self.summary.profile(sample.user, ctx), ctx)


def drawn(population: Population, bound: int, ctx: Context) -> Sequence[User]:
    """The population's people, or a draw of `bound` of them that depends on the run's seed alone."""
    users = population.users
    if 0 < bound < len(users):
        users = ctx.rng("population").sample(sorted(users, key=lambda user: user.id), bound)
    ctx.log(f"{len(users)} of {len(population.users)} people of {population.hash[:12]}")
    return users


def kind_of(record: Record, ctx: Context) -> ResponseKind:
    """How a record's response compares with others: one without a stimulus is a text whatever the task asks."""
    return "text" if record.stimulus is None else ctx.task.kind
