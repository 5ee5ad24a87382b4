"""Preferences inferred from the user's own texts: a candidate is refined until it is the text.

For each past text a candidate is written by the preferences known so far, and compared with what
the user wrote; the difference becomes preferences, which are broken into parts and kept if the
user's texts confirm them.  Past texts of similar content share their preferences.

Past texts are the records of a history or, online, what the user made of each round: the draft of
the round is then the first candidate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from personabench import Context, Message, Method, PromptFile, Record, Sample, UsageError, User
from personabench.hashing import fold_text
from personabench.methods.memory_parts import (
    TEXT,
    list_schema,
    object_schema,
    read_text,
)
from personabench.methods.parsed_reply import ATTEMPTS, complete_parsed
from personabench.methods.vectors import compute_cosines
from personabench.metrics.edits import measure_edit
from personabench.models.json_reply import JsonScanner

PROMPTS = PromptFile(__file__, "prose.prompts.toml")
# The first is that of a dry run, which then makes all checks that a real one may make.
VERDICTS = {
    "somewhat confirms": 1,
    "strongly confirms": 2,
    "neutral": 0,
    "somewhat contradicts": -1,
    "strongly contradicts": -2,
}
_VERDICT = re.compile("|".join(VERDICTS), re.IGNORECASE)
_VERDICT_SCHEMA = object_schema(verdict={"type": "string", "enum": list(VERDICTS)})
_VERDICT_TOKENS = 24
# A mean beyond this after two texts needs no further one.
_CLEAR = 1.5
_BULLET = re.compile(r"\A\s*(?:[-*•]|\d+[.)])\s*")


class Demonstration(NamedTuple):
    """A past text of the user.

    Attributes:
        id: of its record, or its round; content: its task; text: as the user wrote it.
        components: the preferences that it gave, each confirmed.
    """

    id: str
    content: str
    text: str
    components: tuple[str, ...] = ()


class Recalled(NamedTuple):
    """What is known for a task beforehand.

    Attributes:
        similar: the demonstrations of the most similar content, best first.
        shared: their components, in the order of time; preferences: these as one text.
    """

    similar: Sequence[Demonstration]
    shared: Sequence[str]
    preferences: str


class Prose(Method):
    """Infer preferences by refining candidates towards the user's texts; answer with them."""

    name = "prose"
    paper = "Aligning LLMs by Predicting Preferences from User Writing Samples, arXiv 2505.23815"
    designed_for = ("plume*",)
    needs = ("history|feedback", "precedents|feedback", "texts")
    prompts = (PROMPTS,)
    uses_profiler = True
    paper_settings = {"k": 5, "steps": [3, 4], "threshold": [0.25, 0.5]}

    @dataclass(frozen=True)
    class Params:
        """records: newest records that are learnt from, online all; k: similar ones that share
            preferences.

        steps: the most refinements of a record's candidate; 0 infers from the texts alone, without
            a candidate.
        parts: the most preferences that a record may give.
        verify: check each preference against texts; threshold: the mean verdict, from -2 to 2, that
            it has to exceed.
        icl: show the similar records beside the preferences.
        embedder: of the search for similar records, as in rag.
        max_tokens: maximum tokens of preferences.
        """

        records: int = 8
        k: int = 3
        steps: int = 3
        parts: int = 8
        verify: bool = True
        threshold: float = 0.25
        icl: bool = False
        embedder: str = "wordllama"
        max_tokens: int = 256

        def __post_init__(self) -> None:
            for name, minimum in {"records": 1, "k": 1, "steps": 0, "parts": 1}.items():
                if getattr(self, name) < minimum:
                    raise ValueError(
                        f"{name} must be at least {minimum}, not {getattr(self, name)}"
                    )

    async def profile(self, user: User, ctx: Context) -> Mapping[str, Any]:
        """The preferences that each record gave, oldest first, and what happened on the way."""
        demonstrations: list[Demonstration] = []
        distances: list[float] = []
        for record in user.history[-self.params.records :]:
            content = record.stimulus or await self._neutralize(record, ctx)
            opened = Demonstration(record.id, content, record.response)
            recalled = await self._recall(content, demonstrations, ctx)
            learnt, distance = await self._learn(opened, recalled, None, ctx)
            demonstrations.append(learnt)
            distances += [] if distance is None else [distance]
        rows = [
            {"id": one.id, "content": one.content, "components": list(one.components)}
            for one in demonstrations
        ]
        # The mean edit from the last candidate to the text, over the longer of the two.
        distance = round(sum(distances) / len(distances), 6) if distances else None
        return {"demonstrations": rows, "distance": distance}

    async def predict(self, sample: Sample, state: dict[str, Any] | None, ctx: Context) -> str:
        """The answer; a sample without history opens a round of an online task in `state`."""
        query = ctx.task.query_text(sample)
        # A text on the same task would give the answer away.
        known = [
            one for one in _read_state(state, sample) if fold_text(one.content) != fold_text(query)
        ]
        online = not sample.history
        # Questions with the same records share the call.
        recalled = await self._recall(query, known, ctx if online else ctx.shared())
        similar, _, preferences = recalled
        if online and state is not None:
            ctx.note("preference", preferences)
            ids = [one.id for one in similar]
            state["open"] = {"content": query, "similar": ids, "preferences": preferences}
        if not known:
            ctx.flag("empty_profile")
            return await ctx.answer(sample)

        notes = ctx.part(PROMPTS, "notes", preferences=preferences) if preferences else ""
        if not online:
            ctx.cite([one.id for one in similar])
        by_id = {record.id: record for record in sample.history}
        records = [by_id.get(one.id) or Record(one.id, one.content, one.text) for one in similar]
        return await ctx.answer(sample, records if self.params.icl else [], notes=notes)

    async def update(
        self, state: dict[str, Any], feedback: Mapping[str, Any], ctx: Context
    ) -> dict[str, Any]:
        """The state after the open round, whose draft is the first candidate.

        Raises:
            UsageError: no round is open.
        """
        rows, opened = state["demonstrations"], state.get("open")
        if opened is None:
            raise UsageError(
                "prose: feedback came without a draft; predict opens a round, update closes it"
            )
        current = Demonstration(f"round-{len(rows)}", opened["content"], feedback["edited"])
        by_id = {one.id: one for one in _read_state(state)}
        similar = [by_id[name] for name in opened["similar"]]
        shared = _merge([one for one in by_id.values() if one in similar])
        recalled = Recalled(similar, shared, opened["preferences"])
        learnt, _ = await self._learn(current, recalled, feedback["draft"], ctx.profiling())
        ctx.note("inferred", _list_lines(learnt.components))
        row = {**learnt._asdict(), "components": list(learnt.components)}
        return {**state, "demonstrations": [*rows, row], "open": None}

    async def _learn(
        self,
        opened: Demonstration,
        recalled: Recalled,
        candidate: str | None,
        ctx: Context,
    ) -> tuple[Demonstration, float | None]:
        """The text with its preferences, and the distance of the last candidate from it.

        `candidate` is the first one; None to have it written.
        """
        refined, distance = await self._refine(opened, recalled.preferences, candidate, ctx)
        components = list(recalled.shared[: self.params.parts])
        if refined != recalled.preferences:
            components = await self._break_down(refined, ctx)
        if self.params.verify:
            components = await self._confirm(components, [opened, *recalled.similar], ctx)
        return opened._replace(components=tuple(components)), distance

    async def _neutralize(self, record: Record, ctx: Context) -> str:
        """The content of a text that has no task: a rewrite without the user's style."""
        return await self._request(ctx, "neutral", text=record.response)

    async def _recall(self, content: str, known: Sequence[Demonstration], ctx: Context) -> Recalled:
        """What the texts of the most similar content say about the user."""
        similar = await self._find_similar(content, known, ctx)
        shared = _merge([one for one in known if one in similar])
        return Recalled(similar, shared, await self._coalesce(shared, ctx))

    async def _find_similar(
        self, content: str, known: Sequence[Demonstration], ctx: Context
    ) -> list[Demonstration]:
        """The k demonstrations of the most similar content, best first, the earlier of equals."""
        if not known:
            return []
        vectors = await ctx.embed([content, *(one.content for one in known)], self.params.embedder)
        cosines = compute_cosines(vectors).tolist()
        order = sorted(range(len(known)), key=lambda position: (-cosines[position], position))
        return [known[position] for position in order[: self.params.k]]

    async def _coalesce(self, components: Sequence[str], ctx: Context) -> str:
        """One text of preferences; empty, without a call, of none."""
        if not components:
            return ""
        listed = _list_lines(components)
        return await self._request(ctx, "coalesce", preferences=listed) or listed

    async def _refine(
        self,
        demonstration: Demonstration,
        preferences: str,
        candidate: str | None,
        ctx: Context,
    ) -> tuple[str, float | None]:
        """The preferences after comparing candidates with the text, and the last distance."""
        if not self.params.steps:
            return await self._infer(demonstration, preferences, "", ctx), None

        if candidate is None:
            candidate = await self._write(demonstration, preferences, ctx)
        for step in range(1, self.params.steps + 1):
            if candidate.split() == demonstration.text.split():
                ctx.flag("candidate_equal")
                break
            preferences = await self._infer(demonstration, preferences, candidate, ctx)
            if step < self.params.steps:
                candidate = await self._write(demonstration, preferences, ctx)
        return preferences, measure_edit(candidate, demonstration.text).per_longer_text

    async def _write(self, demonstration: Demonstration, preferences: str, ctx: Context) -> str:
        return await self._request(
            ctx,
            "candidate",
            max_tokens=ctx.answer_tokens,
            content=demonstration.content,
            preferences=preferences or "–",
        )

    async def _infer(
        self, demonstration: Demonstration, preferences: str, candidate: str, ctx: Context
    ) -> str:
        """The refined preferences; the current ones if the reply is empty."""
        refined = await self._request(
            ctx,
            "infer",
            content=demonstration.content,
            preferences=preferences or "–",
            candidate=candidate or "–",
            text=demonstration.text,
        )
        return refined or preferences

    async def _break_down(self, preferences: str, ctx: Context) -> list[str]:
        """The preferences one by one; by lines if no reply is a list."""
        parts = _read_list(preferences)
        for attempt in range(ATTEMPTS):
            if parts is not None or not preferences:
                break
            messages = ctx.prompt(PROMPTS, "break_down", preferences=preferences)
            reply = await ctx.complete(
                messages,
                max_tokens=self.params.max_tokens,
                schema=object_schema(
                    preferences=list_schema(object_schema(text=TEXT), self.params.parts)
                ),
                repeat=attempt,
                attempt=attempt,
                attempts=ATTEMPTS,
                accept=lambda text: _read_list(text) is not None,
            )
            parts = _read_list(reply.text)
            if parts is None:
                ctx.flag("break_down_unparsed")
        if parts is None:
            parts = [_BULLET.sub("", line).strip() for line in preferences.splitlines()]
        return list(dict.fromkeys(part for part in parts if part))[: self.params.parts]

    async def _confirm(
        self, components: Sequence[str], texts: Sequence[Demonstration], ctx: Context
    ) -> list[str]:
        """The components whose mean verdict exceeds the threshold; none without a verdict."""
        kept = []
        for component in components:
            verdicts: list[int] = []
            for demonstration in texts:
                verdict = await self._check(component, demonstration.text, ctx)
                verdicts += [] if verdict is None else [verdict]
                if len(verdicts) >= 2 and abs(sum(verdicts) / len(verdicts)) > _CLEAR:
                    break
            if not verdicts:
                ctx.flag("component_unverified")
            elif sum(verdicts) / len(verdicts) > self.params.threshold:
                kept.append(component)
        ctx.flag("components_dropped", len(components) - len(kept))
        return kept

    async def _check(self, component: str, text: str, ctx: Context) -> int | None:
        """The verdict on a component by a text; None after two replies without one."""
        messages = self._fit(ctx, "verify", _VERDICT_TOKENS, preference=component, text=text)
        return await complete_parsed(
            messages,
            read_verdict,
            ctx,
            max_tokens=_VERDICT_TOKENS,
            schema=_VERDICT_SCHEMA,
            flag="verdict_unparsed",
        )

    async def _request(
        self, ctx: Context, stage: str, max_tokens: int | None = None, **slots: str
    ) -> str:
        limit = max_tokens or self.params.max_tokens
        reply = await ctx.complete(self._fit(ctx, stage, limit, **slots), max_tokens=limit)
        return reply.text.strip()

    def _fit(self, ctx: Context, stage: str, max_tokens: int, **slots: str) -> tuple[Message, ...]:
        """The request of a stage, with all of its texts shortened alike if it is too long."""
        messages = ctx.prompt(PROMPTS, stage, **slots)
        limit = 2048
        while ctx.count_excess_tokens(messages, max_tokens) > 0 and limit > 16:
            limit //= 2
            shortened = {name: ctx.tokens.truncate(text, limit) for name, text in slots.items()}
            messages = ctx.prompt(PROMPTS, stage, **shortened)
        if limit < 2048:
            ctx.flag("texts_shortened")
        return messages


def read_verdict(reply: str) -> int | None:
    """The verdict that a reply names; None of none, or of several."""
    verdicts = {VERDICTS[match.lower()] for match in _VERDICT.findall(reply)}
    return verdicts.pop() if len(verdicts) == 1 else None


def _read_state(
    state: Mapping[str, Any] | None, sample: Sample | None = None
) -> list[Demonstration]:
    """The demonstrations of a state, oldest first.

    A round has its text with it; that of a record is in the sample's history.
    """
    texts = {record.id: record.response for record in sample.history} if sample else {}
    demonstrations = []
    for row in state["demonstrations"] if state else []:
        text = row.get("text", texts.get(row["id"]))
        if text is not None:
            demonstrations.append(
                Demonstration(row["id"], row["content"], text, tuple(row["components"]))
            )
    return demonstrations


def _merge(demonstrations: Sequence[Demonstration]) -> list[str]:
    """The components of all, without repetitions but for case."""
    merged: dict[str, str] = {}
    for demonstration in demonstrations:
        for component in demonstration.components:
            merged.setdefault(component.casefold(), component)
    return list(merged.values())


def _list_lines(components: Sequence[str]) -> str:
    return "\n".join(f"- {component}" for component in components)


def _read_list(reply: str) -> list[str] | None:
    """The first JSON list of texts, or of objects with a `text`, in a reply; None without one."""
    for listed in JsonScanner(reply).read_all():
        if not isinstance(listed, list):
            continue
        rows = [row.get("text") if isinstance(row, dict) else row for row in listed]
        if all(isinstance(row, str) for row in rows):
            texts = [read_text(row) for row in rows]
            return [text for text in texts if text]
    return None
