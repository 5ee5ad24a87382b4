"""Structured replies: request them, parse them whatever the model wrote, and retry.

A backend that can constrain its output gets the JSON schema; from any other the first balanced JSON
value in the text is used.  A reply that cannot be parsed is requested again with a reminder, so
that a deterministic model has a reason to answer differently; then the caller goes on without it,
and the counter `<stage>_failed` is raised.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from personabench import Context, Message
from personabench.methods.rpm.prompts import PROMPTS
from personabench.metrics.text import drop_last_lines
from personabench.models.client import encodable
from personabench.models.json_reply import JsonScanner

T = TypeVar("T")
Json = Mapping[str, Any]

TRIES = 3
# Token limits to which texts are shortened, one after the other, until the request fits.
_SHORTER = (1024, 384, 128)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_MARK = re.compile(
    r"^(?:[^\S\n]|[>*#_`])*(?:final\s+)?answer[\s*_`]*:[\s*_`]*", re.IGNORECASE | re.MULTILINE
)


def find_json(text: str) -> Any:
    """The first balanced JSON object, or list of objects, in a text; None without one.

    Code fences and line breaks within strings are accepted; every string can be encoded.
    """
    for value in JsonScanner(text).read_all():
        if isinstance(value, dict) or all(isinstance(row, dict) for row in value):
            with contextlib.suppress(ValueError, RecursionError):
                # Escapes such as \ud800 decode to text that no file can hold.
                return json.loads(encodable(json.dumps(value, ensure_ascii=False)))
    return None


def read_rows(text: str, key: str) -> list[Json] | None:
    """The list of objects under a key of the reply, or the reply if it is a list; None without."""
    value = find_json(text)
    listed = value.get(key) if isinstance(value, dict) else value
    if not isinstance(listed, list):
        return None
    return [row for row in listed if isinstance(row, dict)]


def to_line(value: Any) -> str:
    """A text field of a reply on one line; empty for a value of another type."""
    return " ".join(str(value).split()) if isinstance(value, (str, int, float)) else ""


def to_whole_number(value: Any) -> int | None:
    """The only number in a field of a reply, if it is whole: 1, 1.0, "message 1", [1]."""
    numbers = {float(text) for text in _NUMBER.findall(str(value))}
    if len(numbers) != 1:
        return None
    number = numbers.pop()
    return int(number) if number.is_integer() else None


def find_marked_answer(text: str) -> tuple[str, str] | None:
    """The reasoning and answer of a reply, as JSON or marked `Answer:`; None if it is neither."""
    value = find_json(text)
    if isinstance(value, dict) and isinstance(value.get("answer"), (str, int, float)):
        answer = str(value["answer"]).strip()
        reasoning = to_line(value.get("reasoning"))
        return (reasoning, answer) if answer else None

    marks = list(_MARK.finditer(text))
    if not marks:
        return None
    # The last mark, since models repeat "Answer:" in their reasoning.
    answer = text[marks[-1].end() :].strip().rstrip("*_` ")
    reasoning = drop_last_lines(text[: marks[-1].start()], ">*#_`").strip()
    return (reasoning, answer) if answer else None


def shorten_until_fit(
    build: Callable[[str], Sequence[Message]],
    text: str,
    ctx: Context,
) -> Iterable[Sequence[Message]]:
    """A prompt about a text, then about ever shorter beginnings of it."""
    yield build(text)
    for limit in _SHORTER:
        yield build(ctx.tokens.truncate(text, limit))


def limit_reply(max_tokens: int, ctx: Context) -> int:
    """The tokens that a reply may have: `max_tokens`, but at most half of the window."""
    if ctx.window is None:
        return max_tokens
    return min(max_tokens, ctx.window // 2)


async def request_parsed(
    stage: str,
    prompts: Iterable[Sequence[Message]],
    read: Callable[[str], T | None],
    ctx: Context,
    *,
    max_tokens: int,
    tries: int = TRIES,
    schema: Json | None = None,
) -> T | None:
    """The parsed reply to the first prompt that fits the window; None after `tries` failures."""
    limit = limit_reply(max_tokens, ctx)
    too_long = 0
    for messages in prompts:
        if ctx.count_excess_tokens(messages, limit) <= 0:
            break
        too_long += 1
    else:
        ctx.flag(f"{stage}_too_long")
        return None
    if too_long:
        ctx.flag("stimuli_shortened")

    parsed, _ = await request_parsed_with_text(
        messages,
        read,
        ctx,
        max_tokens=limit,
        tries=tries,
        schema=schema,
    )
    if parsed is None:
        ctx.flag(f"{stage}_failed")
    return parsed


async def request_parsed_with_text(
    messages: Sequence[Message],
    read: Callable[[str], T | None],
    ctx: Context,
    *,
    max_tokens: int,
    tries: int = TRIES,
    schema: Json | None = None,
) -> tuple[T | None, str]:
    """The parsed reply and its text; None after `tries` failures, with the first reply's text."""
    *earlier, last = messages
    reminded = [*earlier, Message(last.role, last.content + ctx.part(PROMPTS, "reminder"))]
    first_text = ""
    for attempt in range(tries):
        response = await ctx.complete(
            reminded if attempt else messages,
            max_tokens=max_tokens,
            schema=schema,
            repeat=attempt,
            attempt=attempt,
            attempts=TRIES,
            accept=lambda text: read(text) is not None,
        )
        parsed = read(response.text)
        if parsed is not None:
            return parsed, response.text
        if attempt == 0:
            # The reply without the reminder is the one that may still hold a usable answer.
            first_text = response.text
    return None, first_text
