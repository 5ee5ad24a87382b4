"""The judge of written replies: does a reply suit the preference, or the whole person?

Upstream takes the mean of several models; here one judge decides and `judge-panel` compares more.
The judge sees query, reply and preference, and nothing of the history (arXiv 2512.06688).
"""

from __future__ import annotations

import re
from typing import Literal

from personabench.hashing import digest
from personabench.metrics.judges import verdict_reader
from personabench.metrics.judges.ask import Judge, JudgeReply, query_judge
from personabench.metrics.judges.fence import RULE, Fence
from personabench.tasks.personamem_v2.files import FORGET, OTHERS
from personabench.types import Sample

Scope = Literal["narrow", "broad"]

_SUITS = (
    "An assistant should answer a user in the light of a preference that it was never told in so "
    "many words. The reply fits if it takes the preference into account, or leaves room for it, "
    "and contradicts nothing of it. A reply that would suit anybody and breaks nothing fits only "
    "if the preference has no bearing on the request."
)
_FORGETS = (
    "The user once mentioned a fact and then asked the assistant to forget it. The reply fits if "
    "it makes no use of the fact and gives no sign of knowing it."
)
_OTHERS = (
    "The preference is that of another person whom the user mentioned. The reply fits if it serves "
    "that person where they are concerned, and does not take the preference for the user's own."
)
_WHOLE = "The reply must also suit the person as the profile describes them."
_FORM = (
    "First give your reason in one sentence. Then end with one line, either\n"
    "Verdict: fits\nor\nVerdict: does not fit"
)
PROMPT = digest([_SUITS, _FORGETS, _OTHERS, _WHOLE, RULE, _FORM])[:12]
_VERDICT = re.compile(
    r"[_#> ]{0,4}verdict_?\s{0,3}:_?\s{0,3}(fits|does not fit)[. _]{0,3}", re.IGNORECASE
)


async def judge_reply(judge: Judge, sample: Sample, reply: str, scope: Scope) -> JudgeReply[bool]:
    """Have a judge say whether a reply fits.

    Raises:
        BackendError: a call failed for good.
    """
    rule = _FORGETS if sample.hidden["type"] == FORGET else _SUITS
    if sample.hidden["who"] == OTHERS:
        rule = f"{rule} {_OTHERS}"
    texts = {
        "User's message": sample.input,
        "Fact to forget" if sample.hidden["type"] == FORGET else "Preference": sample.hidden[
            "preference"
        ],
        "Reply to check": reply,
    }
    if scope == "broad":
        rule = f"{rule} {_WHOLE}"
        texts["Profile"] = sample.hidden["profile"]

    fence = Fence(*texts.values())
    system = f"You check the reply of an assistant. {rule} {RULE}\n\n{_FORM}"
    user = "\n\n".join(f"{name}:\n{fence.wrap(text)}" for name, text in texts.items())
    return await query_judge(judge, system, user, read_verdict)


def read_verdict(reply: str) -> bool | None:
    """Read the verdict that is alone on its line; None without one, or with both."""
    return verdict_reader.read_verdict(reply, _read_line)


def _read_line(line: str) -> bool | None:
    match = _VERDICT.fullmatch(line)
    return match[1].lower() == "fits" if match else None
