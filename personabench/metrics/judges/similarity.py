"""Similarity of a generated review to the real one: DPL's S metrics (arXiv 2503.02450).

The judge answers at temperature 0.  It rates closeness to the user's text, not which text is
better.
"""

from __future__ import annotations

import re

from personabench.hashing import digest
from personabench.metrics.judges.ask import Judge, JudgeReply, query_judge
from personabench.metrics.judges.fence import RULE, Fence
from personabench.metrics.judges.verdict_reader import read_verdict

_SCORE = re.compile(
    r"[_#> ]{0,4}score_?\s{0,3}:_?\s{0,3}(\d{1,3}(?:\.\d{1,9})?)(?:\s?/\s?10)?[. _]{0,3}",
    re.IGNORECASE,
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
    f"them is better. {RULE}\n\nScale from 0 to 10, decimals allowed:\n"
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
    title = f"{review_title}\n({rating} of 5)"
    fence = Fence(item, title, real, generated)
    user = (
        f"Item:\n{fence.wrap(item)}\n\nReview title, and rating:\n{fence.wrap(title)}\n\n"
        f"Real review:\n{fence.wrap(real)}\n\nGenerated review:\n{fence.wrap(generated)}"
    )
    return await query_judge(judge, _SYSTEM, user, read_score)


def read_score(reply: str) -> float | None:
    """Parse the score that is alone on its line, from 0 to 10, as 0 to 1.

    None without a score in this range, or with several different ones.
    """
    score = read_verdict(reply, _read_line)
    return None if score is None or score > 10 else score / 10


def _read_line(line: str) -> float | None:
    match = _SCORE.fullmatch(line)
    return None if match is None else float(match[1])
