"""Structured replies of the stages of RPM: JSON, or an answer that is marked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from personabench import Context, Message
from personabench.methods.parsed_reply import find_value, limit_reply, request_repeatedly
from personabench.methods.rpm.prompts import PROMPTS
from personabench.metrics.text import drop_last_lines

T = TypeVar("T")
Json = Mapping[str, Any]

# Token limits to which texts are shortened, one after the other, until the request fits.
_SHORTER = (1024, 384, 128)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_MARK = re.compile(
    r"^(?:[^\S\n]|[>*#_`])*(?:final\s+)?answer[\s*_`]*:[\s*_`]*", re.IGNORECASE | re.MULTILINE
)


def find_json(text: str) -> Any:
    """The first balanced JSON object, or list of objects, in a text; None without one."""
    return find_value(
        text,
        lambda value: isinstance(value, dict) or all(isinstance(row, dict) for row in value),
    )


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


async def request_parsed(
    stage: str,
    prompts: Iterable[Sequence[Message]],
    read: Callable[[str], T | None],
    ctx: Context,
    *,
    max_tokens: int,
    tries: int,
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

    parsed, _ = await request_repeatedly(
        messages,
        read,
        ctx,
        max_tokens=limit,
        reminder=ctx.part(PROMPTS, "reminder"),
        attempts=tries,
        schema=schema,
    )
    if parsed is None:
        ctx.flag(f"{stage}_failed")
    return parsed
