"""Precise Boolean rubrics that adapt to the person (arXiv 2503.23339).

A rubric is a list of yes/no questions on concrete facts.  The judge first chooses those that matter for a request and
what is known of the person; the choice is made once for both and kept, so that all methods face the same questions.
Then it answers them for each response.  Questions that do not apply (na) leave the score; so do those it cannot be
brought to answer, which are counted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from personabench.hashing import digest
from personabench.metrics.judges.ask import Judge, Judged, ask

BATCH = 20
Answer = Literal["yes", "no", "na"]
_ANSWERS: tuple[Answer, ...] = ("yes", "no", "na")
_SELECT = (
    "You prepare the evaluation of replies to a request. From a list of numbered yes/no questions choose those that "
    "matter for this request from this person; leave out what has no bearing on them. You do not see any reply yet. "
    'Write one sentence on what matters here. Then end with one line of the form\nRelevant: ID, ID, ID\nor "Relevant: '
    'none".'
)
_ANSWER = (
    "You check a reply to a request against yes/no questions. Judge only what stands in the reply. Write one line for "
    "each question, in their order: its id, a colon, and yes, no or na (where it cannot apply), then in a few words "
    "why, such as\nr1: no, it names no price"
)
PROMPT = digest([_SELECT, _ANSWER, "known, request, questions, reply"])
"""Names the wording; part of the score's protocol."""

_RELEVANT = re.compile(r"^[\s*_`#>]*relevant[\s*_`]*:[\s*_`]*(.*)$", re.IGNORECASE | re.MULTILINE)
_LINE = re.compile(r'[\s*_`#>"\'{,-]*([\w.-]+?)["\'*_`\s]*:["\'*_`\s]*(\w+)')


class Criterion(msgspec.Struct, frozen=True):
    """A yes/no question of a rubric."""

    id: str
    question: str
    weight: float = 1.0
    category: str = ""


class Selection(NamedTuple):
    """The relevant questions, in the rubric's order, and how many unknown ids the judge named beside them."""

    ids: tuple[str, ...]
    unknown: int


@dataclass(frozen=True)
class Checked:
    """A response's answers by question, the questions left without one, and how often the judge was asked."""

    answers: Mapping[str, Answer]
    unanswered: tuple[str, ...]
    asked: int


@dataclass(frozen=True)
class Marks:
    """A response's score, the share of yes by category, and what was counted on the way.

    `score` is None, and the item unjudged, where no relevant question applies.
    """

    score: float | None
    categories: Mapping[str, float]
    relevant: int
    na: int
    unanswered: int


class Rubric:
    """Criteria, and for each request and person which of them matter: asked once, whoever asks first."""

    def __init__(self, criteria: Sequence[Criterion]) -> None:
        self.criteria = {criterion.id: criterion for criterion in criteria}
        self._chosen: dict[str, asyncio.Future[Judged[Selection]]] = {}

    async def relevant(self, judge: Judge, *, known: str, request: str) -> Judged[Selection]:
        """The questions that matter for a request from a person, before any response is looked at.

        Raises:
            BackendError: a call failed for good; the next to ask tries again.
        """
        key = digest([known, request])
        if key not in self._chosen:
            self._chosen[key] = asyncio.ensure_future(self._select(judge, known, request))
        try:
            return await asyncio.shield(self._chosen[key])
        except Exception:
            self._chosen.pop(key, None)
            raise

    async def check(
        self, judge: Judge, ids: Sequence[str], *, known: str, request: str, response: str
    ) -> Checked:
        """A response's answers to some of the questions, in batches; a missing one is asked again alone.

        Raises:
            BackendError: a call failed for good.
        """
        batches = [tuple(ids[at : at + BATCH]) for at in range(0, len(ids), BATCH)]
        first = await asyncio.gather(
            *(self._answers(judge, each, known, request, response) for each in batches)
        )
        answers = {
            name: answer for judged in first for name, answer in (judged.value or {}).items()
        }
        alone = [(name,) for name in ids if name not in answers]
        again = await asyncio.gather(
            *(self._answers(judge, each, known, request, response) for each in alone)
        )
        answers |= {
            name: answer for judged in again for name, answer in (judged.value or {}).items()
        }
        missing = tuple(name for name in ids if name not in answers)
        return Checked(answers, missing, sum(judged.asked for judged in [*first, *again]))

    def marks(self, ids: Sequence[str], checked: Checked) -> Marks:
        """The weighted share of yes among the relevant questions that apply."""
        met = [
            (self.criteria[name], checked.answers[name])
            for name in ids
            if checked.answers.get(name, "na") != "na"
        ]
        total = sum(criterion.weight for criterion, _ in met)
        by_category: dict[str, list[bool]] = {}
        for criterion, answer in met:
            by_category.setdefault(criterion.category, []).append(answer == "yes")
        return Marks(
            score=sum(c.weight for c, answer in met if answer == "yes") / total if total else None,
            categories={name: sum(group) / len(group) for name, group in by_category.items()},
            relevant=len(ids),
            na=sum(answer == "na" for answer in checked.answers.values()),
            unanswered=len(checked.unanswered),
        )

    async def _select(self, judge: Judge, known: str, request: str) -> Judged[Selection]:
        user = f"{_about(known, request)}\n\nQuestions:\n{self._listed(self.criteria)}"
        return await ask(judge, _SELECT, user, self._read_selection)

    def _read_selection(self, reply: str) -> Selection | None:
        found = _RELEVANT.findall(reply)
        if not found:
            return None
        named = [name.strip(".-") for name in re.findall(r"[\w.-]+", found[-1])]
        if [name.casefold() for name in named] in (["none"], []):
            return Selection((), 0)
        return Selection(
            tuple(name for name in self.criteria if name in named),
            sum(name not in self.criteria for name in dict.fromkeys(named)),
        )

    async def _answers(
        self, judge: Judge, ids: Sequence[str], known: str, request: str, response: str
    ) -> Judged[dict[str, Answer]]:
        user = f"{_about(known, request)}\n\nReply:\n{response}\n\nQuestions:\n{self._listed(ids)}"
        return await ask(judge, _ANSWER, user, lambda reply: read_answers(reply, ids) or None)

    def _listed(self, ids: Sequence[str] | Mapping[str, Criterion]) -> str:
        return "\n".join(f"{name}: {self.criteria[name].question}" for name in ids)


def read_answers(reply: str, ids: Sequence[str]) -> dict[str, Answer]:
    """The first word after each id, where it is yes, no or na; lines and JSON objects alike."""
    found: dict[str, Answer] = {}
    for line in reply.replace('", "', '",\n"').splitlines():
        match = _LINE.match(line)
        word = match[2].casefold() if match else ""
        answer = next((each for each in _ANSWERS if each == word), None)
        if match and match[1] in ids and answer:
            found.setdefault(match[1], answer)
    return found


def _about(known: str, request: str) -> str:
    return (
        f"What is known of the person:\n{known}\n\nRequest:\n{request}"
        if known
        else f"Request:\n{request}"
    )
