"""Answers without a model: a deterministic function of the prompt, for tests and dry runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from personabench.hashing import digest
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.tokens import EstimatedTokens
from personabench.types import Request, Response, Usage, to_json

FILLER = "…"
Schema = Mapping[str, Any]
"""A JSON schema."""

# No digits, and no letter of a hexadecimal number.
_LETTERS = str.maketrans("0123456789abcdef", "ghijklmnopqrstuv")


def echo(request: Request) -> str:
    """Return the first words of the last message, with a hash of the whole prompt."""
    words = request.messages[-1].content.split()[:12]
    tag = digest(request.messages)[:8]
    return f"{' '.join(words)} {tag}"


def letters(key: str) -> str:
    """Write a hexadecimal key as twelve letters, so that no parser of numbers finds one in it."""
    return key[:12].translate(_LETTERS)


def fill_schema(
    schema: Schema | None,
    plain: str = FILLER,
    mark: str = "",
    *,
    entries: int = 1,
) -> str:
    """Return a reply without content that follows a schema, or `plain` if there is none.

    Args:
        mark: makes this reply's texts differ from another's; except the first of an object's texts,
            a name that other replies may repeat.
        entries: the length of lists of objects, as far as the schema allows; several entries are
            numbered.
    """
    if schema is not None:
        return to_json(_fill(schema, 1, mark, entries))
    return " ".join(filter(None, [plain, mark]))


def _fill(schema: Schema, number: int, mark: str, entries: int) -> Any:
    """Return a value that follows a schema; `number` is its position in a list."""
    if "enum" in schema:
        return schema["enum"][0]

    match schema["type"]:
        case "object":
            return _fill_object(schema, number, mark, entries)
        case "array":
            return _fill_array(schema, number, mark, entries)
        case "string":
            suffix = str(number) if entries > 1 else ""
            return " ".join(filter(None, [FILLER, mark, suffix]))
        case "boolean":
            return True
        case _:
            return number


def _fill_object(schema: Schema, number: int, mark: str, entries: int) -> dict[str, Any]:
    properties = schema["properties"]
    texts = [name for name, part in properties.items() if part.get("type") == "string"]

    # With a single text the mark has no other place.
    unmarked = texts[0] if len(texts) > 1 else None
    return {
        name: _fill(part, number, "" if name == unmarked else mark, entries)
        for name, part in properties.items()
    }


def _fill_array(schema: Schema, number: int, mark: str, entries: int) -> list[Any]:
    items = schema["items"]
    if entries == 1 or items.get("type") != "object":
        return [_fill(items, number, mark, entries)]

    longest = min(schema.get("maxItems", entries), entries)
    length = max(schema.get("minItems", 0), longest)
    return [_fill(items, index, mark, entries) for index in range(1, length + 1)]


def reply(request: Request) -> str:
    """Return an echo; for a request with a schema, filler, as constrained decoding would."""
    if request.schema is None:
        return echo(request)
    mark = letters(digest(request.messages))
    return fill_schema(request.schema, mark=mark)


class Scripted(Backend):
    """Answers with `answer(request)` after a latency in seconds; `--model` only names it."""

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
        """See `Backend`: the identity is known from the start."""

    async def complete(self, request: Request, group: str) -> Response:
        self.requests.append(request)
        if self.latency:
            await asyncio.sleep(self.latency)

        text = self.answer(request)
        input_tokens = 0
        for message in request.messages:
            input_tokens += self.tokens.count(message.content)
        output_tokens = self.tokens.count(text)
        return Response(text, usage=Usage(input_tokens, output_tokens))
