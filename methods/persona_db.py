"""A small database per user of records, observations and conclusions, joined with peers'.

Three layers per user: the records themselves, the observations (`distil`), and the conclusions
(`induce`).  Short attributes form the card, by which similar users are found; everything else
becomes entries, which are retrieved for an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypedDict

import numpy as np

from personabench import (
    Context,
    Message,
    Method,
    Population,
    PromptFile,
    Record,
    Sample,
    UsageError,
    User,
)
from personabench.errors import BackendError
from personabench.methods.comparing import limit_users
from personabench.methods.rpm.replies import find_json
from personabench.methods.summary import PROMPTS as SUMMARY_PROMPTS
from personabench.methods.summary import Summary
from personabench.methods.vectors import Floats
from personabench.types import normalized

PROMPTS = PromptFile(__file__, "persona_db.prompts.toml")
_TEXTS = {"type": "array", "items": {"type": "string"}}
_STANCES = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"about": {"type": "string"}, "stance": {"type": "string"}},
        "required": ["about", "stance"],
        "additionalProperties": False,
    },
}
_DISTILLED: Mapping[str, Any] = {
    "topics": _TEXTS,
    "traits": _TEXTS,
    "patterns": _TEXTS,
    "stances": _STANCES,
}
_INDUCED: Mapping[str, Any] = {"views": _TEXTS}
_CARD = ("topics", "traits")
_LAYERS = ("records", "distilled", "induced")
# item_topk and item_topk_collab.
_PRESETS = {"": (8, 4), "paper": (30, 10)}


class Persona(TypedDict):
    """The state of a user: the card, and the entries of the two layers above the records."""

    card: str
    distilled: list[str]
    induced: list[str]


class Neighbour(NamedTuple):
    """A similar user: the card's vector, entries, records, and the subjects of all records."""

    user_id: str
    vector: Floats
    entries: tuple[str, ...]
    records: tuple[Record, ...]
    subjects: frozenset[str]


class PersonaDb(Method):
    """Distil a persona of every user; answer with the user's own and similar users' entries."""

    name = "persona_db"
    paper = "Persona-DB: Efficient LLM Personalization for Response Prediction, arXiv 2402.11060"
    needs = ("history", "population")
    designed_for = ()
    paper_settings = {
        "item_topk": 30,
        "item_topk_collab": 10,
        "neighbor_topk": 3,
        "history_cap": 100,
    }
    prompts = (PROMPTS, SUMMARY_PROMPTS)

    @dataclass(frozen=True)
    class Params:
        """preset: "" or paper (item_topk 30, item_topk_collab 10); parameters that are set override
        it.

        item_topk: own records and entries shown (8); item_topk_collab: entries of similar users
            shown, in total (4).
        neighbor_topk: similar users looked up; neighbor_records: count their records as entries
            too.
        history_cap: newest records a persona is made of; history_budget_tokens: the same in tokens.
        distil_max_tokens, induce_max_tokens: maximum tokens of the two calls per user.
        dup_max: similarity to the question from which an entry of a similar user is left out;
            min_similarity: that below which any record or entry is.
        fields: of a persona: topics and traits (the card), patterns, stances, views.
        list_max: entries kept of each list of a reply; 0 for all.
        layers: the retrieved parts of the user: records, distilled entries, induced ones.
        embedder: of cards, entries and questions.
        population_max_users: users whose personas are made, a seeded sample of a larger population;
            0 for all.
        """

        preset: str = ""
        item_topk: int | None = None
        item_topk_collab: int | None = None
        neighbor_topk: int = 3
        neighbor_records: bool = False
        history_cap: int = 100
        history_budget_tokens: int = 6000
        distil_max_tokens: int = 512
        induce_max_tokens: int = 256
        dup_max: float = 0.98
        min_similarity: float = -1.0
        fields: str = "topics,traits,patterns,stances,views"
        list_max: int = 0
        layers: str = "records,distilled,induced"
        embedder: str = "wordllama"
        population_max_users: int = 200

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        p = self.params
        if p.preset not in _PRESETS:
            raise UsageError(f"persona_db: preset '{p.preset}' is not one of '', paper")

        self.fields = _read_names("fields", p.fields, [*_DISTILLED, *_INDUCED])
        self.layers = _read_names("layers", p.layers, _LAYERS)
        item_topk, item_topk_collab = _PRESETS[p.preset]
        self.item_topk = item_topk if p.item_topk is None else p.item_topk
        self.item_topk_collab = item_topk_collab
        if p.item_topk_collab is not None:
            self.item_topk_collab = p.item_topk_collab
        self.summary = Summary(Summary.Params(k=self.item_topk, embedder=p.embedder))
        self.population: Population | None = None
        self.neighbours: list[Neighbour] = []

    def resolved_params(self) -> Mapping[str, Any]:
        return {
            **asdict(self.params),
            "item_topk": self.item_topk,
            "item_topk_collab": self.item_topk_collab,
        }

    async def prepare(self, population: Population, ctx: Context) -> None:
        """Make the personas of all users, with the same calls as for a user's own profile."""
        limited = limit_users(population, self.params.population_max_users, ctx)
        users = [user for user in limited if user.history]
        ctx.log(
            f"{2 * len(users)} calls at least for the personas of {len(users)} users, "
            "less those in the cache"
        )

        personas = await asyncio.gather(*(self._try_profile(user, ctx) for user in users))
        pairs = [
            (user, persona)
            for user, persona in zip(users, personas, strict=True)
            if persona["card"]
        ]
        if pairs:
            vectors = await self._embed([persona["card"] for _, persona in pairs], ctx)
            self.neighbours = [
                self._neighbour(user, persona, vector)
                for (user, persona), vector in zip(pairs, vectors, strict=True)
            ]
        else:
            self.neighbours = []
        self.population = population

    def _neighbour(self, user: User, persona: Persona, vector: Floats) -> Neighbour:
        records: tuple[Record, ...] = ()
        if self.params.neighbor_records:
            records = user.history[-self.params.history_cap :]
        return Neighbour(
            user.id,
            vector,
            entries=tuple(self._retrievable(persona)),
            records=records,
            subjects=frozenset(_subjects_of_records(user.history)),
        )

    async def _try_profile(self, user: User, ctx: Context) -> Persona:
        """The profile of one of many users; empty, and flagged, if a call failed for good."""
        try:
            return await self.profile(user, ctx)
        except BackendError as error:
            # One user of hundreds must not stop the run of all others.
            ctx.flag("persona_failed")
            ctx.log(f"no persona of {user.id}: {error}")
            return Persona(card="", distilled=[], induced=[])

    async def profile(self, user: User, ctx: Context) -> Persona:
        """The user's persona; layers are empty from the first unparsed reply on."""
        persona = Persona(
            card="",
            distilled=[],
            induced=[],
        )
        p = self.params
        newest_first = user.history[::-1][: p.history_cap]
        if not newest_first:
            return persona

        texts = [ctx.task.describe(record) for record in newest_first]
        newest_first = newest_first[: ctx.count_within(texts, p.history_budget_tokens)]

        messages = ctx.fit(
            lambda fitted: _distil_prompt(fitted[::-1], ctx),
            newest_first,
            p.distil_max_tokens,
        )
        distilled = await self._request_object(
            "distil", messages, _DISTILLED, p.distil_max_tokens, ctx
        )
        if distilled is None:
            return persona
        persona["card"] = _format_card(
            {name: self._keep(name, _read_texts(distilled.get(name))) for name in _CARD}
        )
        persona["distilled"] = [
            *self._keep("patterns", _read_texts(distilled.get("patterns"))),
            *self._keep("stances", _read_stances(distilled.get("stances"))),
        ]

        messages = ctx.fit(
            lambda fitted: _induce_prompt(fitted[::-1], persona, ctx),
            newest_first,
            p.induce_max_tokens,
        )
        induced = await self._request_object("induce", messages, _INDUCED, p.induce_max_tokens, ctx)
        views = _read_texts(induced.get("views")) if induced is not None else []
        views = self._keep("views", views)
        existing = {entry.casefold() for entry in persona["distilled"]}
        persona["induced"] = [view for view in views if view.casefold() not in existing]
        return persona

    def _keep(self, field: str, texts: list[str]) -> list[str]:
        """The entries of a field that a persona keeps."""
        if field not in self.fields:
            return []
        return texts[: self.params.list_max or None]

    async def predict(self, sample: Sample, state: Persona, ctx: Context) -> str:
        if self.population is None or not sample.history:
            ctx.flag("fallback")
            profile = await self.summary.profile(sample.user, ctx.shared().profiling())
            return await self.summary.predict(sample, profile, ctx)

        user_ids = self.population.non_peers(sample)
        neighbour_entries = await self._retrieve_neighbour_entries(sample, user_ids, state, ctx)
        records, entries = await self._retrieve_own_items(sample, state, ctx)
        ctx.flag("neighbour_entries", len(neighbour_entries))
        notes = _format_notes(state["card"], entries, neighbour_entries, ctx)
        return await ctx.answer(sample, records, notes=notes)

    async def _retrieve_own_items(
        self,
        sample: Sample,
        persona: Persona,
        ctx: Context,
    ) -> tuple[list[Record], list[str]]:
        """The records and entries among the `item_topk` nearest to the question, nearest first."""
        records: Sequence[Record] = ()
        if "records" in self.layers:
            records = sample.history[-self.params.history_cap :]
        entries = self._retrievable(persona)
        texts = [*map(ctx.task.document_text, records), *entries]
        similarities = await self._similarities(sample, texts, ctx)
        order = self._rank(similarities)[: self.item_topk]

        # Records and entries compete for the same places; an index past the records is an entry's.
        nearest_records = [records[index] for index in order if index < len(records)]
        nearest_entries = [
            entries[index - len(records)] for index in order if index >= len(records)
        ]
        return nearest_records, nearest_entries

    async def _retrieve_neighbour_entries(
        self,
        sample: Sample,
        user_ids: frozenset[str],
        persona: Persona,
        ctx: Context,
    ) -> list[str]:
        """The nearest `item_topk_collab` entries of similar users who do not know the subject."""
        # A user who responded to the same subject could reveal the reference.
        subjects = _subjects_of_question(sample, ctx)
        candidates = [
            neighbour
            for neighbour in self.neighbours
            if neighbour.user_id not in user_ids and subjects.isdisjoint(neighbour.subjects)
        ]
        if not candidates or not persona["card"]:
            return []

        card_vector = (await self._embed([persona["card"]], ctx))[0]
        vectors = np.stack([neighbour.vector for neighbour in candidates])
        similarities = (vectors * card_vector).sum(axis=1)
        order = _descending(similarities)[: self.params.neighbor_topk]

        # From the text shown to the text compared: a record is compared by its own words alone.
        search_texts: dict[str, str] = {}
        for neighbour in (candidates[index] for index in order):
            for entry in neighbour.entries:
                search_texts[entry] = entry
            for record in neighbour.records:
                search_texts[ctx.task.describe(record)] = ctx.task.document_text(record)
        if not search_texts:
            return []

        similarities = await self._similarities(sample, list(search_texts.values()), ctx)
        entries = list(search_texts)
        nearest = [
            entries[index]
            for index in self._rank(similarities)
            if similarities[index] < self.params.dup_max
        ]
        return nearest[: self.item_topk_collab]

    def _retrievable(self, persona: Persona) -> list[str]:
        """The entries of the layers that are retrieved."""
        distilled = persona["distilled"] if "distilled" in self.layers else []
        induced = persona["induced"] if "induced" in self.layers else []
        return [*distilled, *induced]

    def _rank(self, similarities: Floats) -> list[int]:
        """Indices of those similar enough, the most similar first."""
        least = self.params.min_similarity
        return [index for index in _descending(similarities) if similarities[index] >= least]

    async def _similarities(
        self,
        sample: Sample,
        texts: Sequence[str],
        ctx: Context,
    ) -> Floats:
        """Cosines of the question with each text."""
        vectors = await self._embed([ctx.task.query_text(sample), *texts], ctx)
        similarities: Floats = (vectors[1:] * vectors[0]).sum(axis=1)
        return similarities

    async def _embed(self, texts: Sequence[str], ctx: Context) -> Floats:
        """Vectors of length one, shape (n, d); zero vectors stay zero."""
        vectors = (await ctx.embed(texts, self.params.embedder)).astype(np.float64)
        lengths = np.sqrt((vectors**2).sum(axis=1, keepdims=True))
        scaled: Floats = np.divide(
            vectors,
            lengths,
            out=np.zeros_like(vectors),
            where=lengths > 0,
        )
        return scaled

    async def _request_object(
        self,
        stage: str,
        messages: Sequence[Message],
        fields: Mapping[str, Any],
        max_tokens: int,
        ctx: Context,
    ) -> dict[str, Any] | None:
        """A reply as a JSON object; None, flagged, if a retry cannot be parsed either."""
        schema = {
            "type": "object",
            "properties": fields,
            "required": [*fields],
            "additionalProperties": False,
        }
        *earlier, last = messages
        reminders = ("", ctx.part(PROMPTS, "reminder"))
        for attempt, reminder in enumerate(reminders):
            request = [*earlier, Message(last.role, last.content + reminder)]
            response = await ctx.complete(
                request,
                max_tokens=max_tokens,
                schema=schema,
                attempt=attempt,
                attempts=len(reminders),
            )
            value = find_json(response.text)
            if isinstance(value, dict) and fields.keys() & value.keys():
                return value
            ctx.flag(f"{stage}_failed" if reminder else f"{stage}_retried")
        return None


def _descending(similarities: Floats) -> list[int]:
    """Indices from the most to the least similar; of equals the first comes first."""
    order: list[int] = np.argsort(-similarities, kind="stable").tolist()
    return order


def _read_texts(value: Any) -> list[str]:
    """The non-empty texts of a list, or of a single text, each once and on one line."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list):
        return []
    lines = [" ".join(text.split()) for text in values if isinstance(text, str)]
    return list(dict.fromkeys(line for line in lines if line))


def _read_stances(value: Any) -> list[str]:
    if not isinstance(value, list):
        return []
    stances = []
    for row in value:
        if not isinstance(row, dict):
            continue
        subjects = _read_texts(row.get("about"))
        opinions = _read_texts(row.get("stance"))
        if subjects and opinions:
            stances.append(f"{subjects[0]}: {opinions[0]}")
    return stances


def _read_names(parameter: str, text: str, choices: Sequence[str]) -> list[str]:
    """The names in a parameter.

    Raises:
        UsageError: one of them is not among the choices.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in choices:
            raise UsageError(f"persona_db: {parameter}: '{name}' is none of {', '.join(choices)}")
    return names


def _format_card(texts: Mapping[str, Sequence[str]]) -> str:
    lines = [
        f"{name.capitalize()}: {', '.join(of_name)}" for name, of_name in texts.items() if of_name
    ]
    return "\n".join(lines)


def _subjects_of_records(records: Sequence[Record]) -> set[str]:
    """The stimuli of some records, or their responses without a stimulus, and their items."""
    subjects = set()
    for record in records:
        text = record.response if record.stimulus is None else record.stimulus
        subjects.add(f"text {normalized(text)}")
        if record.item is not None:
            subjects.add(f"item {record.item}")
    return subjects


def _subjects_of_question(sample: Sample, ctx: Context) -> set[str]:
    text = sample.stimulus or ctx.task.query_text(sample)
    subjects = {f"text {normalized(text)}"}
    if sample.item is not None:
        subjects.add(f"item {sample.item}")
    return subjects


def _distil_prompt(records: Sequence[Record], ctx: Context) -> tuple[Message, ...]:
    described = "\n\n".join(ctx.task.describe(record) for record in records)
    return ctx.prompt(PROMPTS, "distil", records=described)


def _induce_prompt(
    records: Sequence[Record],
    persona: Persona,
    ctx: Context,
) -> tuple[Message, ...]:
    entries = (f"- {entry}" for entry in persona["distilled"])
    knowledge = "\n".join([persona["card"], *entries]).strip()
    described = "\n\n".join(ctx.task.describe(record) for record in records)
    return ctx.prompt(PROMPTS, "induce", knowledge=knowledge, records=described)


def _format_notes(
    card: str,
    entries: Sequence[str],
    neighbour_entries: Sequence[str],
    ctx: Context,
) -> str:
    parts = []
    if card:
        parts.append(card)
    if entries:
        parts.append(ctx.part(PROMPTS, "own_entries", entries=_bullets(entries)))
    if neighbour_entries:
        bullets = _bullets(neighbour_entries)
        parts.append(ctx.part(PROMPTS, "neighbour_entries", entries=bullets))
    return ctx.part(PROMPTS, "notes", content="\n\n".join(parts)) if parts else ""


def _bullets(entries: Sequence[str]) -> str:
    return "\n".join(f"- {entry}" for entry in entries)
