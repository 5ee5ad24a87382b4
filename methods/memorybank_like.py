"""A memory of days: summaries, a portrait of the user, and pieces that may be forgotten.

After MemoryBank.  Each day is summarized and adds to a portrait; when the history has ended, the
days become one summary and one portrait.  A question gets both, and the nearest exchanges and
summaries of days.  The forgetting curve may hide pieces that were not recalled for long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from personabench import Batch, Context, Memory, MemoryItem, PromptFile
from personabench.api.memory import days_between
from personabench.api.memory_batches import Unit, split_batches
from personabench.api.memory_messages import write_time
from personabench.hashing import digest
from personabench.methods.memory_parts import (
    Retriever,
    by_number,
    compute_similarities,
    describe_batch,
    rank,
    request_text,
)

PROMPTS = PromptFile(__file__, "memorybank_like.prompts.toml")
Retention = Literal["paper", "released"]

State = dict[str, Any]


class MemoryBankLike(Memory):
    """Summarize days and portray the user; show both with the nearest pieces."""

    name = "memorybank_like"
    paper = "MemoryBank: Enhancing Large Language Models with Long-Term Memory, arXiv 2305.10250"
    needs = ("history|feedback",)
    designed_for = ()
    paper_settings = {"k": 6, "unit": "day"}
    prompts = (PROMPTS,)
    retrieval_params = ("memory_tokens", "k", "forgetting", "retention", "retriever", "embedder")

    @dataclass(frozen=True)
    class Params(Memory.Params):
        """unit: the records that are summarized together.

        k: exchanges and summaries of days shown with a question.
        forgetting: hide pieces by their age; retention: the curve, of the paper or the one that the
            released code computes, by which stronger pieces fade faster.
        strengthen: a piece that is recalled fades more slowly; in online tasks only.
        retriever: dense or bm25; embedder: for dense, as in rag.
        """

        unit: Unit = "day"
        k: int = 6
        forgetting: Literal["off", "on"] = "off"
        retention: Retention = "paper"
        strengthen: Literal["off", "on"] = "off"
        retriever: Retriever = "dense"
        embedder: str = "wordllama"

    def requirements(self) -> set[str]:
        needs = super().requirements()
        return needs | {"feedback"} if self.params.strengthen == "on" else needs

    async def start(self, ctx: Context) -> State:
        return {"days": {}, "pieces": {}, "next": 1, "summary": "", "portrait": ""}

    async def ingest(self, state: State, batch: Batch, ctx: Context) -> State:
        slots = {"date": write_time(batch.time), "messages": describe_batch(batch, ctx)}
        texts = {}
        for stage in ("day_summary", "day_portrait"):
            texts[stage] = await request_text(
                ctx, PROMPTS, stage, slots, max_tokens=250, shorten=("messages",)
            )
        state["days"][str(len(state["days"]) + 1)] = {
            "summary": texts["day_summary"],
            "portrait": texts["day_portrait"],
            "time": batch.time,
            "ids": list(batch.record_ids),
        }
        for exchange in split_batches(batch.records, "exchange"):
            time = exchange.records[-1].time or batch.time
            _add(state, describe_batch(exchange, ctx), time, exchange.record_ids, "pieces")
        if texts["day_summary"]:
            _add(state, texts["day_summary"], batch.time, batch.record_ids, "days")
        return state

    async def finish(self, state: State, ctx: Context) -> State:
        for part in ("summary", "portrait"):
            days = [
                f"[{write_time(day['time'])}] {day[part]}"
                for _, day in by_number(state["days"])
                if day[part]
            ]
            if days:
                slots = {"days": "\n".join(days)}
                state[part] = await request_text(
                    ctx, PROMPTS, part, slots, max_tokens=400, shorten=("days",)
                )
        return state

    async def retrieve(
        self, state: State, query: str, ctx: Context, now: str
    ) -> Sequence[MemoryItem]:
        p = self.params
        pieces = by_number(state["pieces"])
        if p.forgetting == "on":
            pieces = [
                (key, piece) for key, piece in pieces if _is_kept(key, piece, now, p.retention)
            ]
            ctx.flag("memory_forgotten", len(state["pieces"]) - len(pieces))

        texts = [piece["text"] for _, piece in pieces]
        scores = await compute_similarities(query, texts, ctx, p.retriever, p.embedder)
        # The portrait and the summary are made of all records, which would count as shown.
        overviews = [
            MemoryItem(f"{label}: {state[part]}", (), part)
            for part, label in (("portrait", "Portrait"), ("summary", "Summary"))
            if state[part]
        ]
        return [*overviews, *(_show(*pieces[index]) for index in rank(scores, p.k))]

    def reinforce(self, state: State, keys: Sequence[str], now: str) -> State:
        if self.params.strengthen == "on":
            for key in keys:
                piece = state["pieces"][key]
                piece.update(strength=piece["strength"] + 1, recalled=now)
        return state

    def size(self, state: State) -> Mapping[str, int]:
        return {"items": len(state["pieces"]), "days": len(state["days"])}


def retain(days: float, strength: float, curve: Retention) -> float:
    """The retention of a piece so many days after it was recalled."""
    if curve == "paper":
        return math.exp(-days / strength)
    return math.exp(-days * strength / 5)


def _is_kept(key: str, piece: Mapping[str, Any], now: str, curve: Retention) -> bool:
    days = days_between(piece["recalled"], now)
    # In place of a random draw, which would forget another piece in every run.
    draw = int(digest(["memorybank", key, piece["ids"]])[:8], 16) / 2**32
    return retain(days, piece["strength"], curve) >= draw


def _add(state: State, text: str, time: str, ids: Sequence[str], part: str) -> None:
    state["pieces"][str(state["next"])] = {
        "text": text,
        "time": time,
        "ids": list(ids),
        "part": part,
        "strength": 1,
        "recalled": time,
    }
    state["next"] += 1


def _show(key: str, piece: Mapping[str, Any]) -> MemoryItem:
    text = f"[{write_time(piece['time'])}] {piece['text']}"
    return MemoryItem(text, piece["ids"], piece["part"], key)
