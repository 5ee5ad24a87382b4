"""Memories outside of a run: their contexts, with scripted replies, and batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from personabench import Batch, Context, Memory, Message
from personabench.api import registry
from personabench.api.prompts import Prompts
from personabench.models.backends.scripted import Scripted
from personabench.models.client import Client
from personabench.retrieval.embedders import Embedders
from personabench.types import Phase, Record, Request, Sampling


class Script:
    """Replies by the stage of a request, recognized by words of its prompt.

    Replies of a stage follow one another; the last one stays.
    """

    def __init__(self, **replies: Sequence[Any]) -> None:
        self.replies = {stage: list(texts) for stage, texts in replies.items()}
        self.requests: list[Request] = []
        self.marks: dict[str, str] = {}

    def __call__(self, request: Request) -> str:
        self.requests.append(request)
        text = "\n".join(message.content for message in request.messages)
        stage = next(name for name, mark in self.marks.items() if mark in text)
        queue = self.replies[stage]
        reply = queue.pop(0) if len(queue) > 1 else queue[0]
        return reply if isinstance(reply, str) else json.dumps(reply)


def create_context(
    memory: Memory, answer: Callable[[Request], str], task: str = "locomo", phase: Phase = "profile"
) -> Context:
    """The context of a memory with a scripted model."""
    return Context(
        task=registry.load_class("task", task)(),
        client=Client(Scripted(answer=answer), None, "off"),
        embedders=Embedders(),
        sampling=Sampling(),
        seed=0,
        phase=phase,
        unit="user",
        prompts=Prompts(memory.prompts),
    )


def batch(
    number: int, *texts: str, time: str = "", speakers: tuple[str, ...] = ("Ann", "Bo")
) -> Batch:
    """A batch of turns, in the session and at the time of its number."""
    date = time or f"2023-05-{number + 1:02d}T10:00"
    records = tuple(
        Record(
            f"D{number}:{turn}",
            response=text,
            time=date,
            fields={"block": f"D{number}", "speaker": speakers[turn % len(speakers)]},
        )
        for turn, text in enumerate(texts)
    )
    return Batch(number, records, date)


async def feed(memory: Memory, ctx: Context, *batches: Batch) -> Any:
    """The state after some batches, as the engine passes it on."""
    ingested = await memory.begin(ctx)
    for part in batches:
        ingested = await memory.extend(ingested, part, ctx)
    return ingested.memory


def last_text(requests: Sequence[Request]) -> str:
    """The text of the last request."""
    return "\n".join(message.content for message in requests[-1].messages)


def words(message: Message) -> str:
    """The content of a message."""
    return message.content
