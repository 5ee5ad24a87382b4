"""A memory of linked notes: records are annotated and linked, and change their neighbours.

After A-Mem.  One call analyses a record, one decides how the new note and its neighbours evolve.
Links are the numbers of notes, which later notes leave as they are, and a neighbour is searched by
its changed text from then on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from personabench import Batch, Context, Memory, MemoryItem, PromptFile
from personabench.api.memory_batches import Unit
from personabench.api.memory_messages import write_time
from personabench.methods.memory_parts import (
    NUMBER,
    TEXT,
    Retriever,
    by_number,
    compute_similarities,
    describe_batch,
    list_schema,
    object_schema,
    rank,
    read_number,
    read_rows,
    read_text,
    read_texts,
    request_object,
)

PROMPTS = PromptFile(__file__, "amem_like.prompts.toml")
_WORDS = list_schema(TEXT, 10)

State = dict[str, Any]
Note = dict[str, Any]


class AMemLike(Memory):
    """Keep an annotated note of each record with links; show the nearest and those linked."""

    name = "amem_like"
    paper = "A-MEM: Agentic Memory for LLM Agents, arXiv 2502.12110"
    needs = ("history|feedback",)
    designed_for = ("locomo",)
    paper_settings = {"k": 10, "neighbours": 5, "unit": "record"}
    prompts = (PROMPTS,)
    retrieval_params = ("memory_tokens", "k")
    separator = "\n\n"

    @dataclass(frozen=True)
    class Params(Memory.Params):
        """unit: the records of a note.

        k: notes shown with a question; as many again may follow by their links.
        neighbours: notes that a new one is compared with.
        retriever: dense or bm25; embedder: for dense, as in rag.
        """

        unit: Unit = "record"
        k: int = 10
        neighbours: int = 5
        retriever: Retriever = "dense"
        embedder: str = "wordllama"

    async def start(self, ctx: Context) -> State:
        return {"notes": {}, "next": 1}

    async def ingest(self, state: State, batch: Batch, ctx: Context) -> State:
        note = await self._analyse(batch, ctx)
        neighbours = await self._find_nearest(state, document(note), self.params.neighbours, ctx)
        if neighbours:
            await self._evolve(note, neighbours, ctx)
        state["notes"][str(state["next"])] = note
        state["next"] += 1
        return state

    async def retrieve(
        self, state: State, query: str, ctx: Context, now: str
    ) -> Sequence[MemoryItem]:
        nearest = await self._find_nearest(state, query, self.params.k, ctx)
        shown = dict(nearest)
        linked: dict[str, Note] = {}
        for _, note in nearest:
            for number in note["links"]:
                if number in state["notes"] and number not in shown:
                    linked[number] = state["notes"][number]
        notes = [*nearest, *list(linked.items())[: self.params.k]]
        return [
            MemoryItem(_show(note), note["ids"], "notes" if number in shown else "linked", number)
            for number, note in notes
        ]

    def size(self, state: State) -> Mapping[str, int]:
        links = sum(len(note["links"]) for note in state["notes"].values())
        return {"items": len(state["notes"]), "links": links}

    async def _find_nearest(
        self, state: State, query: str, k: int, ctx: Context
    ) -> list[tuple[str, Note]]:
        stored = by_number(state["notes"])
        texts = [document(note) for _, note in stored]
        p = self.params
        scores = await compute_similarities(query, texts, ctx, p.retriever, p.embedder)
        return [stored[index] for index in rank(scores, k)]

    async def _analyse(self, batch: Batch, ctx: Context) -> Note:
        """A note without links; one with its text alone if the reply cannot be read."""
        text = describe_batch(batch, ctx)
        analysis = await request_object(
            ctx,
            PROMPTS,
            "analyse",
            {"text": text, "date": write_time(batch.time)},
            _read_analysis,
            schema=object_schema(keywords=_WORDS, context=TEXT, tags=_WORDS),
            max_tokens=250,
            shorten=("text",),
        )
        note = {"text": text, "time": batch.time, "ids": list(batch.record_ids), "links": []}
        return {**note, **(analysis or {"keywords": [], "context": "", "tags": []})}

    async def _evolve(
        self, note: Note, neighbours: Sequence[tuple[str, Note]], ctx: Context
    ) -> None:
        listed = (f"{number}: {document(other)}" for number, (_, other) in enumerate(neighbours))
        decision = await request_object(
            ctx,
            PROMPTS,
            "evolve",
            {"note": document(note), "neighbours": "\n\n".join(listed)},
            lambda value: value if "evolve" in value else None,
            schema=_EVOLUTION,
            max_tokens=500,
            shorten=("note", "neighbours"),
        )
        if decision is None or decision.get("evolve") is not True:
            return

        numbers = [number for number, _ in neighbours]
        for value in _listed(decision.get("links")):
            number = _find(numbers, value, ctx)
            if number is not None and number not in note["links"]:
                note["links"].append(number)
        note["tags"] = read_texts(decision.get("tags")) or note["tags"]

        by_name = dict(neighbours)
        for update in read_rows(decision.get("updates")):
            number = _find(numbers, update.get("id"), ctx)
            if number is not None:
                other = by_name[number]
                other["context"] = read_text(update.get("context")) or other["context"]
                other["tags"] = read_texts(update.get("tags")) or other["tags"]


_EVOLUTION = object_schema(
    evolve={"type": "boolean"},
    links={"type": "array", "items": NUMBER},
    tags=_WORDS,
    updates=list_schema(object_schema(id=NUMBER, context=TEXT, tags=_WORDS), 5),
)


def document(note: Note) -> str:
    """The text that a note is searched by."""
    parts = [note["text"], note["context"], ", ".join(note["keywords"]), ", ".join(note["tags"])]
    return "\n".join(part for part in parts if part)


def _show(note: Note) -> str:
    lines = [f"[{write_time(note['time'])}] {note['text']}"]
    if note["context"]:
        lines.append(f"Context: {note['context']}")
    if note["keywords"]:
        lines.append(f"Keywords: {', '.join(note['keywords'])}")
    if note["tags"]:
        lines.append(f"Tags: {', '.join(note['tags'])}")
    return "\n".join(lines)


def _read_analysis(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if "keywords" not in value and "context" not in value:
        return None
    return {
        "keywords": read_texts(value.get("keywords")),
        "context": read_text(value.get("context")),
        "tags": read_texts(value.get("tags")),
    }


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _find(numbers: Sequence[str], value: Any, ctx: Context) -> str | None:
    """The note that a reply means by its position in the list; an unknown one is counted."""
    position = read_number(value)
    if position is None or not 0 <= position < len(numbers):
        ctx.flag("memory_unknown_id")
        return None
    return numbers[position]
