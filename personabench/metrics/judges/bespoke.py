"""BESPOKE's scores (arXiv 2509.21106): a judge that grades as one particular person would, and claims that are met.

One call grades a response on four criteria in the manner of a person, from examples of their own grades, their rubric
and the need behind the query; one call per claim says whether the response contains it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from personabench.hashing import digest
from personabench.metrics.judges.ask import RETRIES, Judge, ask, spoken
from personabench.types import Message

CRITERIA = ("need alignment", "content depth", "tone", "explanation style")
EXAMPLES = 5
MAX_TOKENS = 1024
_GRADE = (
    "You grade a response in the place of one particular person, as they would grade it themselves. You are told what "
    "they look for, what they needed, and how they graded other responses. Grade four criteria with whole numbers from "
    "1 (bad) to 5 (very good). For each criterion first write feedback in that person's view, then its grade on a line "
    "of its own, exactly so:\n" + "\n".join(f"{name}: NUMBER" for name in CRITERIA)
)
_ENTAIL = (
    "Does the response contain the core meaning of the claim? A response that contradicts the claim does not contain "
    "it. Begin with true or false, then give a short reason."
)
PROMPT = digest([_GRADE, _ENTAIL, "rubric, examples, need, query, response"])
"""Names the wording; part of the scores' protocol."""


class Example(NamedTuple):
    """A response that the person graded themselves, by criterion."""

    query: str
    response: str
    grades: Mapping[str, int]


class Grades(NamedTuple):
    """Grades by criterion, None where it stays unjudged, and how often the judge was asked."""

    values: Mapping[str, int | None]
    asked: int


class Recall(NamedTuple):
    """Claims that the response contains, claims that were judged, and all of them."""

    entailed: int
    judged: int
    claims: int

    @property
    def value(self) -> float | None:
        """100 x the share of judged claims that are contained; None where none was judged."""
        return 100 * self.entailed / self.judged if self.judged else None


class Scores(NamedTuple):
    """Criterion scores (20 to 100), recall (0 to 100) and the mean of the five; None where nothing was judged."""

    criteria: Mapping[str, float | None]
    recall: float | None
    average: float | None


async def grade(
    judge: Judge, *, rubric: str, examples: Sequence[Example], need: str, query: str, response: str
) -> Grades:
    """A person's likely grades of a response; a criterion that is missing from the reply is asked for again.

    Raises:
        ValueError: the response is among the examples, so that its gold grades would be shown.
        BackendError: a call failed for good.
    """
    if any(" ".join(each.response.split()) == " ".join(response.split()) for each in examples):
        raise ValueError("a response's own grades cannot be an example of how it is graded")
    shown = [
        f"Query: {e.query}\nResponse: {e.response}\n{_listed(e.grades)}"
        for e in examples[:EXAMPLES]
    ]
    user = "\n\n".join(
        [
            f"What the person looks for:\n{rubric}",
            *(f"They graded so:\n{text}" for text in shown),
            f"What they needed:\n{need}",
            f"Query:\n{query}",
            f"Response:\n{response}",
        ]
    )
    found: dict[str, int] = {}
    asked = 0
    while len(found) < len(CRITERIA) and asked <= RETRIES:
        reply = await judge.complete(
            (Message("system", _GRADE), Message("user", user)),
            max_tokens=MAX_TOKENS,
            repeat=asked,
            accept=lambda text: len(read_grades(text)) == len(CRITERIA),
        )
        found = {**read_grades(reply), **found}
        asked += 1
    return Grades({name: found.get(name) for name in CRITERIA}, asked)


async def recall(judge: Judge, *, claims: Sequence[str], response: str) -> Recall:
    """How many gold claims a response contains, one call each.

    Raises:
        BackendError: a call failed for good.
    """
    asked = [
        ask(judge, _ENTAIL, f"Claim:\n{claim}\n\nResponse:\n{response}", read_entailed)
        for claim in claims
    ]
    values = [judged.value for judged in await asyncio.gather(*asked)]
    return Recall(values.count(True), len(values) - values.count(None), len(values))


def read_grades(reply: str) -> dict[str, int]:
    """The grades a reply has: label, colon, one digit from 1 to 5, with or without angle brackets or "/5"."""
    text, found = spoken(reply), {}
    for name in CRITERIA:
        line = rf"^[\s*_`#>]*{name}[\s*_`]*:[\s*_`]*<?\s*([1-5])\s*>?(?:\s*/\s*5)?(?![\w/]|\.\d)"
        if grades := re.findall(line, text, re.IGNORECASE | re.MULTILINE):
            found[name] = int(grades[-1])
    return found


def read_entailed(reply: str) -> bool | None:
    """The first word of a reply: true or yes, false or no."""
    word = re.search(r"\w+", reply)
    return {"true": True, "yes": True, "false": False, "no": False}.get(
        word[0].casefold() if word else ""
    )


def scores(items: Sequence[tuple[Grades, Recall]]) -> Scores:
    """The scores of a system over its items; an item leaves the means of what is unjudged in it."""
    criteria: dict[str, float | None] = {}
    for name in CRITERIA:
        values = [value for grades, _ in items if (value := grades.values[name]) is not None]
        criteria[name] = 20 * sum(values) / len(values) if values else None
    recalls = [each.value for _, each in items if each.value is not None]
    mean = sum(recalls) / len(recalls) if recalls else None
    five = [*criteria.values(), mean]
    known = [value for value in five if value is not None]
    return Scores(criteria, mean, sum(known) / len(five) if len(known) == len(five) else None)


def _listed(grades: Mapping[str, int]) -> str:
    return "\n".join(f"{name}: {grades[name]}" for name in CRITERIA if name in grades)
