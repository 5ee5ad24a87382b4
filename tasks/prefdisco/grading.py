"""What an answer is worth: one judge call per criterion, PrefAlign over the grades, and whether the result is right.

A grade that cannot be read is asked for three more times and is then missing, never a number.  Where criteria that
carry more than a fifth of the weight are missing, the answer is unjudged.  Whether a result is right is read from the
answer where that can be done; only else is the judge asked.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from personabench.tasks.prefdisco import wording
from personabench.tasks.prefdisco.files import Criterion, Preference, folded
from personabench.tasks.prefdisco.sources import Problem

if TYPE_CHECKING:
    from personabench.models.roles import Role
    from personabench.types import Message

Weights = Literal["importance", "rubric"]
RETRIES = 3
TEMPERATURE = 0.1
TOP_P = 0.95
ENOUGH = 0.8

_SAID = r"\b[^.\n:=]{0,40}?(?:\bis\b|\bare\b|\bwould be\b|:|=)"
_LETTER = re.compile(
    rf"\b(?:answer|option|choice){_SAID}[\s*_`\"'$]*(?:option |choice )?[(\[]?([A-Z])"
    r"(?:(?=[)\].,:;*_\"'$])|(?=\s*(?:\n|$))|(?<=(?-i:[B-HJ-Z]))(?=\s))",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_ALONE = re.compile(r"[\s*_`\"'(\[]*([A-Z])[\s*_`\"')\].:]*", re.IGNORECASE)
_NUMBER = re.compile(
    rf"\b(?:answer|result|solution){_SAID}[\s*_`$\\(]*([-+]?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?)"
    r"(?![\d/^\\]|\s*(?:[-+*/^=×·(]|x\b|times\b|plus\b|minus\b|divided\b|hundred|thousand|million|billion))",
    re.IGNORECASE,
)


def selected(criteria: Sequence[Criterion], record: str, most: int) -> list[Criterion]:
    """The criteria that are judged: all, or `most` of them drawn from the record's name alone, in the file's order."""
    if not 0 < most < len(criteria):
        return list(criteria)
    places = random.Random(f"criteria\x1f{record}").sample(range(len(criteria)), most)
    return [criteria[place] for place in sorted(places)]


def weights(
    criteria: Sequence[Criterion], preferences: Mapping[str, Preference], kind: Weights
) -> dict[str, float]:
    """Each criterion's weight, by name; they sum to 1.

    `importance` takes what the persona said of this problem, `rubric` the rubric's own weights, or equal ones where
    all of them are 0.
    """
    own = kind == "rubric" and any(each.weight for each in criteria)
    raw = {
        each.name: each.weight
        if own
        else 1.0
        if kind == "rubric"
        else float(preferences[each.name].importance)
        for each in criteria
    }
    total = sum(raw.values())
    return {name: weight / total for name, weight in raw.items()}


def prefalign(grades: Mapping[str, int | None], share: Mapping[str, float]) -> float | None:
    """The weighted mean grade over graded criteria; None where these carry less than 80 % of the weight.

    Args:
        grades: by criterion, 1 to 5, or None for a missing one; share: weights, of which only these criteria count.
    """
    total = sum(share[name] for name in grades)
    graded = {name: grade for name, grade in grades.items() if grade is not None}
    covered = sum(share[name] for name in graded)
    if not total or not covered or covered / total < ENOUGH - 1e-9:
        return None
    return sum(share[name] * grade for name, grade in graded.items()) / covered


async def graded(
    criteria: Sequence[Criterion],
    preferences: Mapping[str, Preference],
    response: str,
    judge: Role,
    max_tokens: int,
) -> dict[str, int | None]:
    """The judge's grade on each criterion, None where no reply could be read.

    Raises:
        BackendError: a call failed for good.
    """
    found: dict[str, int | None] = {}
    for criterion in criteria:
        messages = wording.criterion_messages(criterion, preferences[criterion.name], response)
        schema = wording.CRITERION_SCHEMA
        found[criterion.name] = await _asked(
            messages, read_grade, schema, judge, max_tokens, TEMPERATURE, TOP_P
        )
        if found[criterion.name] is None:
            judge.flag("criteria_missing")
    return found


async def correctness(
    problem: Problem, response: str, judge: Role, official: bool, max_tokens: int
) -> dict[str, Any]:
    """Whether an answer comes to the right result, and who decided: {"correct": 1, 0 or None, "decided": ...}.

    Raises:
        BackendError: a call failed for good.
    """
    if not problem.answer:
        return {"correct": None, "decided": "no gold"}
    found = None if official else result_of(problem, response)
    if found is not None:
        return {"correct": int(found), "decided": "parser"}
    messages = wording.correct_messages(problem, response)
    correct = await _asked(messages, read_correct, wording.CORRECT_SCHEMA, judge, max_tokens)
    if correct is None:
        judge.flag("correctness_unjudged")
    return {"correct": correct, "decided": "judge"}


async def _asked(
    messages: tuple[Message, ...],
    read: Callable[[str], int | None],
    schema: Mapping[str, Any],
    judge: Role,
    max_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> int | None:
    for repeat in range(RETRIES + 1):
        text = await judge.complete(
            messages,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            schema=schema,
            repeat=repeat,
            accept=lambda reply: read(reply) is not None,
        )
        if (value := read(text)) is not None:
            return value
        judge.flag("judge_retried")
    return None


def read_grade(reply: str) -> int | None:
    """The score of a criterion judge's reply: a whole number from 1 to 5, else None."""
    return _whole(reply, "score", range(1, 6))


def read_correct(reply: str) -> int | None:
    """The verdict of a correctness judge's reply: 0 or 1, else None."""
    return _whole(reply, "correct", range(2))


def _whole(reply: str, name: str, allowed: range) -> int | None:
    value = (wording.json_of(reply) or {}).get(name)
    if isinstance(value, bool):
        value = int(value) if 0 in allowed else None
    try:
        number = float(value) if isinstance(value, (int, float, str)) else None
    except (ValueError, OverflowError):
        return None
    return int(number) if number is not None and number in allowed else None


def result_of(problem: Problem, response: str) -> bool | None:
    """Whether an answer is right as far as it can be read from it: a letter, a number or the gold text itself.

    Only a result that the answer announces counts, or one that is all there is; a wrong number in running text may be
    part of one and is left to the judge.  None where it takes a judge.
    """
    boxed = _BOXED.findall(response)
    if problem.options:
        letter = _letter(boxed[-1] if boxed else response, problem.options)
        gold = problem.answer.strip().upper()
        return None if letter is None or gold not in _keys(problem.options) else letter == gold
    gold_number = _number(problem.answer)
    told = boxed[-1] if boxed else response.strip()
    if folded(told).strip(" .$") == folded(problem.answer).strip(" .$"):
        return True
    if gold_number is None:
        return None
    if (number := _number(told)) is not None:
        return number == gold_number
    announced = [] if boxed else _NUMBER.findall(response)
    return True if announced and _number(announced[-1]) == gold_number else None


def _letter(text: str, options: Mapping[str, str]) -> str | None:
    keys = _keys(options)
    if alone := _ALONE.fullmatch(text):
        return alone[1].upper() if alone[1].upper() in keys else None
    said: list[str] = [letter.upper() for letter in _LETTER.findall(text) if letter.upper() in keys]
    if said:
        return said[-1]
    named = [
        key.upper()
        for key, option in options.items()
        if folded(text).strip(" .") == folded(option).strip(" .")
    ]
    return named[0] if len(named) == 1 else None


def _keys(options: Mapping[str, str]) -> set[str]:
    return {key.upper() for key in options}


def _number(text: str) -> Fraction | None:
    plain = (
        re.sub(r"\{,\}|[\s$,]|\\[,;! ]", "", text).strip(".").removesuffix("\\%").removesuffix("%")
    )
    if fraction := re.fullmatch(r"([-+]?)\\[dt]?frac\{(\d+)\}\{(\d+)\}", plain):
        plain = f"{fraction[1]}{fraction[2]}/{fraction[3]}"
    try:
        return Fraction(plain)
    except (ValueError, ZeroDivisionError):
        return None
