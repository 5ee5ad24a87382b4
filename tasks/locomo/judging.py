"""Two judges of an answer to a LoCoMo question.  The benchmark has none of its own.

`strict` accepts an answer with every fact of the gold and no contradiction.  `generous` accepts one
on the same topic or of the same date in another form, as published judges do: answers that are
wrong but vague pass it, so a table states which judge it used.
"""

from __future__ import annotations

import re
from typing import Literal

from personabench.metrics.judges import verdict_reader
from personabench.metrics.judges.ask import Judge, JudgeReply, query_judge
from personabench.metrics.judges.fence import RULE, Fence

Strictness = Literal["strict", "generous"]
_RULES: dict[Strictness, str] = {
    "strict": (
        "Accept the answer only if it states every fact of the reference and contradicts none of "
        "them. Another wording, another format of the same date and further detail are fine. A "
        "vague answer, a part of a list and a neighbouring date are not."
    ),
    "generous": (
        "Accept the answer if it is about the same thing as the reference, however it is put and "
        "however long it is. A date counts if it means the same day, month or year, in any form."
    ),
}
_FORM = (
    "First give your reason in one sentence. Then end with one line, either\n"
    "Verdict: right\nor\nVerdict: wrong"
)
_VERDICT = re.compile(
    r"[_#> ]{0,4}verdict_?\s{0,3}:_?\s{0,3}(right|wrong)[. _]{0,3}", re.IGNORECASE
)


async def judge_answer(
    judge: Judge, question: str, gold: str, answer: str, strictness: Strictness
) -> JudgeReply[bool]:
    """Have a judge say whether an answer is right.

    Raises:
        BackendError: a call failed for good.
    """
    system = (
        "You check answers to questions about a conversation of two people. "
        f"{_RULES[strictness]} {RULE}\n\n{_FORM}"
    )
    fence = Fence(question, gold, answer)
    user = (
        f"Question:\n{fence.wrap(question)}\n\nReference answer:\n{fence.wrap(gold)}\n\n"
        f"Answer to check:\n{fence.wrap(answer)}"
    )
    return await query_judge(judge, system, user, read_verdict)


def read_verdict(reply: str) -> bool | None:
    """Read the verdict that is alone on its line; None without one, or with both."""
    return verdict_reader.read_verdict(reply, _read_line)


def _read_line(line: str) -> bool | None:
    match = _VERDICT.fullmatch(line)
    return match[1].lower() == "right" if match else None
