"""Apply a rubric from a file to an answer, under the rubric's protocol.

Every protocol has its module; this one shows each the same parts and names the metrics alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from personabench.metrics.judges import aspects, bespoke, rubrics
from personabench.metrics.judges.ask import RETRIES, Judge
from personabench.metrics.judges.custom_rubric import (
    Rubric,
    count_tokens,
    rate_by_rubric,
    write_question,
    write_system,
)


class Assessment(NamedTuple):
    """The result of a rubric for one answer.

    Attributes:
        values: by metric; a part that is unjudged has none.
        scores: by criterion, as the judge gave them.
        total: of the rubric; None if it is unjudged.
        evidence: the judge's last reply.
        retries: replies beyond the first of each question.
        flags: events to count.
    """

    values: Mapping[str, float]
    scores: Mapping[str, float]
    total: float | None
    evidence: str = ""
    retries: int = 0
    flags: Mapping[str, int] = {}


class _Case(NamedTuple):
    """An answer with its context; protocol and rubric decide which parts the judge sees."""

    request: str
    answer: str
    references: Sequence[str]
    records: Sequence[str]


class RubricJudge:
    """Applies one rubric; the questions of a request and a user are selected once."""

    def __init__(self, rubric: Rubric) -> None:
        self.rubric = rubric
        self._boolean = rubrics.Rubric(
            [
                rubrics.Criterion(name, item.question, item.weight, item.category)
                for name, item in rubric.questions.items()
            ]
        )

    async def assess(
        self,
        judge: Judge,
        *,
        request: str,
        answer: str,
        references: Sequence[str] = (),
        records: Sequence[str] = (),
    ) -> Assessment | None:
        """Have a judge apply the rubric to an answer; None if nothing could be judged.

        Args:
            records: the user's records as text, oldest first.

        Raises:
            BackendError: a call failed for good.
        """
        apply = {
            "scale": self._scale,
            "boolean": self._answer_questions,
            "bespoke": self._grade,
            "aspects": self._compare_aspects,
        }[self.rubric.protocol]
        return await apply(judge, _Case(request, answer, references, records))

    async def _scale(self, judge: Judge, case: _Case) -> Assessment | None:
        reply = await rate_by_rubric(judge, self.rubric, **case._asdict())
        if reply.value is None:
            return _unjudged(reply.evidence, reply.attempts - 1)
        return Assessment(
            self.rubric.values(reply.value),
            reply.value,
            self.rubric.total(reply.value),
            reply.evidence,
            reply.attempts - 1,
        )

    async def _answer_questions(self, judge: Judge, case: _Case) -> Assessment | None:
        shows = self.rubric.shows
        background = "\n\n".join(case.records[-self.rubric.records :]) if "history" in shows else ""
        selection = await self._boolean.select_criteria(
            judge, background=background, request=case.request
        )
        if selection.value is None:
            return _unjudged(selection.evidence, RETRIES)

        ids = selection.value.ids
        replies = await self._boolean.answer_questions(
            judge, ids, background=background, request=case.request, response=case.answer
        )
        score = self._boolean.score(ids, replies)
        if score.score is None:
            return _unjudged(selection.evidence, 0)
        counts = {
            "relevant": score.relevant,
            "na": score.na,
            "unanswered": score.unanswered,
        }
        shares = {name: share for name, share in score.categories.items() if name}
        parts = {"": score.score, **shares, **counts}
        return Assessment(
            self._name(parts),
            {name: float(value == "yes") for name, value in replies.answers.items()},
            score.score,
            selection.evidence,
            flags={"judge_unknown_questions": selection.value.unknown},
        )

    async def _grade(self, judge: Judge, case: _Case) -> Assessment | None:
        criteria = list(self.rubric.criteria)
        question = write_question(self.rubric, *case)
        grades, claims = await asyncio.gather(
            bespoke.grade_answer(
                judge, write_system(self.rubric), question, criteria, count_tokens(self.rubric)
            ),
            bespoke.check_claims(judge, bespoke.split_claims(case.references), case.answer),
        )
        scores = bespoke.score_answer(grades.grades, claims, criteria)
        total = scores.pop("average", None)
        if total is not None:
            scores = {"": total, **scores}
        return Assessment(
            self._name(scores),
            {name: float(grade) for name, grade in grades.grades.items()},
            total,
            grades.evidence,
            grades.attempts - 1,
            {"judge_unjudged_claims": claims.count(None)},
        )

    async def _compare_aspects(self, judge: Judge, case: _Case) -> Assessment | None:
        if not case.answer.strip() or not case.references:
            return None
        questions = {name: item.question for name, item in self.rubric.questions.items()}
        comparison = await aspects.compare_aspects(
            judge,
            request=case.request if "request" in self.rubric.shows else "",
            answer=case.answer,
            own=case.references[0],
            criteria=questions,
        )
        scores = comparison.scores
        if scores is None:
            return _unjudged(comparison.evidence, comparison.attempts)
        parts = {
            "": scores.f,
            "precision": scores.precision,
            "recall": scores.recall,
            **scores.criteria,
        }
        return Assessment(self._name(parts), scores.criteria, scores.f, comparison.evidence)

    def _name(self, parts: Mapping[str, float]) -> dict[str, float]:
        """The metrics of parts, whose total has the empty name."""
        name = self.rubric.name
        return {f"{name}.{part}" if part else name: float(value) for part, value in parts.items()}


def _unjudged(evidence: str, retries: int) -> Assessment:
    return Assessment({}, {}, None, evidence, retries)
