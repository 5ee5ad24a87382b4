"""A judge that takes the user's place and states its certainty.

Source: "Can LLM be a Personalized Judge?", arXiv 2406.11657.  The judge gets the user's background,
a question and two answers, and names the answer that this user prefers with a certainty from 1 to
100.  A number outside of its brackets is not a certainty, and a choice without one has none; the
accuracy of certain choices is always reported with the share of items that it covers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from personabench.hashing import digest
from personabench.metrics.judges.ask import Judge, is_swapped, query_judge
from personabench.metrics.judges.fence import RULE, Fence
from personabench.metrics.judges.verdict import Pick, Verdict, Vote
from personabench.metrics.judges.verdict_reader import read_verdict

TEMPERATURE = 0.7
MAX_TOKENS = 15
THRESHOLDS = (0, 50, 60, 70, 80, 90)
_BINS = 10
_SYSTEM = (
    "You take the place of one person. From what is known of them, say which of two answers to a "
    "question they would prefer: A or B{tie}. Say also how certain you are, as a whole number from "
    "1 to 100:\n"
    "1-20 uncertain: what is known hardly helps\n"
    "21-40 rather uncertain: a weak hint\n"
    "41-60 moderately certain: some hints, or hints both ways\n"
    "61-80 quite certain: clear hints\n"
    "81-100 highly confident: what is known settles it\n\n"
    f"{RULE}\n\n"
    "Reply with both in double brackets and with nothing else, such as [[A]] [[35]]."
)
_TIE = ", or C where they would not mind"
# The hash names the wording; it is part of the verdicts' protocol.
PROMPT = digest([_SYSTEM, _TIE, "known, request, answer A, answer B"])

_BRACKETS = re.compile(r"\[\[([^\[\]]{0,40})\]\]")
_BETWEEN_LINES = re.compile(r"\]\][ \t]*\n\s*\[\[")
# Words that may stand beside the brackets of a verdict.
_LABEL = {"my", "the", "final", "answer", "choice", "preference", "verdict", "certainty", "is"}
_STRAIGHT: dict[str, Pick] = {
    "A": "a",
    "B": "b",
    "C": "tie",
}
_SWAPPED: dict[str, Pick] = {
    "A": "b",
    "B": "a",
    "C": "tie",
}


class Choice(NamedTuple):
    """A parsed reply: A, B or C for a tie, and the certainty, None if the brackets have none."""

    answer: str
    certainty: int | None


class CoverageLevel(NamedTuple):
    """Accuracy of the choices that are at least `threshold` certain.

    `coverage` is the share of answered items that these choices are.
    """

    threshold: int
    coverage: float
    accuracy: float | None


def read_choice(
    reply: str,
    tie: bool = False,
) -> Choice | None:
    """Parse the choice in double brackets, and the first certainty in later ones.

    They are alone on their line, or on two lines that follow one another.
    """
    one_line = _BETWEEN_LINES.sub("]] [[", reply)
    return read_verdict(one_line, lambda line: _read_line(line, tie))


def _read_line(line: str, tie: bool) -> Choice | None:
    words = re.findall(r"\w+", _BRACKETS.sub(" ", line).casefold())
    if not _LABEL.issuperset(words):
        return None

    answers = "ABC" if tie else "AB"
    choice: Choice | None = None
    for content in _BRACKETS.findall(line):
        text = content.strip()
        if len(text) == 1 and text in answers:
            if choice is not None and choice.answer != text:
                return None
            choice = choice or Choice(text, None)
        elif choice is not None and choice.certainty is None:
            choice = choice._replace(certainty=_read_certainty(text))
    return choice


def _read_certainty(text: str) -> int | None:
    for digits in re.findall(r"\d+", text):
        if len(digits) <= 3 and 1 <= int(digits) <= 100:
            return int(digits)
    return None


async def judge_preference(
    judge: Judge,
    *,
    sample_id: str,
    user_id: str,
    background: str,
    request: str,
    a: str,
    b: str,
    tie: bool = False,
    seed: int = 0,
) -> Verdict:
    """Get the choice in the user's place; a hash of item and seed decides the order of answers.

    Raises:
        BackendError: a call failed for good.
    """
    swapped = is_swapped(sample_id, seed)
    first, second = (b, a) if swapped else (a, b)
    fence = Fence(background, request, first, second)
    reply = await query_judge(
        judge,
        _SYSTEM.format(tie=_TIE if tie else ""),
        f"What is known of the person:\n{fence.wrap(background)}\n\n"
        f"Question:\n{fence.wrap(request)}\n\n"
        f"Answer A:\n{fence.wrap(first)}\n\nAnswer B:\n{fence.wrap(second)}",
        lambda text: read_choice(text, tie),
        temperature=TEMPERATURE,
        max_tokens=MAX_TOKENS,
    )

    votes: tuple[Vote, ...] = ()
    if reply.value:
        picks = _SWAPPED if swapped else _STRAIGHT
        vote = Vote(picks[reply.value.answer], certainty=reply.value.certainty)
        votes = (vote,)
    orders: tuple[tuple[Vote, ...], tuple[Vote, ...]] = ((), votes) if swapped else (votes, ())
    return Verdict(
        sample_id,
        user_id,
        orders,
        both=False,
        asked=reply.attempts,
    )


def coverage_levels(answers: Sequence[tuple[int | None, bool]]) -> list[CoverageLevel]:
    """Coverage and accuracy at each threshold, of (certainty, right) of every answered item.

    A choice without a certainty is covered at no threshold.
    """
    levels = []
    for threshold in THRESHOLDS:
        certain = [
            right
            for certainty, right in answers
            if certainty is not None and certainty >= threshold
        ]
        coverage = len(certain) / len(answers) if answers else 0.0
        accuracy = sum(certain) / len(certain) if certain else None
        levels.append(CoverageLevel(threshold, coverage, accuracy))
    return levels


def calibration_error(answers: Sequence[tuple[int | None, bool]]) -> float | None:
    """Expected calibration error over ten equal bins of the certainty.

    Answers without a certainty are left out; None if no answer has one.
    """
    residuals: defaultdict[int, list[float]] = defaultdict(list)
    for percent, right in answers:
        if percent is None:
            continue
        certainty = percent / 100
        # 70 / 100 * 10 may fall just below 7, and a certainty of 1 belongs to the last bin.
        index = min(int(certainty * _BINS + 1e-9), _BINS - 1)
        residuals[index].append(right - certainty)

    if not residuals:
        return None
    count = sum(map(len, residuals.values()))
    gaps = [abs(sum(group)) for group in residuals.values()]
    return sum(gaps) / count
