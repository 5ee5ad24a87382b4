"""PLUME's judge: whether a text keeps the preferences, and whether an inferred one is the true one.

Three questions: one about each component of the preference, one about all of them together, one
about what a method inferred.  The judge sees neither the document nor the user's text.  A reply
without a verdict leaves its item out: the released code takes it for a neutral or worst verdict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from personabench.hashing import digest
from personabench.metrics.judges import verdict_reader
from personabench.metrics.judges.ask import JudgeReply, query_judge
from personabench.metrics.judges.fence import RULE, Fence
from personabench.models.roles import Role

_END = "First give your reasons in one to three sentences. Then end with one line:\nVerdict: NUMBER"
_COMPONENT = (
    "You know how one person likes to write, and examine a text for one single habit. Look for "
    f"places in the text that show the habit, or the opposite of it. {RULE}\n\n"
    "Verdicts: 2, the habit is plain to see; 1, it shows a little; 0, nothing speaks for or "
    "against it; -1, the text goes against it a little; -2, the text is plainly the opposite.\n\n"
    f"{_END}"
)
_SET = (
    "You know how one person likes to write, and examine how many of their habits a text keeps. "
    f"{RULE}\n\n"
    "Verdicts: 2, it keeps all of them; 1, most of them; 0, about half of them; -1, few of them; "
    "-2, none of them.\n\n"
    f"{_END}"
)
_SIMILARITY = (
    "Somebody guessed how a person likes to write. Compare the guess with the truth: how alike "
    f"would two texts be, one written by either? {RULE}\n\n"
    "Verdicts: 4, as good as the same; 3, much alike; 2, alike in part; 1, hardly alike; 0, not "
    "alike at all.\n\n"
    f"{_END}"
)
_SCORES = range(-2, 3)
_DEGREES = range(5)
_LINE = re.compile(r"[_#> ]{0,4}verdict_?\s{0,3}:_?\s{0,3}([-+\u2212]?\d)[. _]{0,3}", re.IGNORECASE)
PROMPT = digest([_COMPONENT, _SET, _SIMILARITY, "text, habit, habits, guess, truth"])[:12]
"""The hash of the judge's wording."""


def read_score(reply: str) -> int | None:
    """Read a verdict from -2 to 2; None without one, or with several."""
    return _read_verdict(reply, _SCORES)


def read_degree(reply: str) -> int | None:
    """Read a verdict from 0 to 4; None without one, or with several."""
    return _read_verdict(reply, _DEGREES)


def _read_verdict(reply: str, scale: range) -> int | None:
    def read_line(line: str) -> int | None:
        match = _LINE.fullmatch(line)
        return int(match[1].replace("\u2212", "-")) if match else None

    verdict = verdict_reader.read_verdict(reply, read_line)
    return verdict if verdict in scale else None


async def judge_component(judge: Role, text: str, component: str) -> JudgeReply[int]:
    """Have the judge score how well a text keeps one component of a preference, -2 to 2.

    Raises:
        BackendError: a call failed for good.
    """
    return await query_judge(judge, _COMPONENT, _show(text=text, habit=component), read_score)


async def judge_set(judge: Role, text: str, components: Sequence[str]) -> JudgeReply[int]:
    """Have the judge score how well a text keeps a whole preference, -2 to 2.

    Raises:
        BackendError: a call failed for good.
    """
    habits = "\n".join(f"- {component}" for component in components)
    return await query_judge(judge, _SET, _show(text=text, habits=habits), read_score)


async def judge_similarity(judge: Role, inferred: str, true: str) -> JudgeReply[int]:
    """Have the judge say how similar an inferred preference is to the true one, 0 to 4.

    Raises:
        BackendError: a call failed for good.
    """
    return await query_judge(judge, _SIMILARITY, _show(guess=inferred, truth=true), read_degree)


def _show(**parts: str) -> str:
    fence = Fence(*parts.values())
    return "\n\n".join(
        f"{name.capitalize()}:\n{fence.wrap(text or '(empty)')}" for name, text in parts.items()
    )
