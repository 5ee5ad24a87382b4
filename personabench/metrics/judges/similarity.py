"""Similarity of a generated review to the real one: DPL's S metrics (arXiv 2503.02450).

The judge answers at temperature 0.  It rates closeness to the user's text, not which text is
better.
"""

from __future__ import annotations

import re

from personabench.hashing import digest
from personabench.metrics.judges.ask import Judge, JudgeReply, query_judge

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
    "You compare two reviews of one item: the review that a person really wrote, and one that was "
    "generated in that person's name. Say how similar the generated review is to the real one in "
    "what it says, in feeling and in manner of writing. You judge likeness alone, not which of "
    "them is better.\n\nScale from 0 to 10, decimals allowed:\n"
    + "\n".join(f"{score}: {meaning}" for score, meaning in _ANCHORS)
    + "\n\nFirst give your reasons in two or three sentences. Then end with one line of the form\n"
    "Score: NUMBER"
)
# The hash names the wording; it is part of the score's protocol.
PROMPT = digest([_SYSTEM, "item, rating, title, real, generated"])


async def rate_similarity(
    judge: Judge,
    *,
    item: str,
    rating: str,
    review_title: str,
    real: str,
    generated: str,
) -> JudgeReply[float]:
    """Rate the similarity of a generated review to the real one, 0 to 1.

    `item` is its title and description.

    Raises:
        BackendError: a call failed for good.
    """
    user = (
        f"Item: {item}\n\nRating: {rating} of 5\nReview title: {review_title}\n\n"
        f"Real review:\n{real}\n\nGenerated review:\n{generated}"
    )
    return await query_judge(judge, _SYSTEM, user, read_score)


def read_score(reply: str) -> float | None:
    """Parse the score on the last line of a reply, from 0 to 10, as 0 to 1.

    None if the line has no score in this range.
    """
    reply_lines = reply.strip().splitlines()
    match = _SCORE.fullmatch(reply_lines[-1]) if reply_lines else None
    if match is None:
        return None
    score = float(match[1])
    return score / 10 if 0 <= score <= 10 else None
