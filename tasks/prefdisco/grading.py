"""Grading of answers: a judge call per criterion, PrefAlign over the grades, and correctness.

A grade that cannot be parsed is requested three more times and is then missing, never a number.  If
criteria that carry more than a fifth of the weight are missing, the answer is unjudged.
Correctness is read from the answer itself if possible, and decided by the judge otherwise.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from personabench.hashing import fold_text
from personabench.metrics.judges.verdict_reader import read_json_verdict
from personabench.tasks.prefdisco import wording
from personabench.tasks.prefdisco.files import Criterion, Preference
from personabench.tasks.prefdisco.sources import Problem

if TYPE_CHECKING:
    from personabench.models.roles import Role
    from personabench.types import Message

Weights = Literal["importance", "rubric"]

RETRIES = 3

# Part of the protocol: grades can only be compared if they are sampled alike.
TEMPERATURE = 0.1
TOP_P = 0.95

ENOUGH = 0.8

# Sums of weights such as 0.5 + 0.3 miss the threshold by the last bit.
_ROUNDING = 1e-9

_SAID = r"\b[^.\n:=]{0,40}?(?:\bis\b|\bare\b|\bwould be\b|:|=)"

# "A" and "I" are words too, so before another word they are not read as letters of options.
_LETTER = re.compile(
    rf"\b(?:answer|option|choice){_SAID}[\s*_`\"'$]*(?:option |choice )?[(\[]?([A-Z])"
    r"(?:(?=[)\].,:;*_\"'$])|(?=\s*(?:\n|$))|(?<=(?-i:[B-HJ-Z]))(?=\s))",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_ALONE = re.compile(r"[\s*_`\"'(\[]*([A-Z])[\s*_`\"')\].:]*", re.IGNORECASE)

# A number before an operator or a unit of magnitude is part of a longer expression, not the result.
_NUMBER = re.compile(
    rf"\b(?:answer|result|solution){_SAID}[\s*_`$\\(]*([-+]?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?)"
    r"(?![\d/^\\]|\s*(?:[-+*/^=×·(]|x\b|times\b|plus\b|minus\b|divided\b"
    r"|hundred|thousand|million|billion))",
    re.IGNORECASE,
)


def select_criteria(criteria: Sequence[Criterion], record: str, count: int) -> list[Criterion]:
    """Select the criteria to judge: all, or `count` of them in the file's order."""
    if not 0 < count < len(criteria):
        return list(criteria)
    # Drawn from the record's name alone, so that all conditions and methods face the same criteria.
    rng = random.Random(f"criteria\x1f{record}")
    indices = rng.sample(range(len(criteria)), count)
    return [criteria[index] for index in sorted(indices)]


def normalize_weights(
    criteria: Sequence[Criterion],
    preferences: Mapping[str, Preference],
    kind: Weights,
) -> dict[str, float]:
    """Weight of each criterion by name; all weights sum to 1.

    `importance` takes the persona's importance for this problem, `rubric` the rubric's own weights,
    or equal ones if all of them are 0.
    """
    if kind == "importance":
        raw = {
            criterion.name: float(preferences[criterion.name].importance) for criterion in criteria
        }
    elif any(criterion.weight for criterion in criteria):
        raw = {criterion.name: criterion.weight for criterion in criteria}
    else:
        raw = {criterion.name: 1.0 for criterion in criteria}

    total = sum(raw.values())
    return {name: weight / total for name, weight in raw.items()}


def compute_prefalign(
    grades: Mapping[str, int | None], weights: Mapping[str, float]
) -> float | None:
    """Weighted mean of the grades; None if graded criteria carry less than 80 % of the weight.

    Args:
        grades: by criterion, 1 to 5, or None for a missing one.
        weights: by criterion; those of criteria without an entry in `grades` do not count.
    """
    graded = {name: grade for name, grade in grades.items() if grade is not None}
    total = sum(weights[name] for name in grades)
    covered = sum(weights[name] for name in graded)
    if not total or not covered or covered / total < ENOUGH - _ROUNDING:
        return None
    weighted = sum(weights[name] * grade for name, grade in graded.items())
    return weighted / covered


async def grade_criteria(
    criteria: Sequence[Criterion],
    preferences: Mapping[str, Preference],
    response: str,
    judge: Role,
    max_tokens: int,
) -> dict[str, int | None]:
    """Get the judge's grade on each criterion, None if no reply could be parsed.

    Raises:
        BackendError: a call failed for good.
    """
    grades: dict[str, int | None] = {}
    for criterion in criteria:
        preference = preferences[criterion.name]
        grade = await _request_number(
            wording.build_criterion_messages(criterion, preference, response),
            parse_grade,
            wording.CRITERION_SCHEMA,
            judge,
            max_tokens,
            temperature=TEMPERATURE,
            top_p=TOP_P,
        )
        if grade is None:
            judge.flag("criteria_missing")
        grades[criterion.name] = grade
    return grades


async def assess_correctness(
    problem: Problem,
    response: str,
    judge: Role,
    official: bool,
    max_tokens: int,
) -> dict[str, Any]:
    """Decide whether an answer is right: {"correct": 1, 0 or None, "decided": who decided}.

    Raises:
        BackendError: a call failed for good.
    """
    if not problem.answer:
        return {"correct": None, "decided": "no gold"}

    parsed = None if official else compare_result(problem, response)
    if parsed is not None:
        return {"correct": int(parsed), "decided": "parser"}

    correct = await _request_number(
        wording.build_correctness_messages(problem, response),
        parse_verdict,
        wording.CORRECT_SCHEMA,
        judge,
        max_tokens,
    )
    if correct is None:
        judge.flag("correctness_unjudged")
    return {"correct": correct, "decided": "judge"}


def parse_grade(reply: str) -> int | None:
    """Parse the score of a criterion judge's reply: a whole number from 1 to 5, else None."""
    return _parse_whole_number(reply, "score", range(1, 6))


def parse_verdict(reply: str) -> int | None:
    """Parse the verdict of a correctness judge's reply: 0 or 1, else None."""
    return _parse_whole_number(reply, "correct", range(2))


def compare_result(problem: Problem, response: str) -> bool | None:
    """Compare the result that an answer announces with the gold; None if that takes a judge.

    Only an announced result counts, or one that is the whole answer.  A wrong number in running
    text may be a step on the way and is left to the judge.
    """
    boxed = _BOXED.findall(response)
    if problem.options:
        return _compare_letter(problem, boxed[-1] if boxed else response)

    result = boxed[-1] if boxed else response.strip()
    if _strip_text(result, " .$") == _strip_text(problem.answer, " .$"):
        return True
    gold_number = _parse_fraction(problem.answer)
    if gold_number is None:
        return None
    number = _parse_fraction(result)
    if number is not None:
        return number == gold_number

    # An announced number may carry a unit or belong to one part of the result, so a different one
    # is no proof of a wrong answer.
    announced = [] if boxed else _NUMBER.findall(response)
    if announced and _parse_fraction(announced[-1]) == gold_number:
        return True
    return None


async def _request_number(
    messages: tuple[Message, ...],
    parse: Callable[[str], int | None],
    schema: Mapping[str, Any],
    judge: Role,
    max_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> int | None:
    """Call the judge until a reply can be parsed, three times more at most."""
    for repeat in range(RETRIES + 1):
        text = await judge.complete(
            messages,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            schema=schema,
            repeat=repeat,
            accept=lambda reply: parse(reply) is not None,
        )
        number = parse(text)
        if number is not None:
            return number
        judge.flag("judge_retried")
    return None


def _parse_whole_number(reply: str, name: str, allowed: range) -> int | None:
    """Parse a field of a judge's JSON as one of some whole numbers."""
    return read_json_verdict(reply, lambda fields: _whole_number(fields.get(name), allowed))


def _whole_number(value: Any, allowed: range) -> int | None:
    if isinstance(value, bool):
        # `true` is a fair way to write a verdict, but Python's 1 for it would be a bad grade.
        return int(value) if 0 in allowed else None
    if not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if number in allowed else None


def _compare_letter(problem: Problem, text: str) -> bool | None:
    gold = problem.answer.strip().upper()
    letter = _find_letter(text, problem.options)
    if letter is None or gold not in _list_keys(problem.options):
        return None
    return letter == gold


def _find_letter(text: str, options: Mapping[str, str]) -> str | None:
    """Find the chosen option: a lone letter, the last announced one, or an option's full text."""
    keys = _list_keys(options)
    letter_only = _ALONE.fullmatch(text)
    if letter_only:
        letter = letter_only[1].upper()
        return letter if letter in keys else None

    letters: list[str] = [letter.upper() for letter in _LETTER.findall(text)]
    announced = [letter for letter in letters if letter in keys]
    if announced:
        return announced[-1]

    answer = _strip_text(text, " .")
    matches = [key for key, option in options.items() if _strip_text(option, " .") == answer]
    return matches[0].upper() if len(matches) == 1 else None


def _list_keys(options: Mapping[str, str]) -> set[str]:
    return {key.upper() for key in options}


def _strip_text(text: str, marks: str) -> str:
    """A folded text without some marks around it."""
    return fold_text(text).strip(marks)


def _parse_fraction(text: str) -> Fraction | None:
    """Parse a number exactly: decimals, fractions, LaTeX, thousands separators and per cent."""
    plain = re.sub(r"\{,\}|[\s$,]|\\[,;! ]", "", text)
    plain = plain.strip(".").removesuffix("\\%").removesuffix("%")
    latex = re.fullmatch(r"([-+]?)\\[dt]?frac\{(\d+)\}\{(\d+)\}", plain)
    if latex:
        plain = f"{latex[1]}{latex[2]}/{latex[3]}"
    try:
        return Fraction(plain)
    except (ValueError, ZeroDivisionError):
        return None
