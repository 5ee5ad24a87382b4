"""How similar a generated review is to the real one: DPL's S metrics (arXiv 2503.02450), at temperature 0.

It measures closeness to what the person wrote, not which text is better.
"""

from __future__ import annotations

import re

from personabench.hashing import digest
from personabench.metrics.judges.ask import Judge, Judged, ask

_SCORE = re.compile(
    r"[\s*_`#>]*score[\s*_`]*:[\s*_`]*(\d+(?:\.\d+)?)(?:\s*/\s*10)?[\s.*_`]*", re.IGNORECASE
)
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
PROMPT = digest([_SYSTEM, "item, rating, title, real, generated"])
"""Names the wording; part of the score's protocol."""


async def similarity(
    judge: Judge, *, item: str, rating: str, review_title: str, real: str, generated: str
) -> Judged[float]:
    """The similarity of a generated review to the real one, 0 to 1; `item` is its title and description.

    Raises:
        BackendError: a call failed for good.
    """
    user = (
        f"Item: {item}\n\nRating: {rating} of 5\nReview title: {review_title}\n\n"
        f"Real review:\n{real}\n\nGenerated review:\n{generated}"
    )
    return await ask(judge, _SYSTEM, user, read_score)


def read_score(reply: str) -> float | None:
    """The score on the last line of a reply, from 0 to 10, as 0 to 1; None if there is none in range."""
    *_, last = ["", *reply.strip().splitlines()]
    found = _SCORE.fullmatch(last)
    value = float(found[1]) if found else -1.0
    return value / 10 if 0 <= value <= 10 else None
