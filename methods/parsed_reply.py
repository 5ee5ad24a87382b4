"""Replies that have a form: requested once more with a reminder, then counted as failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from personabench import Context, Message
from personabench.methods.rpm.replies import limit_reply

T = TypeVar("T")
ATTEMPTS = 2
# Token limits to which texts are shortened, one after the other, until the request fits.
_SHORTER = (1024, 384, 128, 32)


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
    """What `read` makes of the reply; None after two replies that it cannot read.

    Flags: `<stage>_retried`, then `<stage>_failed`.

    Args:
        reminder: the text that is added to the last message of the second request.
        repeat: the index of the first request among equal ones at a temperature above 0.
        is_stored: store replies that cannot be read too, for work that several questions share: it
            would be done again, and differently, for each of them.
    """
    *earlier, last = messages
    reminded = [*earlier, Message(last.role, last.content + reminder)]
    for attempt in range(ATTEMPTS):
        response = await ctx.complete(
            reminded if attempt else messages,
            max_tokens=limit_reply(max_tokens, ctx),
            temperature=temperature,
            schema=schema,
            repeat=repeat,
            attempt=attempt,
            attempts=ATTEMPTS,
            # A reply stored in the cache would be returned again for ever.
            accept=None if is_stored else lambda text: read(text) is not None,
        )
        parsed = read(response.text)
        if parsed is not None:
            return parsed
        ctx.flag(f"{stage}_failed" if attempt else f"{stage}_retried")
    return None


async def complete_parsed(
    messages: Sequence[Message],
    read: Callable[[str], T | None],
    ctx: Context,
    *,
    max_tokens: int,
    schema: Mapping[str, Any] | None = None,
    flag: str = "",
) -> T | None:
    """What `read` makes of the reply to an unchanged request; None after two that it cannot read.

    Args:
        flag: counts the replies that cannot be read; "" to count the failure of both by oneself.
    """
    for attempt in range(ATTEMPTS):
        response = await ctx.complete(
            messages,
            max_tokens=max_tokens,
            schema=schema,
            repeat=attempt,
            attempt=attempt,
            attempts=ATTEMPTS,
            accept=lambda text: read(text) is not None,
        )
        parsed = read(response.text)
        if parsed is not None:
            return parsed
        if flag:
            ctx.flag(flag)
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
    for tokens in _SHORTER:
        if ctx.count_excess_tokens(messages, limit) <= 0:
            break
        messages = build([ctx.tokens.truncate(text, tokens) for text in texts])
        ctx.flag("texts_shortened")
    return messages
