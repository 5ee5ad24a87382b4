"""A memory of short facts that are extracted, compared with older ones and edited.

After Mem0: per exchange one call extracts facts, and one decides how they change the stored ones
(`mode=v1`); or a single call adds facts, and nothing is edited (`mode=additive`).  The algorithm is
the published one, the texts are our own, and dates come from the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from personabench import Batch, Context, Memory, MemoryItem, PromptFile
from personabench.api.memory_batches import Unit
from personabench.api.memory_messages import write_time
from personabench.hashing import digest
from personabench.methods.mem0_scoring import NO_CANDIDATE, find_entities, score_additive
from personabench.methods.memory_parts import (
    NUMBER,
    TEXT,
    Retriever,
    by_number,
    compute_similarities,
    describe_batch,
    list_schema,
    numbered,
    object_schema,
    rank,
    read_number,
    read_rows,
    read_text,
    read_texts,
    request_object,
    unite,
)
from personabench.types import normalized

PROMPTS = PromptFile(__file__, "mem0_like.prompts.toml")
EVENTS = ("ADD", "UPDATE", "DELETE", "NONE")
_FACTS = 20

State = dict[str, Any]


class Mem0Like(Memory):
    """Extract facts from each exchange and edit the stored ones; show the k nearest."""

    name = "mem0_like"
    paper = (
        "Mem0: Building Production-Ready AI Agents with Scalable Long-Term Memory, arXiv 2504.19413"
    )
    needs = ("history|feedback",)
    designed_for = ("locomo",)
    paper_settings = {"mode": "v1", "k": 10, "recent": 10, "neighbours": 10}
    prompts = (PROMPTS,)
    retrieval_params = ("memory_tokens", "k")

    @dataclass(frozen=True)
    class Params(Memory.Params):
        """mode: v1 extracts facts and then adds, updates or deletes; additive only adds.

        unit: the records that are ingested together.
        k: facts shown with a question.
        recent: earlier records that the extraction sees.
        neighbours: stored facts that a new one is compared with.
        retriever: dense or bm25; embedder: for dense, as in rag.
        """

        mode: Literal["v1", "additive"] = "v1"
        unit: Unit = "exchange"
        k: int = 10
        recent: int = 10
        neighbours: int = 10
        retriever: Retriever = "dense"
        embedder: str = "wordllama"

    async def start(self, ctx: Context) -> State:
        return {"items": {}, "next": 1, "recent": []}

    async def ingest(self, state: State, batch: Batch, ctx: Context) -> State:
        if self.params.mode == "v1":
            await self._extract_and_edit(state, batch, ctx)
        else:
            await self._add_only(state, batch, ctx)
        recent = state["recent"] + [ctx.task.describe(record) for record in batch.records]
        state["recent"] = recent[len(recent) - self.params.recent :] if self.params.recent else []
        return state

    async def retrieve(
        self, state: State, query: str, ctx: Context, now: str
    ) -> Sequence[MemoryItem]:
        items = [item for _, item in by_number(state["items"])]
        scores = await self._compare(query, items, ctx)
        if self.params.mode == "additive":
            scores = await score_additive(query, items, scores, self.params.k, ctx, self._cosines)
        best = [index for index in rank(scores, self.params.k) if scores[index] > NO_CANDIDATE]
        return [_show(items[index]) for index in best]

    async def _compare(self, query: str, items: Sequence[State], ctx: Context) -> list[float]:
        return await self._cosines(query, [item["text"] for item in items], ctx)

    async def _cosines(self, query: str, texts: Sequence[str], ctx: Context) -> list[float]:
        p = self.params
        return await compute_similarities(query, texts, ctx, p.retriever, p.embedder)

    async def _find_neighbours(
        self, state: State, texts: Sequence[str], ctx: Context
    ) -> list[tuple[str, State]]:
        """The stored items nearest to any of some texts, in the order of their ids."""
        stored = by_number(state["items"])
        nearest: set[int] = set()
        for text in texts:
            scores = await self._compare(text, [item for _, item in stored], ctx)
            nearest.update(rank(scores, self.params.neighbours))
        return [stored[index] for index in sorted(nearest)]

    def _slots(self, state: State, batch: Batch, ctx: Context) -> dict[str, str]:
        return {
            "date": write_time(batch.time),
            "recent": "\n".join(state["recent"]) or "none",
            "messages": describe_batch(batch, ctx),
        }

    # Mode v1 -------------------------------------------------------------------------------------

    async def _extract_and_edit(self, state: State, batch: Batch, ctx: Context) -> None:
        facts = await request_object(
            ctx,
            PROMPTS,
            "extract",
            self._slots(state, batch, ctx),
            lambda value: read_texts(value.get("facts")) if "facts" in value else None,
            # Objects, of which a plan knows that there may be none.
            schema=object_schema(facts=list_schema(object_schema(text=TEXT), _FACTS)),
            max_tokens=400,
            shorten=("recent", "messages"),
        )
        if not facts:
            return
        neighbours = await self._find_neighbours(state, facts, ctx)
        if not neighbours:
            # Nothing to compare with.
            for fact in facts:
                _add(state, fact, batch)
            return

        events = await request_object(
            ctx,
            PROMPTS,
            "decide",
            {
                "stored": numbered(item["text"] for _, item in neighbours),
                "facts": "\n".join(f"- {fact}" for fact in facts),
            },
            lambda value: read_rows(value.get("events")) if "events" in value else None,
            schema=_EVENTS_SCHEMA,
            max_tokens=600,
            shorten=("stored", "facts"),
        )
        if events is None:
            events = [{"event": "ADD", "text": fact} for fact in facts]
        ids = [number for number, _ in neighbours]
        for event in events:
            _apply(state, event, ids, batch, ctx)

    # Mode additive -------------------------------------------------------------------------------

    async def _add_only(self, state: State, batch: Batch, ctx: Context) -> None:
        slots = self._slots(state, batch, ctx)
        neighbours = await self._find_neighbours(state, [slots["messages"]], ctx)
        additions = await request_object(
            ctx,
            PROMPTS,
            "add",
            {**slots, "stored": numbered(item["text"] for _, item in neighbours)},
            lambda value: read_rows(value.get("additions")) if "additions" in value else None,
            schema=_ADDITIONS_SCHEMA,
            max_tokens=600,
            shorten=("recent", "messages", "stored"),
        )
        seen = {_hash(item["text"]) for item in state["items"].values()}
        for addition in additions or ():
            text = read_text(addition.get("text"))
            if not text:
                continue
            if _hash(text) in seen:
                ctx.flag("memory_duplicate")
                continue
            seen.add(_hash(text))
            item = _add(state, text, batch)
            item["about"] = "assistant" if addition.get("about") == "assistant" else "user"
            item["related"] = _read_related(addition, [number for number, _ in neighbours], ctx)
            item["entities"] = find_entities(text)


_EVENTS_SCHEMA = object_schema(
    events=list_schema(
        object_schema(event={"type": "string", "enum": list(EVENTS)}, id=NUMBER, text=TEXT), _FACTS
    )
)
_ADDITIONS_SCHEMA = object_schema(
    additions=list_schema(
        object_schema(
            text=TEXT,
            about={"type": "string", "enum": ["user", "assistant"]},
            related={"type": "array", "items": NUMBER},
        ),
        _FACTS,
    )
)


def _apply(
    state: State, event: Mapping[str, Any], ids: Sequence[str], batch: Batch, ctx: Context
) -> None:
    """Apply a decision; one about an unknown fact is counted, and its text added."""
    name = str(event.get("event", "")).upper()
    text = read_text(event.get("text"))
    position = read_number(event.get("id"))
    known = None
    if position is not None and 0 <= position < len(ids):
        known = ids[position]
    if name not in EVENTS:
        ctx.flag("memory_unknown_event")
        return
    if name in ("UPDATE", "DELETE") and known not in state["items"]:
        ctx.flag("memory_unknown_id")
        name = "ADD" if name == "UPDATE" else "NONE"

    if name == "ADD" and text:
        _add(state, text, batch)
    elif name == "UPDATE" and text:
        item = state["items"][known]
        item.update(text=text, time=batch.time, ids=unite(item["ids"], batch.record_ids))
    elif name == "DELETE":
        del state["items"][known]


def _show(item: State) -> MemoryItem:
    return MemoryItem(f"[{write_time(item['time'])}] {item['text']}", item["ids"], "facts")


def _add(state: State, text: str, batch: Batch) -> State:
    item = {"text": text, "time": batch.time, "ids": list(batch.record_ids)}
    state["items"][str(state["next"])] = item
    state["next"] += 1
    return item


def _hash(text: str) -> str:
    return digest(normalized(text))


def _read_related(addition: Mapping[str, Any], ids: Sequence[str], ctx: Context) -> list[str]:
    related = []
    listed = addition.get("related")
    for value in listed if isinstance(listed, list) else ():
        position = read_number(value)
        if position is not None and 0 <= position < len(ids):
            related.append(ids[position])
        else:
            ctx.flag("memory_unknown_id")
    return related
