"""A small database of each person, distilled and then thought further, and joined with that of similar people.

Three layers per user: the records themselves, what they show (`distil`), and what that suggests (`induce`).  Short
attributes form the card, by which similar people are found; everything else is entries, by which answers are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from personabench import Context, Message, Method, Population, Record, Sample, UsageError, User
from personabench.errors import BackendError
from personabench.methods.comparing import drawn
from personabench.methods.rpm.replies import first_json
from personabench.methods.summary import Summary
from personabench.types import normalized

REMINDER = "Reply with the JSON object alone."
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
_PRESETS = {"": (8, 4), "paper": (30, 10)}


class Neighbour(NamedTuple):
    """Another person: card and its vector, entries, records, and the stimuli and items they responded to."""

    person: str
    vector: npt.NDArray[np.float64]
    entries: tuple[str, ...]
    records: tuple[Record, ...]
    asked: frozenset[str]


class PersonaDb(Method):
    """Distil a persona of everybody; answer with the user's own and with entries of the most similar people."""

    name = "persona_db"
    paper = "Persona-DB: Efficient LLM Personalization for Response Prediction, arXiv 2402.11060"
    needs = ("history", "population")
    designed_for = ()

    @dataclass(frozen=True)
    class Params:
        """preset: "" or paper, which has item_topk 30 and item_topk_collab 10; what is given overrides it.

        item_topk: own records and entries shown (8); item_topk_collab: entries of similar people shown, in total (4).
        neighbor_topk: similar people asked; neighbor_records: their records are entries too.
        history_cap: newest records a persona is made of; history_budget_tokens: the same in tokens.
        distil_max_tokens, induce_max_tokens: allowances of the two calls per person.
        dup_max: likeness to the question from which an entry of a similar person is left out.
        embedder: of cards, entries and questions.
        population_max_users: people whose personas are made, a seeded draw when there are more; 0 for all.
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
        embedder: str = "wordllama"
        population_max_users: int = 200

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        p = self.params
        if p.preset not in _PRESETS:
            raise UsageError(f"persona_db: preset '{p.preset}' is not one of '', paper")
        own, others = _PRESETS[p.preset]
        self.item_topk = own if p.item_topk is None else p.item_topk
        self.item_topk_collab = others if p.item_topk_collab is None else p.item_topk_collab
        self.summary = Summary(Summary.Params(k=self.item_topk, embedder=p.embedder))
        self.population: Population | None = None
        self.neighbours: list[Neighbour] = []

    async def prepare(self, population: Population, ctx: Context) -> None:
        """Everybody's persona: two calls per person, the same calls as that person's own profile."""
        users = [
            user
            for user in drawn(population, self.params.population_max_users, ctx)
            if user.history
        ]
        ctx.log(
            f"{2 * len(users)} calls at least for the personas of {len(users)} people, less what is cached"
        )
        states = await asyncio.gather(*(self._persona(user, ctx) for user in users))
        known = [(user, state) for user, state in zip(users, states, strict=True) if state["card"]]
        vectors = await self._vectors([state["card"] for _, state in known], ctx) if known else ()
        self.neighbours = [
            Neighbour(
                user.id,
                vector,
                (*state["distilled"], *state["induced"]),
                user.history[-self.params.history_cap :] if self.params.neighbor_records else (),
                frozenset(_subjects(user.history)),
            )
            for (user, state), vector in zip(known, vectors, strict=True)
        ]
        self.population = population

    async def _persona(self, user: User, ctx: Context) -> dict[str, Any]:
        """The profile of one of many; empty, counted, where a call for it failed for good."""
        try:
            return await self.profile(user, ctx)
        except BackendError as error:
            ctx.flag("persona_failed")
            ctx.log(f"no persona of {user.id}: {error}")
            return {"card": "", "distilled": [], "induced": []}

    async def profile(self, user: User, ctx: Context) -> dict[str, Any]:
        """The persona: {"card": text, "distilled": [entry], "induced": [entry]}; a failed layer and later are empty."""
        state: dict[str, Any] = {"card": "", "distilled": [], "induced": []}
        p = self.params
        newest_first = user.history[::-1][: p.history_cap]
        if not newest_first:
            return state
        newest_first = newest_first[
            : ctx.within(
                [ctx.task.describe(record) for record in newest_first], p.history_budget_tokens
            )
        ]
        messages = ctx.fit(
            lambda kept: _distil_prompt(kept[::-1], ctx), newest_first, p.distil_max_tokens
        )
        found = await self._object("distil", messages, _DISTILLED, p.distil_max_tokens, ctx)
        if found is None:
            return state
        state["card"] = _card(found)
        state["distilled"] = [*_texts(found.get("patterns")), *_stances(found.get("stances"))]
        messages = ctx.fit(
            lambda kept: _induce_prompt(kept[::-1], state, ctx), newest_first, p.induce_max_tokens
        )
        found = await self._object("induce", messages, _INDUCED, p.induce_max_tokens, ctx)
        known = {entry.casefold() for entry in state["distilled"]}
        state["induced"] = [
            view for view in _texts((found or {}).get("views")) if view.casefold() not in known
        ]
        return state

    async def predict(self, sample: Sample, state: dict[str, Any], ctx: Context) -> str:
        if self.population is None or not sample.history:
            ctx.flag("fallback")
            return await self.summary.predict(
                sample, await self.summary.profile(sample.user, ctx), ctx
            )
        others = await self._others(sample, self.population.people_of(sample), state, ctx)
        records, entries = await self._own(sample, state, ctx)
        ctx.flag("neighbour_entries", len(others))
        return await ctx.answer(sample, records, notes=_notes(state["card"], entries, others, ctx))

    async def _own(
        self, sample: Sample, state: dict[str, Any], ctx: Context
    ) -> tuple[list[Record], list[str]]:
        """The records and the entries among the `item_topk` nearest to the question, nearest first."""
        records = sample.history[-self.params.history_cap :]
        entries = [*state["distilled"], *state["induced"]]
        likeness = await self._likeness(
            sample, [*map(ctx.task.document_text, records), *entries], ctx
        )
        best = np.argsort(-likeness, kind="stable")[: self.item_topk].tolist()
        return (
            [records[place] for place in best if place < len(records)],
            [entries[place - len(records)] for place in best if place >= len(records)],
        )

    async def _others(
        self, sample: Sample, people: frozenset[str], state: dict[str, Any], ctx: Context
    ) -> list[str]:
        """The nearest `item_topk_collab` entries of similar people who never responded to what is asked about."""
        asked = _question_subjects(sample, ctx)
        allowed = [
            each
            for each in self.neighbours
            if each.person not in people and asked.isdisjoint(each.asked)
        ]
        if not allowed or not state["card"]:
            return []
        own = (await self._vectors([state["card"]], ctx))[0]
        likeness = (np.stack([each.vector for each in allowed]) * own).sum(axis=1)
        nearest = [
            allowed[place]
            for place in np.argsort(-likeness, kind="stable")[: self.params.neighbor_topk]
        ]
        pooled: dict[str, str] = {}
        for each in nearest:
            pooled |= {entry: entry for entry in each.entries}
            pooled |= {
                ctx.task.describe(record): ctx.task.document_text(record) for record in each.records
            }
        if not pooled:
            return []
        near = await self._likeness(sample, list(pooled.values()), ctx)
        order = [
            place
            for place in np.argsort(-near, kind="stable").tolist()
            if near[place] < self.params.dup_max
        ]
        shown = list(pooled)
        return [shown[place] for place in order[: self.item_topk_collab]]

    async def _likeness(
        self, sample: Sample, texts: Sequence[str], ctx: Context
    ) -> npt.NDArray[np.float64]:
        vectors = await self._vectors([ctx.task.query_text(sample), *texts], ctx)
        likeness: npt.NDArray[np.float64] = (vectors[1:] * vectors[0]).sum(axis=1)
        return likeness

    async def _vectors(self, texts: Sequence[str], ctx: Context) -> npt.NDArray[np.float64]:
        """Vectors of length one, shape (n, d)."""
        vectors = (await ctx.embed(texts, self.params.embedder)).astype(np.float64)
        lengths = np.sqrt((vectors**2).sum(axis=1, keepdims=True))
        scaled: npt.NDArray[np.float64] = np.divide(
            vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0
        )
        return scaled

    async def _object(
        self,
        stage: str,
        messages: Sequence[Message],
        fields: Mapping[str, Any],
        max_tokens: int,
        ctx: Context,
    ) -> dict[str, Any] | None:
        """A reply as a JSON object; asked again once when it is none, then counted as `<stage>_failed` and None."""
        schema = {
            "type": "object",
            "properties": fields,
            "required": [*fields],
            "additionalProperties": False,
        }
        *before, last = messages
        for content in (last.content, f"{last.content}\n\n{REMINDER}"):
            asked = [*before, Message(last.role, content)]
            found = first_json(
                (await ctx.complete(asked, max_tokens=max_tokens, schema=schema)).text
            )
            if isinstance(found, dict) and fields.keys() & found.keys():
                return found
            ctx.flag(f"{stage}_failed" if content != last.content else f"{stage}_retried")
        return None


def _texts(value: Any) -> list[str]:
    """The non-empty texts of a list, each once, on one line."""
    found = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return list(
        dict.fromkeys(
            line for each in found if isinstance(each, str) and (line := " ".join(each.split()))
        )
    )


def _stances(value: Any) -> list[str]:
    rows = [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
    pairs = [(_texts(row.get("about")), _texts(row.get("stance"))) for row in rows]
    return [f"{about[0]}: {stance[0]}" for about, stance in pairs if about and stance]


def _card(found: Mapping[str, Any]) -> str:
    lines = [(name.capitalize(), _texts(found.get(name))) for name in ("topics", "traits")]
    return "\n".join(f"{name}: {', '.join(texts)}" for name, texts in lines if texts)


def _subjects(records: Sequence[Record]) -> set[str]:
    """What some records respond to, or say where they respond to nothing, and their items."""
    texts = {
        normalized(record.response if record.stimulus is None else record.stimulus)
        for record in records
    }
    return {f"text {text}" for text in texts} | {
        f"item {record.item}" for record in records if record.item is not None
    }


def _question_subjects(sample: Sample, ctx: Context) -> set[str]:
    asked = {f"text {normalized(sample.stimulus or ctx.task.query_text(sample))}"}
    return asked if sample.item is None else asked | {f"item {sample.item}"}


def _distil_prompt(records: Sequence[Record], ctx: Context) -> tuple[Message, ...]:
    words = ctx.task.words
    system = (
        f"You keep a database of one {words.person}. {words.profile_question} Fill a JSON object from the records: "
        '"topics": what they deal with, a few words each; "traits": traits of style and person, a few words each; '
        f'"patterns": habits in their {words.response}s, a sentence each; '
        '"stances": {"about", "stance"}, an aspect and where they stand on it. '
        "At most five items in each list, only what the records show."
    )
    shown = "\n\n".join(ctx.task.describe(record) for record in records)
    return Message("system", system), Message("user", f"Records, oldest first:\n\n{shown}\n\nJSON:")


def _induce_prompt(
    records: Sequence[Record], state: Mapping[str, Any], ctx: Context
) -> tuple[Message, ...]:
    words = ctx.task.words
    system = (
        f"You keep a database of one {words.person}. From what is known and the records, infer more general views and "
        'preferences that are not listed yet. Reply with a JSON object: "views": at most five sentences.'
    )
    known = "\n".join([state["card"], *(f"- {entry}" for entry in state["distilled"])]).strip()
    shown = "\n\n".join(ctx.task.describe(record) for record in records)
    return Message("system", system), Message(
        "user", f"Known:\n{known}\n\nRecords, oldest first:\n\n{shown}\n\nJSON:"
    )


def _notes(card: str, entries: Sequence[str], others: Sequence[str], ctx: Context) -> str:
    person = ctx.task.words.person
    parts = [card] if card else []
    if entries:
        parts.append(f"Known of this {person}:\n" + "\n".join(f"- {entry}" for entry in entries))
    if others:
        listed = "\n".join(f"- {entry}" for entry in others)
        parts.append(
            f"Known of other people who may be similar, to be used with caution:\n{listed}"
        )
    return "\n\n".join(parts)
