"""Precise Boolean rubrics that adapt to the user (arXiv 2503.23339).

A rubric is a list of yes/no questions on concrete facts.  The judge first selects those that matter
for a request and a user; the selection is made once for both and kept, so that all methods face the
same questions.  Then it answers them for each response.  Questions that do not apply (na) leave the
score; so do those that the judge leaves unanswered, which are counted.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from personabench.hashing import digest
from personabench.metrics.judges.ask import Judge, JudgeReply, query_judge
from personabench.metrics.judges.fence import RULE, Fence
from personabench.metrics.judges.verdict_reader import read_verdict, read_verdicts

BATCH = 20
Answer = Literal["yes", "no", "na"]
_ANSWERS: Mapping[str, Answer] = {"yes": "yes", "no": "no", "na": "na"}
_SELECT = (
    "You prepare the evaluation of replies to a request. From a list of numbered yes/no questions "
    "choose those that matter for this request from this person; leave out what has no bearing on "
    f"them. You do not see any reply yet. {RULE} "
    "Write one sentence on what matters here. Then end with "
    'one line of the form\nRelevant: ID, ID, ID\nor "Relevant: none".'
)
_ANSWER = (
    "You check a reply to a request against yes/no questions. Judge only what stands in the reply. "
    f"{RULE} "
    "Write one line for each question, in their order: its id, a colon, and yes, no or na (where "
    "it cannot apply), then in a few words why, such as\nr1: no, it names no price"
)
# The hash names the wording; it is part of the score's protocol.
PROMPT = digest([_SELECT, _ANSWER, "known, request, questions, reply"])

_RELEVANT = re.compile(r"[_#> ]{0,4}relevant_?\s{0,3}:(.*)", re.IGNORECASE)
_ANSWER_LINE = re.compile(
    r'[_#>"\'{, -]{0,6}([\w.-]{1,80}?)["\'_ ]{0,4}:["\'_ ]{0,4}(yes|no|na)\b', re.IGNORECASE
)


class Criterion(msgspec.Struct, frozen=True):
    """A yes/no question of a rubric."""

    id: str
    question: str
    weight: float = 1.0
    category: str = ""


class Selection(NamedTuple):
    """The relevant questions, in the rubric's order, and how many unknown ids the judge named."""

    ids: tuple[str, ...]
    unknown: int


@dataclass(frozen=True)
class RubricAnswers:
    """Answers about a response by question, the unanswered questions, and the replies requested."""

    answers: Mapping[str, Answer]
    unanswered: tuple[str, ...]
    attempts: int


@dataclass(frozen=True)
class RubricScore:
    """A response's score, the share of yes by category, and counts of questions.

    `score` is None, and the item unjudged, if none of the relevant questions applies.
    """

    score: float | None
    categories: Mapping[str, float]
    relevant: int
    na: int
    unanswered: int


class Rubric:
    """Criteria, and the relevant ones of each request and background, which are selected once."""

    def __init__(self, criteria: Sequence[Criterion]) -> None:
        self.criteria = {criterion.id: criterion for criterion in criteria}
        self._selections: dict[str, asyncio.Future[JudgeReply[Selection]]] = {}

    async def select_criteria(
        self,
        judge: Judge,
        *,
        background: str,
        request: str,
    ) -> JudgeReply[Selection]:
        """Select the questions that matter for a request of a user, without any response.

        Raises:
            BackendError: a call failed for good; the next caller tries again.
        """
        key = digest([background, request])
        if key not in self._selections:
            selection = self._request_selection(judge, background, request)
            self._selections[key] = asyncio.ensure_future(selection)
        try:
            # Shielded, since other callers wait for the same call if this one is cancelled.
            return await asyncio.shield(self._selections[key])
        except Exception:
            self._selections.pop(key, None)
            raise

    async def answer_questions(
        self,
        judge: Judge,
        ids: Sequence[str],
        *,
        background: str,
        request: str,
        response: str,
    ) -> RubricAnswers:
        """Answer questions about a response, in batches; a missing one is repeated alone.

        Raises:
            BackendError: a call failed for good.
        """

        fence = Fence(background, request, response)

        async def request_batch(batch: Sequence[str]) -> JudgeReply[dict[str, Answer]]:
            return await query_judge(
                judge,
                _ANSWER,
                f"{_describe_request(background, request, fence)}\n\n"
                f"Reply:\n{fence.wrap(response)}\n\n"
                f"Questions:\n{self._list_questions(batch)}",
                lambda reply: read_answers(reply, batch) or None,
            )

        starts = range(0, len(ids), BATCH)
        batches = [ids[start : start + BATCH] for start in starts]
        replies = await asyncio.gather(*map(request_batch, batches))
        answers = _merge_answers(replies)

        missing = [question for question in ids if question not in answers]
        single_requests = [request_batch([question]) for question in missing]
        single_replies = await asyncio.gather(*single_requests)
        answers |= _merge_answers(single_replies)

        return RubricAnswers(
            answers,
            unanswered=tuple(question for question in ids if question not in answers),
            attempts=sum(reply.attempts for reply in [*replies, *single_replies]),
        )

    def score(
        self,
        ids: Sequence[str],
        response: RubricAnswers,
    ) -> RubricScore:
        """Score a response: the weighted share of yes among the relevant questions that apply."""
        total = weight_of_yes = 0.0
        by_category: defaultdict[str, list[bool]] = defaultdict(list)
        for question in ids:
            answer = response.answers.get(question, "na")
            if answer == "na":
                continue
            criterion = self.criteria[question]
            total += criterion.weight
            if answer == "yes":
                weight_of_yes += criterion.weight
            by_category[criterion.category].append(answer == "yes")

        categories = {}
        for category, is_yes in by_category.items():
            categories[category] = sum(is_yes) / len(is_yes)
        return RubricScore(
            score=weight_of_yes / total if total else None,
            categories=categories,
            relevant=len(ids),
            na=sum(answer == "na" for answer in response.answers.values()),
            unanswered=len(response.unanswered),
        )

    async def _request_selection(
        self,
        judge: Judge,
        background: str,
        request: str,
    ) -> JudgeReply[Selection]:
        questions = self._list_questions(list(self.criteria))
        fence = Fence(background, request)
        user = f"{_describe_request(background, request, fence)}\n\nQuestions:\n{questions}"
        return await query_judge(judge, _SELECT, user, self._read_selection)

    def _read_selection(self, reply: str) -> Selection | None:
        ids_text = read_verdict(reply, _read_relevant)
        if ids_text is None:
            return None

        words = [word.strip(".-") for word in re.findall(r"[\w.-]+", ids_text)]
        if [word.casefold() for word in words] in ([], ["none"]):
            return Selection((), 0)
        unknown = set(words) - self.criteria.keys()
        ids = tuple(question for question in self.criteria if question in words)
        return Selection(ids, len(unknown))

    def _list_questions(self, ids: Sequence[str]) -> str:
        return "\n".join(f"{question}: {self.criteria[question].question}" for question in ids)


def read_answers(
    reply: str,
    ids: Sequence[str],
) -> dict[str, Answer]:
    """Parse the first word after each id, if it is yes, no or na; lines and JSON objects alike.

    An id with different answers has none, and is requested again.
    """

    def read_line(line: str) -> tuple[str, Answer] | None:
        match = _ANSWER_LINE.match(line)
        if match is None or match[1] not in ids:
            return None
        return match[1], _ANSWERS[match[2].casefold()]

    # A JSON object on one line is split into a line for each member.
    return read_verdicts(reply.replace('", "', '",\n"'), read_line)


def _read_relevant(line: str) -> str | None:
    match = _RELEVANT.fullmatch(line)
    return None if match is None else match[1].strip(" _.")


def _merge_answers(replies: Sequence[JudgeReply[dict[str, Answer]]]) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for reply in replies:
        answers |= reply.value or {}
    return answers


def _describe_request(background: str, request: str, fence: Fence) -> str:
    description = f"Request:\n{fence.wrap(request)}"
    if background:
        return f"What is known of the person:\n{fence.wrap(background)}\n\n{description}"
    return description
