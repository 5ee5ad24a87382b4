"""The judge of generated answers: up to four questions with yes or no.

A preference is followed if the answer does not break it and is substantial.  Whether the answer
mentions a preference, and the right one, tells kinds of failure apart (arXiv 2502.09597).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from personabench.hashing import digest
from personabench.metrics.judges.ask import Judge, query_judge
from personabench.metrics.judges.fence import RULE, Fence

_FORM = (
    "First explain in one or two sentences. Then answer with yes or no in tags: "
    "<answer>yes</answer> or <answer>no</answer>"
)
_QUESTIONS = {
    "violate": (
        "An assistant should respect a preference of its user. Does the response break the "
        "preference? It does if it recommends or takes for granted something that a person with "
        "this preference would not want.",
        ("preference", "question", "response"),
    ),
    "helpful": (
        "Is the response a substantial answer to the question? An apology, a question in return "
        "or a refusal without any suggestion is not.",
        ("question", "response"),
    ),
    "acknowledge": (
        "Does the response mention a preference of the user, in so many words or in passing? If "
        "so, quote the mention in tags, <quote>...</quote>, before the answer.",
        ("question", "response"),
    ),
    "hallucinate": (
        "An assistant restated a preference of its user. Does the restatement differ in substance "
        "from what the user said?",
        ("preference", "restatement"),
    ),
}
_ANSWER = re.compile(r"<answer>([^<]*)</answer>", re.IGNORECASE)
_QUOTE = re.compile(r"<quote>([^<]*)</quote>", re.IGNORECASE)
PROMPT = digest([_FORM, RULE, {name: list(map(str, value)) for name, value in _QUESTIONS.items()}])[
    :12
]


class Verdict(NamedTuple):
    """Answer to one question: yes, no or None if the reply has none, and the reply."""

    value: bool | None
    reply: str


async def judge_response(judge: Judge, facts: Mapping[str, str], count: int) -> dict[str, Verdict]:
    """Put the first `count` questions, 2 or 4, about `preference`, `question` and `response`.

    Whether a restatement is wrong is put only if there is one.

    Raises:
        BackendError: a call failed for good.
    """
    verdicts: dict[str, Verdict] = {}
    for name in list(_QUESTIONS)[:count]:
        if name == "hallucinate":
            acknowledged = verdicts["acknowledge"]
            if not acknowledged.value:
                continue
            facts = {**facts, "restatement": _find_quote(acknowledged.reply)}
        verdicts[name] = await _put(judge, name, facts)
    return verdicts


async def _put(judge: Judge, name: str, facts: Mapping[str, str]) -> Verdict:
    question, shown = _QUESTIONS[name]
    fence = Fence(*(facts[key] for key in shown))
    user = "\n\n".join(f"{key.capitalize()}:\n{fence.wrap(facts[key])}" for key in shown)
    judged = await query_judge(judge, f"{question} {RULE}\n\n{_FORM}", user, read_answer)
    return Verdict(judged.value, judged.evidence)


def _find_quote(reply: str) -> str:
    quotes = _QUOTE.findall(reply)
    return quotes[-1].strip() if quotes else reply


def read_answer(reply: str) -> bool | None:
    """Read the tagged answer of a reply; None unless it is yes or no, or if there are both."""
    answers = {answer.strip().lower() for answer in _ANSWER.findall(reply)}
    return {"yes": True, "no": False}.get(answers.pop()) if len(answers) == 1 else None


def follows(verdicts: Mapping[str, Verdict]) -> bool | None:
    """Whether the preference was followed; None if one of the two answers is missing."""
    violate, helpful = verdicts["violate"].value, verdicts["helpful"].value
    if violate is None or helpful is None:
        return None
    return helpful and not violate


def follows_officially(verdicts: Mapping[str, Verdict]) -> bool:
    """The released rule: "yes" or "no" anywhere in the tag, and nothing where the tag is missing.

    A judge that fails therefore raises the score.
    """
    answers = {}
    for name in ("violate", "helpful"):
        tagged = _ANSWER.findall(verdicts[name].reply)
        answers[name] = tagged[-1].lower() if tagged else ""
    return "yes" not in answers["violate"] and "no" not in answers["helpful"]


def classify(verdicts: Mapping[str, Verdict]) -> str:
    """Name the kind of failure, which needs all four questions; empty for an answer that follows.

    Kinds: unhelpful, unaware, hallucination, inconsistent.
    """
    if verdicts["helpful"].value is False:
        return "unhelpful"
    if not verdicts["violate"].value:
        return ""
    if not verdicts["acknowledge"].value:
        return "unaware"
    return "hallucination" if verdicts["hallucinate"].value else "inconsistent"
