"""A judge in a person's place who says how sure it is ("Can LLM be a Personalized Judge?", arXiv 2406.11657).

It sees a profile, a question and two answers, and names the answer this person prefers with a certainty from 1 to 100.
A number outside of its brackets is no certainty, and a choice without one has none; the accuracy of certain choices is
never told without the share of items that it covers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from personabench.hashing import digest
from personabench.metrics.judges.ask import Judge, ask, swapped
from personabench.metrics.judges.verdict import Pick, Verdict, Vote

TEMPERATURE = 0.7
MAX_TOKENS = 15
HIGH = 80
THRESHOLDS = (0, 50, 60, 70, 80, 90)
_BINS = 10
_SYSTEM = (
    "You take the place of one person. From what is known of them, say which of two answers to a question they would "
    "prefer: A or B{tie}. Say also how certain you are, as a whole number from 1 to 100:\n"
    "1-20 uncertain: what is known hardly helps\n"
    "21-40 rather uncertain: a weak hint\n"
    "41-60 moderately certain: some hints, or hints both ways\n"
    "61-80 quite certain: clear hints\n"
    "81-100 highly confident: what is known settles it\n\n"
    "Reply with both in double brackets and with nothing else, such as [[A]] [[35]]."
)
_TIE = ", or C where they would not mind"
PROMPT = digest([_SYSTEM, _TIE, "known, request, answer A, answer B"])
"""Names the wording; part of the verdicts' protocol."""

_CHOICE = re.compile(r"\[\[\s*([ABC])\s*\]\]")
_BRACKETS = re.compile(r"\[\[([^\[\]]*)\]\]")


class Choice(NamedTuple):
    """What was read: A, B or C for a tie, and the certainty, None where none was given in brackets."""

    answer: str
    certainty: int | None


class Line(NamedTuple):
    """Accuracy of the choices that are at least `threshold` certain, and the share of answered items that they are."""

    threshold: int
    coverage: float
    accuracy: float | None


def read(reply: str, tie: bool = False) -> Choice | None:
    """The first choice in double brackets and the first whole number from 1 to 100 in later ones."""
    found = _CHOICE.search(reply)
    if found is None or (found[1] == "C" and not tie):
        return None
    numbers = [
        int(n) for text in _BRACKETS.findall(reply, found.end()) for n in re.findall(r"\d+", text)
    ]
    return Choice(found[1], next((n for n in numbers if 1 <= n <= 100), None))


async def prefer(
    judge: Judge,
    *,
    sample_id: str,
    user_id: str,
    known: str,
    request: str,
    a: str,
    b: str,
    tie: bool = False,
    seed: int = 0,
) -> Verdict:
    """The choice in a person's place; which answer stands first comes from a hash of item and seed.

    Raises:
        BackendError: a call failed for good.
    """
    turned = swapped(sample_id, seed)
    first, second = (b, a) if turned else (a, b)
    user = f"What is known of the person:\n{known}\n\nQuestion:\n{request}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}"
    judged = await ask(
        judge,
        _SYSTEM.format(tie=_TIE if tie else ""),
        user,
        lambda reply: read(reply, tie),
        temperature=TEMPERATURE,
        max_tokens=MAX_TOKENS,
    )
    votes: tuple[Vote, ...] = ()
    if judged.value:
        names: dict[str, Pick] = (
            {"A": "b", "B": "a", "C": "tie"} if turned else {"A": "a", "B": "b", "C": "tie"}
        )
        votes = (Vote(names[judged.value.answer], certainty=judged.value.certainty),)
    return Verdict(
        sample_id, user_id, ((), votes) if turned else (votes, ()), both=False, asked=judged.asked
    )


def bin_of(certainty: int) -> int:
    """The bin of a certainty: its tens, from 4 (and below) to 9 (and above)."""
    return min(max(certainty // 10, 4), 9)


def coverage(answers: Sequence[tuple[int | None, bool]]) -> list[Line]:
    """Coverage and accuracy at each threshold, of (certainty, right) of every answered item.

    A choice without a certainty is covered at no threshold.
    """
    lines = []
    for threshold in THRESHOLDS:
        sure = [
            right
            for certainty, right in answers
            if certainty is not None and certainty >= threshold
        ]
        accuracy = sum(sure) / len(sure) if sure else None
        lines.append(Line(threshold, len(sure) / len(answers) if answers else 0.0, accuracy))
    return lines


def calibration_error(answers: Sequence[tuple[int | None, bool]]) -> float | None:
    """Expected calibration error over ten equal bins of the certainty, of answers that gave one; None without any."""
    told = [(certainty / 100, right) for certainty, right in answers if certainty is not None]
    if not told:
        return None
    bins: dict[int, list[tuple[float, bool]]] = {}
    for certainty, right in told:
        bins.setdefault(min(int(certainty * _BINS + 1e-9), _BINS - 1), []).append(
            (certainty, right)
        )
    return sum(
        abs(sum(right - certainty for certainty, right in group)) for group in bins.values()
    ) / len(told)
