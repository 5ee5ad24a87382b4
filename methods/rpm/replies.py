"""Asking for a structured reply and reading it, whatever came back.

A backend that can constrain its output gets the JSON schema; from any other the first balanced JSON value in the text
is taken.  A reply that cannot be read is asked for again, with a reminder, so that a deterministic model has a reason
to answer differently; then the caller's failure path begins and the counter `<stage>_failed` says so.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from personabench import Context, Message
from personabench.models.client import encodable

T = TypeVar("T")
Json = Mapping[str, Any]

TRIES = 3
REMINDER = (
    "Your last reply could not be read. Reply in exactly the form asked for, and with nothing else."
)
_SHORTER = (1024, 384, 128)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_MARK = re.compile(r"^[\s>*#_`]*(?:final\s+)?answer[\s*_`]*:[\s*_`]*", re.IGNORECASE | re.MULTILINE)


def first_json(text: str) -> Any:
    """The first balanced JSON object, or list of objects, in a text; None without one.

    Code fences do not matter, nor do line breaks within a string; every string can be encoded.
    """
    decoder = json.JSONDecoder(strict=False)
    for start, character in enumerate(text):
        if character not in "{[":
            continue
        try:
            value, _ = decoder.raw_decode(text, start)
            value = json.loads(encodable(json.dumps(value, ensure_ascii=False)))
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) or all(isinstance(row, dict) for row in value):
            return value
    return None


def rows(text: str, key: str) -> list[Json] | None:
    """The list of objects under a key of the reply, or the reply itself when it is that list; None when unreadable."""
    value = first_json(text)
    found = value.get(key) if isinstance(value, dict) else value
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else None


def words_of(value: Any) -> str:
    """A text field of a reply on one line; empty where the reply holds anything else."""
    return " ".join(str(value).split()) if isinstance(value, (str, int, float)) else ""


def number_of(value: Any) -> int | None:
    """The whole number that a field of a reply names: 1, 1.0, "message 1", [1]; None where it names none or several."""
    found = {float(each) for each in _NUMBER.findall(str(value))}
    number = found.pop() if len(found) == 1 else math.nan
    return int(number) if number.is_integer() else None


def marked_answer(text: str) -> tuple[str, str] | None:
    """(reasoning, answer) of a reply, from its JSON or from a last part marked `Answer:`; None where neither is."""
    value = first_json(text)
    if isinstance(value, dict) and isinstance(value.get("answer"), (str, int, float)):
        answer = str(value["answer"]).strip()
        return (words_of(value.get("reasoning")), answer) if answer else None
    marks = list(_MARK.finditer(text))
    answer = text[marks[-1].end() :].strip().rstrip("*_` ") if marks else ""
    return (text[: marks[-1].start()].strip(), answer) if answer else None


def drafts(
    build: Callable[[str], Sequence[Message]], text: str, ctx: Context
) -> Iterable[Sequence[Message]]:
    """A prompt about a text, then about ever shorter beginnings of it."""
    yield build(text)
    for limit in _SHORTER:
        yield build(ctx.tokens.cut(text, limit))


def allowance(wanted: int, ctx: Context) -> int:
    """The tokens a reply may have: what is wanted, but never more than half of the window."""
    return wanted if ctx.window is None else min(wanted, ctx.window // 2)


async def ask(
    stage: str,
    prompts: Iterable[Sequence[Message]],
    read: Callable[[str], T | None],
    ctx: Context,
    *,
    max_tokens: int,
    schema: Json | None = None,
) -> T | None:
    """The reply to the first prompt that fits the window, as `read` reads it; None after `TRIES` unreadable ones."""
    limit = allowance(max_tokens, ctx)
    position, messages = next(
        ((at, draft) for at, draft in enumerate(prompts) if ctx.excess(draft, limit) <= 0),
        (0, None),
    )
    if messages is None:
        ctx.flag(f"{stage}_too_long")
        return None
    if position:
        ctx.flag("stimuli_shortened")
    found, _ = await ask_raw(messages, read, ctx, max_tokens=limit, schema=schema)
    if found is None:
        ctx.flag(f"{stage}_failed")
    return found


async def ask_raw(
    messages: Sequence[Message],
    read: Callable[[str], T | None],
    ctx: Context,
    *,
    max_tokens: int,
    schema: Json | None = None,
) -> tuple[T | None, str]:
    """The reply as `read` reads it, or None after `TRIES` unreadable ones; and the first reply's text."""
    first: str | None = None
    for attempt in range(TRIES):
        last = messages[-1]
        asked = (
            [*messages[:-1], Message(last.role, f"{last.content}\n\n{REMINDER}")]
            if attempt
            else messages
        )
        response = await ctx.complete(
            asked,
            max_tokens=max_tokens,
            schema=schema,
            repeat=attempt,
            accept=lambda text: read(text) is not None,
        )
        first = response.text if first is None else first
        found = read(response.text)
        if found is not None:
            return found, response.text
    return None, first or ""
