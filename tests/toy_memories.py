"""Toy memories, and conversations for them to ingest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from personabench import Batch, Context, Memory, MemoryItem, Message
from personabench.models.backends.scripted import Scripted
from personabench.run import runner
from personabench.run.options import Options
from personabench.run.runner import Outcome

TOY = f"{Path(__file__)}:"
"""What `--method` calls a class here, with its name after it."""
SENTINEL = "xylophone"
"""A word in every question and gold, and in no turn."""


class Verbatim(Memory):
    """Store every record; show the newest first."""

    name = "verbatim"
    unit = "record"

    @dataclasses.dataclass(frozen=True)
    class Params(Memory.Params):
        """k: items shown, 0 for all."""

        k: int = 0

    retrieval_params = ("memory_tokens", "k")

    async def start(self, ctx: Context) -> Any:
        return []

    async def ingest(self, state: Any, batch: Batch, ctx: Context) -> Any:
        text = " ".join(ctx.task.describe(record) for record in batch.records)
        return [*state, {"text": text, "ids": batch.record_ids, "time": batch.time}]

    async def retrieve(
        self, state: Any, query: str, ctx: Context, now: str
    ) -> Sequence[MemoryItem]:
        newest = state[::-1][: self.params.k or None]
        return [MemoryItem(f"[{item['time']}] {item['text']}", item["ids"]) for item in newest]


class Digest(Verbatim):
    """Store the model's words on every session."""

    name = "digest"
    unit = "session"

    async def ingest(self, state: Any, batch: Batch, ctx: Context) -> Any:
        text = "\n".join(ctx.task.describe(record) for record in batch.records)
        reply = await ctx.complete([Message("user", f"Digest: {text}")], max_tokens=32)
        ctx.flag("digested")
        return [*state, {"text": reply.text, "ids": batch.record_ids, "time": batch.time}]


class Rewriting(Digest):
    """One text that every session rewrites."""

    name = "rewriting"

    async def ingest(self, state: Any, batch: Batch, ctx: Context) -> Any:
        (item,) = await super().ingest([], batch, ctx)
        return [{**item, "text": f"{item['text']} {batch.number} " * 40}]


class Counting(Verbatim):
    """Count how often items are retrieved, in the frozen state."""

    name = "counting_memory"

    async def retrieve(
        self, state: Any, query: str, ctx: Context, now: str
    ) -> Sequence[MemoryItem]:
        state[0]["time"] = "recalled"
        return await super().retrieve(state, query, ctx, now)


class Unsourced(Verbatim):
    """Show items without their sources."""

    name = "unsourced"

    async def retrieve(
        self, state: Any, query: str, ctx: Context, now: str
    ) -> Sequence[MemoryItem]:
        items = await super().retrieve(state, query, ctx, now)
        return [MemoryItem(item.text, None) for item in items]


class Worded(Verbatim):
    """Return texts in place of items."""

    name = "worded"

    async def retrieve(self, state: Any, query: str, ctx: Context, now: str) -> Any:
        return ["a text"]


def conversation(
    folder: Path, sessions: int = 3, turns: int = 4, questions: int = 4, users: int = 1
) -> Path:
    """Write conversations in the format of LoCoMo; every question is about one turn."""
    entries = []
    for user in range(users):
        held: dict[str, Any] = {"speaker_a": "Ann", "speaker_b": "Bo"}
        for number in range(1, sessions + 1):
            held[f"session_{number}_date_time"] = (
                f"9:05 am on {1 + number % 28} March, {2001 + number // 28}"
            )
            held[f"session_{number}"] = [
                {
                    "speaker": ("Ann", "Bo")[turn % 2],
                    "dia_id": f"D{number}:{turn}",
                    "text": f"In week {number} I bought {turn} lamps for house {user}.",
                }
                for turn in range(1, turns + 1)
            ]
        qa = [
            {
                "question": f"How many {SENTINEL}s for case {index}?",
                "answer": f"{index} {SENTINEL}",
                "evidence": [f"D{1 + index % sessions}:{1 + index % turns}"],
                "category": 4,
            }
            for index in range(questions)
        ]
        entries.append({"sample_id": f"conv-{user}", "conversation": held, "qa": qa})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "locomo10.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


async def ran(
    results: Path, method: str, data: Path, backend: Scripted | None = None, **changes: Any
) -> tuple[Outcome, Scripted]:
    """Run one memory on conversations, with a scripted model; returns the outcome and the model."""
    model = backend or Scripted()
    options = Options(
        [method], ["locomo"], data=data, backend="scripted", results=results, **changes
    )
    (outcome,) = await runner.run(options, backend=model)
    return outcome, model
