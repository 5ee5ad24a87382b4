"""Scores given by a model: what is asked, how the reply is read, and what happens when it cannot be.

A judge is a pure function of a client and what is judged; it knows no run.  Replies put evidence first and the score
last.  One that cannot be read is asked for again, three times, then the item is unjudged: it has no score, and never a
default one.  Replies that cannot be read are not remembered by the client's cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from personabench.client import Client
from personabench.hashing import digest
from personabench.types import Call, Message, Request

RETRIES = 3
MAX_TOKENS = 512
_THOUGHTS = re.compile(r".*</think(?:ing)?>|<think(?:ing)?>.*", re.DOTALL | re.IGNORECASE)
_SCORE = re.compile(r"[\s*_`#>]*score[\s*_`]*:[\s*_`]*(\d+(?:\.\d+)?)(?:\s*/\s*10)?[\s.*_`]*", re.IGNORECASE)
_ANCHORS = (
    (0, "they have nothing in common but the item"),
    (2, "the same rating and item, otherwise other points, feelings and manner"),
    (4, "a few of the same points, told in another manner"),
    (6, "most of the same points or clearly the same manner, but not both"),
    (8, "most of the same points in a like tone, style and length"),
    (10, "as if the same person had written the same review twice"),
)
_SYSTEM = (
    "You compare two reviews of one item: the review that a person really wrote, and one that was generated in that "
    "person's name. Say how similar the generated review is to the real one in what it says, in feeling and in manner "
    "of writing. You judge likeness alone, not which of them is better.\n\nScale from 0 to 10, decimals allowed:\n"
    + "\n".join(f"{score}: {meaning}" for score, meaning in _ANCHORS)
    + "\n\nFirst give your reasons in two or three sentences. Then end with one line of the form\nScore: NUMBER"
)
SIMILARITY_PROMPT = digest([_SYSTEM, "item, rating, title, real, generated"])
"""Names the wording of the similarity judge; part of its score's protocol."""


@dataclass(frozen=True)
class Judged:
    """A judge's verdict.

    Attributes:
        value: the score, or None where the item is unjudged.
        evidence: the last reply.
        calls: receipts of every call, `len(calls) - 1` of them repetitions.
    """

    value: float | None
    evidence: str
    calls: tuple[Call, ...]


async def similarity(
    client: Client,
    *,
    item: str,
    rating: str,
    review_title: str,
    real: str,
    generated: str,
    group: str = "",
) -> Judged:
    """How similar a generated review is to the real one, 0 to 1 (DPL's S metrics, arXiv 2503.02450, at temperature 0).

    Args:
        item: title and description.

    Raises:
        BackendError: a call failed for good.
    """
    user = (
        f"Item: {item}\n\nRating: {rating} of 5\nReview title: {review_title}\n\n"
        f"Real review:\n{real}\n\nGenerated review:\n{generated}"
    )
    judged = await ask(client, (Message("system", _SYSTEM), Message("user", user)), read_score, group=group)
    return judged if judged.value is None else Judged(judged.value / 10, judged.evidence, judged.calls)


async def ask(
    client: Client, messages: Sequence[Message], read: Callable[[str], float | None], *, group: str = ""
) -> Judged:
    """Ask until a reply can be read, at most once and three repetitions, each a draw of its own.

    Raises:
        BackendError: a call failed for good.
    """
    calls: list[Call] = []
    text = ""
    for draw in range(RETRIES + 1):
        request = Request(tuple(messages), max_tokens=MAX_TOKENS, draw=draw)
        response, call = await client.complete(request, "judge", group, lambda reply: read(reply) is not None)
        calls.append(call)
        text = response.text
        if (value := read(text)) is not None:
            return Judged(value, text, tuple(calls))
    return Judged(None, text, tuple(calls))


def read_score(reply: str) -> float | None:
    """The score on the last line of a reply, 0 to 10, thoughts and markdown aside; None if there is none in range."""
    *_, last = ["", *_THOUGHTS.sub("", reply).strip().splitlines()]
    found = _SCORE.fullmatch(last)
    value = float(found[1]) if found else -1.0
    return value if 0 <= value <= 10 else None
