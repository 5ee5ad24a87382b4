"""Replies that have a form: request them, parse them whatever the model wrote, and request again.

A backend that can constrain its output gets the JSON schema; from any other the first balanced JSON
value in the text is used.  A reply that cannot be parsed is requested again, mostly with a
reminder, so that a deterministic model has a reason to answer differently.  Then the caller goes on
without it, and the failure is counted.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from personabench import Context, Message
from personabench.models.client import encodable
from personabench.models.json_reply import JsonScanner

T = TypeVar("T")
ATTEMPTS = 2
SHORTER = (1024, 384, 128, 32)
"""Token limits to which texts are shortened, one after the other, until the request fits."""


async def request_repeatedly(
    messages: Sequence[Message],
    read: Callable[[str], T | None],
    ctx: Context,
    *,
    max_tokens: int,
    reminder: str = "",
    attempts: int = ATTEMPTS,
    flags: Sequence[str] = (),
    schema: Mapping[str, Any] | None = None,
    temperature: float | None = None,
    repeat: int = 0,
    is_stored: bool = False,
) -> tuple[T | None, str]:
    """Request a reply until it can be parsed.

    Args:
        read: parses a reply; None if it cannot.
        reminder: the text that is added to the last message of every request but the first.
        flags: counters, one for the failure of each attempt; none to count failures by oneself.
        repeat: the index of the first request among equal ones at a temperature above 0.
        is_stored: store replies that cannot be parsed too, for work that several questions share:
            it would be done again, and differently, for each of them.

    Returns:
        The parsed reply, or None after so many failed attempts; and the text of the first reply,
        which may hold a usable answer without the form.
    """
    *earlier, last = messages
    reminded = [*earlier, Message(last.role, last.content + reminder)]
    first_text = ""
    for attempt in range(attempts):
        response = await ctx.complete(
            reminded if attempt else messages,
            max_tokens=max_tokens,
            temperature=temperature,
            schema=schema,
            repeat=repeat + attempt,
            attempt=attempt,
            attempts=attempts,
            # A reply stored in the cache would be returned again for ever.
            accept=None if is_stored else lambda text: read(text) is not None,
        )
        if attempt == 0:
            first_text = response.text
        parsed = read(response.text)
        if parsed is not None:
            return parsed, first_text
        if flags:
            ctx.flag(flags[attempt])
    return None, first_text


async def request_parsed(
    stage: str,
    messages: Sequence[Message],
    read: Callable[[str], T | None],
    ctx: Context,
    *,
    reminder: str,
    max_tokens: int,
    schema: Mapping[str, Any] | None = None,
    temperature: float | None = None,
    repeat: int = 0,
    is_stored: bool = False,
) -> T | None:
    """The parsed reply; None after two that cannot be parsed.

    Flags: `<stage>_retried`, then `<stage>_failed`.  The arguments are those of
    `request_repeatedly`; the reply gets at most half of the window.
    """
    parsed, _ = await request_repeatedly(
        messages,
        read,
        ctx,
        max_tokens=limit_reply(max_tokens, ctx),
        reminder=reminder,
        flags=(f"{stage}_retried", f"{stage}_failed"),
        schema=schema,
        temperature=temperature,
        repeat=repeat,
        is_stored=is_stored,
    )
    return parsed


async def complete_parsed(
    messages: Sequence[Message],
    read: Callable[[str], T | None],
    ctx: Context,
    *,
    max_tokens: int,
    schema: Mapping[str, Any] | None = None,
    flag: str = "",
) -> T | None:
    """The parsed reply to an unchanged request; None after two that cannot be parsed.

    Args:
        flag: counts the replies that cannot be parsed; "" to count the failure of both by oneself.
    """
    flags = (flag,) * ATTEMPTS if flag else ()
    parsed, _ = await request_repeatedly(
        messages, read, ctx, max_tokens=max_tokens, schema=schema, flags=flags
    )
    return parsed


def limit_reply(max_tokens: int, ctx: Context) -> int:
    """The tokens that a reply may have: `max_tokens`, but at most half of the window."""
    if ctx.window is None:
        return max_tokens
    return min(max_tokens, ctx.window // 2)


def find_value(text: str, is_wanted: Callable[[Any], bool]) -> Any:
    """The first balanced JSON object or list in a reply that is wanted; None without one.

    Code fences and line breaks within strings are accepted; every string can be encoded.
    """
    for value in JsonScanner(text).read_all():
        if is_wanted(value):
            with contextlib.suppress(ValueError, RecursionError):
                # Escapes such as \ud800 decode to text that no file can hold.
                return json.loads(encodable(json.dumps(value, ensure_ascii=False)))
    return None


def has_words(text: str) -> bool:
    """Whether a text has a letter or a digit; small models copy the dots of an example."""
    return any(character.isalnum() for character in text)


def fit_texts(
    build: Callable[[Sequence[str]], Sequence[Message]],
    texts: Sequence[str],
    max_tokens: int,
    ctx: Context,
) -> Sequence[Message]:
    """A request about some texts, all shortened alike if it exceeds the window.

    The shortest one is returned even if it does not fit, so that the server's error names it.
    """
    limit = limit_reply(max_tokens, ctx)
    messages = build(texts)
    for tokens in SHORTER:
        if ctx.count_excess_tokens(messages, limit) <= 0:
            break
        messages = build([ctx.tokens.truncate(text, tokens) for text in texts])
        ctx.flag("texts_shortened")
    return messages
