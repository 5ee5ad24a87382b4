"""Rewrite the question, retrieve from the user's own history, filter, and read.

The model rewrites the question into search queries; records are retrieved for them, or taken from a
pool of records used before; the model judges each record by itself; and the answer is given with a
profile of the user and the records that passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict

from personabench import Context, Message, Method, PromptFile, Record, Sample, User
from personabench.hashing import fold_text
from personabench.methods.memory_parts import compute_similarities, read_object, read_text
from personabench.methods.parsed_reply import fit_texts, has_words, request_parsed
from personabench.methods.rpm.pairs import select_visible_records
from personabench.metrics.labels import find_label

PROMPTS = PromptFile(__file__, "eragent.prompts.toml")
PROFILE_FIELDS = ("interests", "background", "style")
LABELS = ("entailment", "contradiction", "neutral")
_PROFILE_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in PROFILE_FIELDS},
    "required": list(PROFILE_FIELDS),
    "additionalProperties": False,
}
_FILTER_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": list(LABELS)}},
    "required": ["label"],
    "additionalProperties": False,
}
FILTER_TOKENS = 32


class Persona(TypedDict):
    """The state of a user: the profile's fields, and the ids of the records in the pool."""

    profile: dict[str, str]
    pool: list[str]


class Rewrite(NamedTuple):
    """A question put more clearly, empty if it was not, and the queries to search with."""

    question: str
    queries: tuple[str, ...]


class ErAgent(Method):
    """Answer with a profile and the retrieved records that the model holds to be relevant."""

    name = "eragent"
    paper = "ERAGent, arXiv 2405.06683"
    needs = ("history",)
    designed_for = ()
    prompts = (PROMPTS,)
    paper_settings = {"k": 5, "tau": 0.4, "theta": 3}

    @dataclass(frozen=True)
    class Params:
        """k: records retrieved for all queries together, each of which is filtered by a call.

        retriever: bm25 or dense; embedder: of dense retrieval and of the pool.
        n_queries: search queries used of the rewritten question.
        pool_questions: past stimuli, the newest, whose nearest records make the pool of records
            used before; 0 for no pool.
        tau, theta: a query is answered from the pool if at least theta of its records have this
            cosine.
        history_budget_tokens: tokens of the newest records that the profile is made from.
        profile_max_tokens, rewrite_max_tokens: maximum tokens of the two calls.
        """

        k: int = 5
        retriever: Literal["bm25", "dense"] = "bm25"
        embedder: str = "wordllama"
        n_queries: int = 3
        pool_questions: int = 0
        tau: float = 0.4
        theta: int = 3
        history_budget_tokens: int = 6000
        profile_max_tokens: int = 384
        rewrite_max_tokens: int = 256

        def __post_init__(self) -> None:
            for name in ("k", "n_queries", "theta"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    def visible(self, sample: Sample) -> tuple[Record, ...]:
        """The history without records that repeat the question."""
        return select_visible_records(sample, letters=False)

    async def profile(self, user: User, ctx: Context) -> Persona:
        """The profile of one call, and the pool, which takes none."""
        if not user.history:
            return Persona(profile={}, pool=[])

        newest_first = user.history[::-1]
        texts = [ctx.task.describe(record) for record in newest_first]
        newest_first = newest_first[: ctx.count_within(texts, self.params.history_budget_tokens)]
        max_tokens = self.params.profile_max_tokens
        messages = ctx.fit(
            lambda fitted: _profile_prompt(fitted[::-1], ctx), newest_first, max_tokens
        )
        profile = await request_parsed(
            "profile",
            messages,
            read_profile,
            ctx,
            reminder=ctx.part(PROMPTS, "reminder"),
            max_tokens=max_tokens,
            schema=_PROFILE_SCHEMA,
        )
        return Persona(profile=profile or {}, pool=await self._fill_pool(user.history, ctx))

    async def _fill_pool(self, history: Sequence[Record], ctx: Context) -> list[str]:
        """Ids of the records retrieved for past stimuli, in time order, each once.

        The pool comes from the history alone: written by questions, it would make each answer
        depend on the questions before it.
        """
        pool: dict[str, None] = {}
        for index in range(max(1, len(history) - self.params.pool_questions), len(history)):
            earlier = history[:index]
            records = await self._search(ctx.task.document_text(history[index]), earlier, ctx)
            pool.update(dict.fromkeys(record.id for record in records))
        return list(pool)

    async def predict(self, sample: Sample, state: Persona, ctx: Context) -> str:
        history = self.visible(sample)
        if not history:
            ctx.flag("empty_history")
            return await ctx.answer(sample)

        rewrite = await self._rewrite(sample, ctx)
        by_id = {record.id: record for record in history}
        pool = [by_id[name] for name in state["pool"] if name in by_id]
        rankings = [
            await self._find_records(query, pool, history, ctx) for query in rewrite.queries
        ]
        candidates = interleave(rankings, self.params.k)

        question = _format_question(sample, rewrite, ctx)
        labels = await asyncio.gather(
            *(self._filter(question, record, ctx) for record in candidates)
        )
        records = [
            record
            for record, label in zip(candidates, labels, strict=True)
            if label == "entailment"
        ]
        ctx.flag("records_filtered", len(candidates) - len(records))
        if not records:
            ctx.flag("top_record_kept")
            records = candidates[:1]

        notes = _format_notes(state["profile"], rewrite.question, ctx)
        return await ctx.answer(sample, records, notes=notes)

    async def _rewrite(self, sample: Sample, ctx: Context) -> Rewrite:
        """The rewritten question; the original one as the only query if no reply can be parsed."""
        n_queries = self.params.n_queries
        messages = fit_texts(
            lambda texts: ctx.prompt(PROMPTS, "rewrite", question=texts[0], count=str(n_queries)),
            [sample.input],
            self.params.rewrite_max_tokens,
            ctx,
        )
        rewrite = await request_parsed(
            "rewrite",
            messages,
            read_rewrite,
            ctx,
            reminder=ctx.part(PROMPTS, "reminder"),
            max_tokens=self.params.rewrite_max_tokens,
            schema=_rewrite_schema(n_queries),
        )
        if rewrite is None:
            return Rewrite("", (ctx.task.query_text(sample),))
        queries = tuple(filter(has_words, rewrite.queries))[:n_queries]
        question = rewrite.question if has_words(rewrite.question) else ""
        if not queries:
            ctx.flag("rewrite_empty")
            queries = (ctx.task.query_text(sample),)
        return Rewrite(question, queries)

    async def _find_records(
        self,
        query: str,
        pool: Sequence[Record],
        history: Sequence[Record],
        ctx: Context,
    ) -> list[Record]:
        """The records for a query, best first: of the pool if enough of it are near, else found."""
        p = self.params
        texts = [ctx.task.document_text(record) for record in pool]
        cosines = await compute_similarities(query, texts, ctx, "dense", p.embedder)
        near = [index for index in _descending(cosines) if cosines[index] >= p.tau]
        if len(near) >= p.theta:
            ctx.flag("pool_used")
            return [pool[index] for index in near]
        return await self._search(query, history, ctx)

    async def _search(self, query: str, records: Sequence[Record], ctx: Context) -> list[Record]:
        """The k nearest of some records, best first; of equals the earlier comes first."""
        p = self.params
        texts = [ctx.task.document_text(record) for record in records]
        scores = await compute_similarities(query, texts, ctx, p.retriever, p.embedder)
        return [records[index] for index in _descending(scores)[: p.k]]

    async def _filter(self, question: str, record: Record, ctx: Context) -> str:
        """The label of a record; neutral if two replies cannot be parsed."""
        messages = fit_texts(
            lambda texts: ctx.prompt(PROMPTS, "filter", question=texts[0], record=texts[1]),
            [question, ctx.task.describe(record)],
            FILTER_TOKENS,
            ctx,
        )
        label = await request_parsed(
            "filter",
            messages,
            read_label,
            ctx,
            reminder=ctx.part(PROMPTS, "filter_reminder"),
            max_tokens=FILTER_TOKENS,
            schema=_FILTER_SCHEMA,
        )
        return label or "neutral"


def interleave(rankings: Sequence[Sequence[Record]], count: int) -> list[Record]:
    """The first records of several rankings: all first ones, then all second ones, each id once."""
    merged: dict[str, Record] = {}
    longest = max(map(len, rankings), default=0)
    for rank in range(longest):
        for ranking in rankings:
            if rank < len(ranking):
                merged.setdefault(ranking[rank].id, ranking[rank])
    return list(merged.values())[:count]


def read_profile(text: str) -> dict[str, str] | None:
    """The fields of a profile that have a text, lists joined; None without any."""
    value = read_object(text) or {}
    profile = {}
    for name in PROFILE_FIELDS:
        part = value.get(name)
        parts = part if isinstance(part, list) else [part]
        content = ", ".join(filter(None, map(read_text, parts)))
        if content:
            profile[name] = content
    return profile or None


def read_rewrite(text: str) -> Rewrite | None:
    """The rewritten question and its queries, each once; None without a query."""
    value = read_object(text) or {}
    rows = value.get("queries")
    if not isinstance(rows, list):
        return None
    queries: dict[str, str] = {}
    for row in rows:
        query = read_text(row.get("query") if isinstance(row, dict) else row)
        if query:
            queries.setdefault(fold_text(query), query)
    return Rewrite(read_text(value.get("question")), tuple(queries.values())) if queries else None


def read_label(text: str) -> str | None:
    """The only label in a reply, as JSON or in words; None if there is none or several."""
    value = read_object(text)
    if value is not None:
        text = read_text(value.get("label"))
    return find_label(text, LABELS)


def _rewrite_schema(count: int) -> Mapping[str, Any]:
    return {
        "type": "object",
        "properties": {
            "question": {"type": "string"},
            "queries": {"type": "array", "items": {"type": "string"}, "maxItems": count},
        },
        "required": ["question", "queries"],
        "additionalProperties": False,
    }


def _profile_prompt(records: Sequence[Record], ctx: Context) -> tuple[Message, ...]:
    described = "\n\n".join(ctx.task.describe(record) for record in records)
    return ctx.prompt(PROMPTS, "profile", records=described)


def _format_question(sample: Sample, rewrite: Rewrite, ctx: Context) -> str:
    """The question as the filter sees it: that of the answer's request, with its rewriting."""
    if not rewrite.question:
        return sample.input
    clarified = ctx.part(PROMPTS, "clarified", question=rewrite.question)
    return f"{sample.input}\n\n{clarified}"


def _format_notes(profile: Mapping[str, str], question: str, ctx: Context) -> str:
    # A stored profile is sorted by name, a new one is not.
    parts = [f"{name.capitalize()}: {profile[name]}" for name in PROFILE_FIELDS if name in profile]
    notes = ctx.part(PROMPTS, "notes", profile="\n".join(parts)) if parts else ""
    clarified = ctx.part(PROMPTS, "clarified", question=question) if question else ""
    return "\n\n".join(filter(None, [notes, clarified]))


def _descending(scores: Sequence[float]) -> list[int]:
    """Indices from the highest to the lowest score; of equals the earlier comes first."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])
