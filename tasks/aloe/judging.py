"""The judge of ALOE: how well one reply is tailored to its user, from 1 to 5.

The judge sees the user's facts and manner, one message and the reply to it, and no earlier turn
(arXiv 2410.03642).
"""

from __future__ import annotations

import re

from personabench.hashing import digest
from personabench.metrics.judges import verdict_reader
from personabench.metrics.judges.ask import Judge, JudgeReply, query_judge
from personabench.metrics.judges.fence import RULE, Fence

_SYSTEM = (
    "You assess how well an assistant's reply is tailored to one particular user. Consider three "
    "things: whether the style of the reply suits the user's manner; whether its topics fit what "
    f"the user cares about; whether it is human, engaging and concise. {RULE}\n\n"
    "Scores: 1 is not tailored at all, 2 hardly, 3 in part, 4 well, 5 as if written by somebody "
    "who knows the user.\n\n"
    "First give your reason in one or two sentences. Then end with one line:\nScore: NUMBER"
)
_PARTS = ("Facts about the user", "Manner of the user", "Message of the user", "Reply to assess")
_LINE = re.compile(r"[_#> ]{0,4}(?:score_?\s{0,3}:_?\s{0,3})?([1-5])(?:\s?/\s?5)?[. _]{0,3}", re.I)
PROMPT = digest([_SYSTEM, RULE, *_PARTS])[:12]


async def judge_reply(
    judge: Judge, profile: str, personality: str, message: str, reply: str
) -> JudgeReply[int]:
    """Have the judge score one reply.

    Raises:
        BackendError: a call failed for good.
    """
    texts = (profile, personality, message, reply or "(empty)")
    fence = Fence(*texts)
    shown = [f"{part}:\n{fence.wrap(text)}" for part, text in zip(_PARTS, texts, strict=True)]
    return await query_judge(judge, _SYSTEM, "\n\n".join(shown), read_score)


def read_score(reply: str) -> int | None:
    """Read the score that is alone on its line; None without one, or with several."""
    return verdict_reader.read_verdict(reply, _read_line)


def _read_line(line: str) -> int | None:
    match = _LINE.fullmatch(line)
    return int(match[1]) if match else None
