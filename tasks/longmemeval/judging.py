"""The judge of LongMemEval: is an answer right, by the rule for its type of question?

The released judge takes "yes" anywhere in its reply for a pass.  Here the first word counts, and
the released rule is reported beside it (arXiv 2410.10813).
"""

from __future__ import annotations

import re

from personabench.hashing import digest
from personabench.metrics.judges.ask import Judge, JudgeReply, query_judge
from personabench.metrics.judges.fence import RULE, Fence

_PLAIN = (
    "Say yes if the response contains the reference answer or an equivalent of it, or all steps "
    "that lead to it. Say no if it contains only a part of the answer."
)
_RULES = {
    "temporal-reasoning": f"{_PLAIN} A number of days, weeks or months that is off by one is fine.",
    "knowledge-update": (
        "Say yes if the response gives the updated information of the reference answer as its "
        "answer. It may mention earlier information as well."
    ),
    "single-session-preference": (
        "The reference describes a response that suits the user. Say yes if the response recalls "
        "the user's personal information and makes use of it. It need not meet every point."
    ),
}
_ABSTENTION = (
    "The question cannot be answered from the conversations; the reference says why. Say yes if "
    "the response makes clear that the information is missing or incomplete."
)
_FORM = "Answer with yes or no only."
PROMPT = digest([_PLAIN, _RULES, _ABSTENTION, RULE, _FORM])[:12]
MAX_TOKENS = 10
# The reply has room for the verdict alone, so that its first word is no quotation.
_FIRST_WORD = re.compile(r"\W{0,20}(yes|no)\b", re.IGNORECASE)


async def judge_answer(
    judge: Judge, *, kind: str, is_abstention: bool, question: str, gold: str, answer: str
) -> JudgeReply[bool]:
    """Have a judge say whether an answer is right.

    Raises:
        BackendError: a call failed for good.
    """
    rule = _ABSTENTION if is_abstention else _RULES.get(kind, _PLAIN)
    system = (
        f"You check a response to a question about earlier conversations. {rule} {RULE} {_FORM}"
    )
    fence = Fence(question, gold, answer)
    user = (
        f"Question:\n{fence.wrap(question)}\n\nReference:\n{fence.wrap(gold)}\n\n"
        f"Response:\n{fence.wrap(answer)}"
    )
    return await query_judge(judge, system, user, read_verdict, max_tokens=MAX_TOKENS)


def read_verdict(reply: str) -> bool | None:
    """Read yes or no from the first word; None if it is another.

    A reply that takes the other word later, such as "No, yes would be wrong", keeps its first.
    """
    match = _FIRST_WORD.match(reply)
    return match[1].lower() == "yes" if match else None


def passes_officially(reply: str) -> bool:
    """The released rule: "yes" anywhere."""
    return "yes" in reply.lower()
