"""Answers without a model: a deterministic function of the prompt, for tests, dry runs and plans."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from personabench.backends import Backend, BackendOptions, EstimatedTokens
from personabench.hashing import digest
from personabench.types import Request, Response, Usage


def echo(request: Request) -> str:
    """The first words of the last message, tagged with a hash of the whole prompt."""
    words = request.messages[-1].content.split()[:12]
    return f"{' '.join(words)} {digest(request.messages)[:8]}"


class Scripted(Backend):
    """Answers with `answer(request)`; `--model` only names it.  Latency in seconds can be imitated."""

    concurrency = 256

    def __init__(
        self,
        options: BackendOptions | None = None,
        answer: Callable[[Request], str] = echo,
        latency: float = 0.0,
        window: int | None = None,
    ) -> None:
        super().__init__(options or BackendOptions())
        self.answer = answer
        self.latency = latency
        self.window = window or self.options.window
        self.tokens = EstimatedTokens()
        self.identity: Mapping[str, str] = {"kind": "scripted", "name": self.options.model or "scripted"}
        self.requests: list[Request] = []

    async def identify(self) -> None:
        """Nothing to find out."""

    async def complete(self, request: Request, group: str) -> Response:
        self.requests.append(request)
        if self.latency:
            await asyncio.sleep(self.latency)
        text = self.answer(request)
        spent = sum(self.tokens.count(message.content) for message in request.messages)
        return Response(text, usage=Usage(spent, self.tokens.count(text)))
