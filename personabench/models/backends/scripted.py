"""Answers without a model: a deterministic function of the prompt, for tests, dry runs and plans."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from personabench.hashing import digest
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.tokens import EstimatedTokens
from personabench.types import Request, Response, Usage, to_json

FILLER = "…"
_LETTERS = str.maketrans("0123456789abcdef", "ghijklmnopqrstuv")


def echo(request: Request) -> str:
    """The first words of the last message, tagged with a hash of the whole prompt."""
    words = request.messages[-1].content.split()[:12]
    return f"{' '.join(words)} {digest(request.messages)[:8]}"


def letters(key: str) -> str:
    """A hexadecimal key as twelve letters, which no reader of numbers trips over."""
    return key[:12].translate(_LETTERS)


def filler(
    schema: Mapping[str, Any] | None, plain: str = FILLER, mark: str = "", *, entries: int = 1
) -> str:
    """A reply that says nothing in the form asked for; `plain` where no form is.

    Args:
        mark: makes this reply's texts differ from another's; but the first of an object's texts, a name that other
            replies may repeat.
        entries: how long lists of objects are, as far as the form allows; several entries are numbered.
    """

    def example(part: Mapping[str, Any], number: int = 1, mark: str = mark) -> Any:
        if "enum" in part:
            return part["enum"][0]
        match part["type"]:
            case "object":
                texts = [
                    name
                    for name, each in part["properties"].items()
                    if each.get("type") == "string"
                ]
                plainly = texts[:1] if len(texts) > 1 else []
                return {
                    name: example(each, number, "" if name in plainly else mark)
                    for name, each in part["properties"].items()
                }
            case "array":
                if entries == 1 or part["items"].get("type") != "object":
                    return [example(part["items"], number, mark)]
                length = max(part.get("minItems", 0), min(part.get("maxItems", entries), entries))
                return [example(part["items"], at, mark) for at in range(1, length + 1)]
            case "string":
                return " ".join(filter(None, [FILLER, mark, str(number) if entries > 1 else ""]))
            case kind:
                return kind == "boolean" or number

    return " ".join(filter(None, [plain, mark])) if schema is None else to_json(example(schema))


def reply(request: Request) -> str:
    """An echo; where a schema is asked for, filler in its form, as a server that can constrain gives it."""
    return (
        echo(request)
        if request.schema is None
        else filler(request.schema, mark=letters(digest(request.messages)))
    )


class Scripted(Backend):
    """Answers with `answer(request)`; `--model` only names it.  Latency in seconds can be imitated."""

    concurrency = 256

    def __init__(
        self,
        options: BackendOptions | None = None,
        answer: Callable[[Request], str] = reply,
        latency: float = 0.0,
        window: int | None = None,
    ) -> None:
        super().__init__(options or BackendOptions())
        self.answer = answer
        self.latency = latency
        self.window = window or self.options.window
        self.tokens = EstimatedTokens()
        self.identity: Mapping[str, str] = {
            "kind": "scripted",
            "name": self.options.model or "scripted",
        }
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
