"""Query a judge, retry unparsed replies, and check a judge's independence of the judged model.

Replies put evidence first and the score last.  An unparsed reply is requested again, three times;
then the item is unjudged: it has no score, and never a default one.  Every repeat and every retry
has an index of its own in the request, so that the response cache answers none with the reply of
another; an unparsed reply is not cached at all.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from personabench.hashing import digest
from personabench.types import Message

RETRIES = 3
MAX_TOKENS = 512
T = TypeVar("T")

# The end of a reply, where its score should be.
_LOGGED_CHARACTERS = 300
_log = logging.getLogger("personabench.judging")


class Judge(Protocol):
    """The interface of a judge, implemented by `personabench.models.roles.Role`."""

    async def complete(
        self,
        messages: Sequence[Message] | str,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        repeat: int = 0,
        accept: Callable[[str], bool] | None = None,
    ) -> str:
        """Return the reply to a conversation; `accept` decides whether it may be cached."""


@dataclass(frozen=True)
class JudgeReply(Generic[T]):
    """The parsed reply of a judge.

    Attributes:
        value: the parsed score, or None if the item is unjudged.
        evidence: the text of the last reply.
        attempts: how many replies were requested, 1 to 4.
    """

    value: T | None
    evidence: str
    attempts: int


async def query_judge(
    judge: Judge,
    system: str,
    user: str,
    parse: Callable[[str], T | None],
    *,
    temperature: float = 0.0,
    max_tokens: int = MAX_TOKENS,
    repeat: int = 0,
    quiet: bool = False,
) -> JudgeReply[T]:
    """Query a judge until a reply can be parsed, at most once and three retries.

    Args:
        parse: reads the score of a reply (see `verdict_reader`); None if it cannot.
        repeat: the index of an intended repetition of the same question.
        quiet: do not log an unparsed reply, for tasks whose texts are sensitive.

    Raises:
        BackendError: a call failed for good.
    """

    messages = Message("system", system), Message("user", user)
    reply = ""
    for attempt in range(RETRIES + 1):
        reply = await judge.complete(
            messages,
            max_tokens=max_tokens,
            temperature=temperature,
            # Repeats leave room for all retries of the repeat before, so no two share an index.
            repeat=repeat * (RETRIES + 1) + attempt,
            accept=lambda text: parse(text) is not None,
        )
        value = parse(reply)
        if value is not None:
            return JudgeReply(value, reply, attempt + 1)
    # The reply is stored nowhere else, and without it nobody can tell what to mend.
    _log.warning(
        "no score could be read in %d replies of the judge; the last: %r",
        RETRIES + 1,
        "(withheld)" if quiet else reply[-_LOGGED_CHARACTERS:],
    )
    return JudgeReply(None, reply, RETRIES + 1)


def is_swapped(item: str, seed: int) -> bool:
    """Whether the second answer is shown first; a hash decides, so every process agrees."""
    return int(digest([item, seed])[:8], 16) % 2 == 1


def check_independence(judge: str, model: str) -> str | None:
    """Warn about a judge that is the model itself or of its family, by their names.

    None if the names are unrelated.
    """
    if judge == model:
        return f"the judge is {model} itself"
    if _model_family(judge) == _model_family(model):
        return f"the judge {judge} is of the same family as {model}"
    return None


def _model_family(name: str) -> str:
    base_name = name.rpartition("/")[2].casefold()
    # "qwen3-8b" and "qwen2.5-7b" are both "qwen".
    prefix = re.match(r"[a-z]+", base_name)
    return prefix[0] if prefix else name
