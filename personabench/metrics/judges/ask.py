"""How any judge is asked, what becomes of a reply that cannot be read, and how far a judge is a stranger to the judged.

Replies put evidence first and the score last.  One that cannot be read is asked for again, three times, then the item
is unjudged: it has no score, and never a default one.  Every sample and every repetition is a draw of its own, so that
none is answered from the memory of another; a reply that cannot be read is not remembered at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from personabench.hashing import digest
from personabench.models.reply import split
from personabench.types import Message

RETRIES = 3
MAX_TOKENS = 512
T = TypeVar("T")


class Judge(Protocol):
    """What is needed of a judge: `personabench.roles.Role` is one."""

    async def complete(
        self,
        messages: Sequence[Message] | str,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        repeat: int = 0,
        accept: Callable[[str], bool] | None = None,
    ) -> str:
        """The reply to a conversation."""


@dataclass(frozen=True)
class Judged(Generic[T]):
    """What a judge said.

    Attributes:
        value: as it was read, or None where the item is unjudged.
        evidence: the last reply.
        asked: how often it was asked, 1 to 4.
    """

    value: T | None
    evidence: str
    asked: int


async def ask(
    judge: Judge,
    system: str,
    user: str,
    read: Callable[[str], T | None],
    *,
    temperature: float = 0.0,
    max_tokens: int = MAX_TOKENS,
    sample: int = 0,
) -> Judged[T]:
    """Ask until a reply can be read, at most once and three repetitions.

    Args:
        read: makes the score of a reply without its thoughts; None where it cannot.
        sample: which of several samples of one question this is.

    Raises:
        BackendError: a call failed for good.
    """
    messages = Message("system", system), Message("user", user)
    reply = ""
    for repetition in range(RETRIES + 1):
        reply = await judge.complete(
            messages,
            max_tokens=max_tokens,
            temperature=temperature,
            repeat=sample * (RETRIES + 1) + repetition,
            accept=lambda text: read(spoken(text)) is not None,
        )
        if (value := read(spoken(reply))) is not None:
            return Judged(value, reply, repetition + 1)
    return Judged(None, reply, RETRIES + 1)


def spoken(reply: str) -> str:
    """A reply without the model's thoughts; of unfinished ones nothing is left."""
    return split(reply).answer.strip()


def swapped(item: str, seed: int) -> bool:
    """Whether the second answer is shown first: the same in every process, even over many items."""
    return int(digest([item, seed])[:8], 16) % 2 == 1


def kinship(judge: str, other: str) -> str | None:
    """What makes a judge partial to a model, by their names: that it is the same, or of the same family."""
    if judge == other:
        return f"the judge is {other} itself"
    return (
        f"the judge {judge} is of the same family as {other}"
        if _family(judge) == _family(other)
        else None
    )


def _family(name: str) -> str:
    found = re.match(r"[a-z]+", name.rpartition("/")[2].casefold())
    return found[0] if found else name
