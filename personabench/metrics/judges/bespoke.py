"""BESPOKE's scores (arXiv 2509.21106): grades in the place of one annotator, and recall of claims.

A judge grades need alignment, depth, tone and explanation style from 1 to 5, and says for each gold
claim whether the answer contains it.  A criterion without a grade after all retries is unjudged
alone; an answer without gold claims has no recall.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from personabench.hashing import digest
from personabench.metrics.judges.ask import RETRIES, Judge, query_judge
from personabench.metrics.judges.fence import RULE, Fence
from personabench.metrics.judges.verdict_reader import read_verdict, read_verdicts
from personabench.types import Message

_POINTS = 20
"""Points of one grade, so that 5 is 100."""
_GRADE = re.compile(
    r"[_#> -]{0,4}([A-Za-z][A-Za-z0-9_-]{0,39}?)_?\s{0,3}:_?\s{0,3}<?\s?([1-5])(?:\s?/\s?5)?\s?>?"
    r"[. _]{0,3}"
)
_ENTAILED = re.compile(r"[_#>\" -]{0,4}(true|yes|false|no)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?…。！？])\s+|\n+")
_CLAIM = (
    "You check whether an answer contains a claim: whether its core meaning is stated, in any "
    f"words. A claim that the answer contradicts is not contained. {RULE} Begin your reply with "
    "yes or no."
)
# The hash names the wording; it is part of the score's protocol.
PROMPT = digest([_CLAIM, "claim, answer"])
_CLAIM_TOKENS = 64


class Grades(NamedTuple):
    """Grades by criterion, 1 to 5, without unjudged ones; the last reply; and the replies."""

    grades: Mapping[str, int]
    evidence: str
    attempts: int


async def grade_answer(
    judge: Judge, system: str, user: str, criteria: Sequence[str], max_tokens: int
) -> Grades:
    """Have a judge grade an answer; a missing grade is requested again, with the others.

    Args:
        system, user: the judge's prompt, which requests a line `CRITERION: GRADE` for each.

    Raises:
        BackendError: a call failed for good.
    """
    messages = Message("system", system), Message("user", user)
    grades: dict[str, int] = {}
    reply = ""
    for attempt in range(RETRIES + 1):
        reply = await judge.complete(
            messages,
            max_tokens=max_tokens,
            temperature=0.0,
            repeat=attempt,
            accept=lambda text: len(read_grades(text, criteria)) == len(criteria),
        )
        # A grade that was read stays: a retry is for the missing ones.
        grades = read_grades(reply, criteria) | grades
        if len(grades) == len(criteria):
            return Grades(grades, reply, attempt + 1)
    return Grades(grades, reply, RETRIES + 1)


def read_grades(reply: str, criteria: Sequence[str]) -> dict[str, int]:
    """Parse the grades of a reply, each alone on its line, with or without angle brackets."""
    names = {name.lower(): name for name in criteria}

    def read_line(line: str) -> tuple[str, int] | None:
        match = _GRADE.fullmatch(line)
        name = names.get(match[1].lower()) if match else None
        return None if match is None or name is None else (name, int(match[2]))

    return read_verdicts(reply, read_line)


async def check_claims(judge: Judge, claims: Sequence[str], answer: str) -> list[bool | None]:
    """Have a judge say for each claim, one call each, whether the answer contains it.

    None is an unjudged claim.

    Raises:
        BackendError: a call failed for good.
    """

    async def check(claim: str) -> bool | None:
        fence = Fence(claim, answer)
        user = f"Claim:\n{fence.wrap(claim)}\n\nAnswer:\n{fence.wrap(answer)}"
        reply = await query_judge(judge, _CLAIM, user, read_entailment, max_tokens=_CLAIM_TOKENS)
        return reply.value

    return list(await asyncio.gather(*map(check, claims)))


def read_entailment(reply: str) -> bool | None:
    """Parse the first word of a reply: true or yes, false or no."""

    def read_line(line: str) -> bool | None:
        match = _ENTAILED.match(line)
        return None if match is None else match[1].lower() in ("true", "yes")

    return read_verdict(reply, read_line)


def split_claims(references: Sequence[str]) -> list[str]:
    """Split reference answers into sentences or lines, the claims of data without marked ones."""
    sentences = [part.strip(" -*•\t") for text in references for part in _SENTENCE.split(text)]
    return [sentence for sentence in sentences if any(map(str.isalnum, sentence))]


def score_answer(
    grades: Mapping[str, int],
    claims: Sequence[bool | None],
    criteria: Sequence[str],
) -> dict[str, float]:
    """Return the scores of an answer, 0 to 100: of each criterion, `recall`, and `average`.

    The average needs every criterion and every claim; without claims it is that of the criteria.
    """
    scores = {name: float(_POINTS * grades[name]) for name in criteria if name in grades}
    judged = [claim for claim in claims if claim is not None]
    if judged:
        scores["recall"] = 100 * sum(judged) / len(judged)
    is_complete = all(name in grades for name in criteria) and len(judged) == len(claims)
    return scores | {"average": fmean(scores.values())} if is_complete else scores
