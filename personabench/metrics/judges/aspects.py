"""Aspects of an answer against those of the user's own text, after ExPerT (arXiv 2501.14956).

A judge splits both texts into aspects, each with a quotation, then names for every aspect of the
answer the aspect of the user's text that it matches, and whether both agree in each criterion, such
as content and style.  Unmatched aspects cost precision, missing ones recall.  The steps and the
scale are ours; the paper's prompts are not used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from personabench.hashing import digest
from personabench.metrics.judges.ask import Judge, JudgeReply, query_judge
from personabench.metrics.judges.fence import RULE, Fence
from personabench.metrics.judges.verdict_reader import read_verdicts

Degree = Literal["yes", "partly", "no"]
DEGREES: Mapping[Degree, float] = {"yes": 1.0, "partly": 0.5, "no": 0.0}
MAX_ASPECTS = 10
_SPLIT = (
    "You split a text into its aspects: the separate things that it says or does, from one to "
    f"{MAX_ASPECTS}. {RULE} Write one line for each aspect, numbered from 1, of the form\n"
    "NUMBER: what it is about, and a short quotation from the text"
)
_MATCH = (
    "You compare an answer with a text that a user wrote, by their aspects. For every aspect of "
    "the answer (A1, A2, ...) name the aspect of the user's text (U1, U2, ...) that is about the "
    "same, each at most once, and say for each criterion whether both agree: yes, partly or no."
)
# The hash names the wording; it is part of the score's protocol.
PROMPT = digest([_SPLIT, _MATCH, "request, answer, text, aspects"])
_SPLIT_TOKENS = 512
_LINE_TOKENS = 32
_ASPECT = re.compile(r"[_#> -]{0,4}(\d{1,2})_?\s{0,3}[:.)]\s{0,3}(\S.{0,600})")
_MATCHED = re.compile(
    r"[_#> -]{0,4}A(\d{1,2})_?\s{0,3}:\s{0,3}(?:U(\d{1,2})|none)\b(.{0,400})", re.IGNORECASE
)


class Match(NamedTuple):
    """The aspect of the user's text that one of the answer matches, and degrees by criterion."""

    aspect: int
    degrees: tuple[Degree, ...]


class AspectScores(NamedTuple):
    """Scores from 0 to 1: F of precision and recall, both, and the mean degree by criterion.

    The means are over matched aspects, and empty without any.
    """

    f: float
    precision: float
    recall: float
    criteria: Mapping[str, float]


class Comparison(NamedTuple):
    """The scores, None if a step is unjudged, the judge's last reply, and the number of replies."""

    scores: AspectScores | None
    evidence: str
    attempts: int


async def compare_aspects(
    judge: Judge, *, request: str, answer: str, own: str, criteria: Mapping[str, str]
) -> Comparison:
    """Compare an answer with the user's own text in three steps, one call each.

    Args:
        own: the reference, which the user wrote.
        criteria: the question of each criterion, by name.

    Raises:
        BackendError: a call failed for good.
    """
    of_answer = await _split(judge, answer)
    of_own = await _split(judge, own)
    attempts = of_answer.attempts + of_own.attempts
    if not of_answer.value or not of_own.value:
        return Comparison(None, of_answer.evidence, attempts)

    fence = Fence(request, *of_answer.value, *of_own.value)
    lists = [
        "\n".join(f"{letter}{number}: {text}" for number, text in enumerate(aspects, start=1))
        for letter, aspects in (("A", of_answer.value), ("U", of_own.value))
    ]
    user = (
        f"Request:\n{fence.wrap(request)}\n\nAspects of the answer:\n{fence.wrap(lists[0])}\n\n"
        f"Aspects of the user's text:\n{fence.wrap(lists[1])}"
    )
    counts = len(of_answer.value), len(of_own.value)
    matched = await query_judge(
        judge,
        _write_system(criteria),
        user,
        lambda reply: read_matches(reply, *counts, list(criteria)),
        max_tokens=_LINE_TOKENS * (counts[0] + 2) * max(len(criteria), 1),
    )
    attempts += matched.attempts
    if matched.value is None:
        return Comparison(None, matched.evidence, attempts)
    return Comparison(
        score_matches(matched.value, *counts, list(criteria)), matched.evidence, attempts
    )


async def _split(judge: Judge, text: str) -> JudgeReply[list[str]]:
    fence = Fence(text)
    user = f"Text:\n{fence.wrap(text)}"
    return await query_judge(judge, _SPLIT, user, read_aspects, max_tokens=_SPLIT_TOKENS)


def _write_system(criteria: Mapping[str, str]) -> str:
    example = ", ".join(f"{name} yes" for name in criteria)
    lines = [f"{_MATCH} {RULE}", "", *(f"{name}: {text}" for name, text in criteria.items()), ""]
    lines.append(
        "Write one line for every aspect of the answer, in their order, of the form\n"
        f"A1: U2, {example}\nor, if it matches none,\nA1: none"
    )
    return "\n".join(lines)


def read_aspects(reply: str) -> list[str] | None:
    """Parse numbered aspects, each on its line; None without any. Further ones are left out."""

    def read_line(line: str) -> tuple[str, str] | None:
        match = _ASPECT.fullmatch(line)
        return None if match is None else (match[1], match[2].strip())

    aspects = list(read_verdicts(reply, read_line).values())
    return aspects[:MAX_ASPECTS] or None


def read_matches(
    reply: str, answer_count: int, own_count: int, criteria: Sequence[str]
) -> dict[int, Match | None] | None:
    """Parse the match of every aspect of the answer, by its number; None for one without.

    None if an aspect has no line, an unknown match, or no degree of a criterion.
    """

    def read_line(line: str) -> tuple[str, Match | None] | None:
        match = _MATCHED.fullmatch(line)
        if match is None or not 1 <= int(match[1]) <= answer_count:
            return None
        if match[2] is None:
            return match[1], None
        degrees = [_read_degree(match[3], name) for name in criteria]
        readable = tuple(degree for degree in degrees if degree is not None)
        if len(readable) < len(criteria) or not 1 <= int(match[2]) <= own_count:
            return None
        return match[1], Match(int(match[2]), readable)

    matches = {int(number): match for number, match in read_verdicts(reply, read_line).items()}
    return matches if len(matches) == answer_count else None


def _read_degree(text: str, criterion: str) -> Degree | None:
    match = re.search(
        rf"\b{re.escape(criterion)}\W{{0,3}}\s?(yes|partly|no)\b", text, re.IGNORECASE
    )
    if match is None:
        return None
    degrees: Mapping[str, Degree] = {"yes": "yes", "partly": "partly", "no": "no"}
    return degrees[match[1].lower()]


def score_matches(
    matches: Mapping[int, Match | None],
    answer_count: int,
    own_count: int,
    criteria: Sequence[str],
) -> AspectScores:
    """Score matches: an aspect of the user's text counts for the first that matches it.

    A matched aspect has the mean of its degrees; precision is their sum over the aspects of the
    answer, recall over those of the user's text.
    """
    used: set[int] = set()
    degrees: list[tuple[Degree, ...]] = []
    for number in sorted(matches):
        match = matches[number]
        if match is None or match.aspect in used:
            continue
        used.add(match.aspect)
        degrees.append(match.degrees)

    total = sum(fmean(DEGREES[degree] for degree in of_match) for of_match in degrees)
    precision, recall = total / answer_count, total / own_count
    f = 2 * precision * recall / (precision + recall) if total else 0.0
    means = {
        name: fmean(DEGREES[of_match[place]] for of_match in degrees)
        for place, name in enumerate(criteria)
        if degrees
    }
    return AspectScores(f, precision, recall, means)
