"""The judge of LaMP-QA: one call for each aspect, a score of 0, 1 or 2.

The judge sees the question, the user's explanation of it, the answer and a single aspect with its
reason and evidence.  The mean over aspects, divided by two, is the score of a question; the score
of a data set is the mean over questions (arXiv 2506.00137).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from personabench.hashing import digest
from personabench.metrics.judges.fence import RULE, Fence
from personabench.metrics.judges.verdict_reader import strip_thoughts
from personabench.models.json_reply import JsonScanner
from personabench.models.roles import Role
from personabench.tasks.lampqa.files import Aspect
from personabench.types import Message, Try

OFFICIAL_JUDGE = "qwen2.5-32b-instruct"
BEST = 2
MAX_TOKENS = 512
KEY = "match_score"
_STEP = 0.1
_SYSTEM = (
    "A user has asked a question and received an answer. You decide how well the answer covers one "
    "single aspect that matters to this user. Ignore all other qualities of the answer. "
    f"{RULE}\n\n"
    "Scores:\n"
    "0: the answer does not cover the aspect.\n"
    "1: it covers the aspect in part, or only in passing.\n"
    "2: it covers the aspect well, as this user needs it.\n\n"
    "First give your reason in one or two sentences. Then end with a JSON object and nothing after "
    f'it: {{"{KEY}": 0}}, {{"{KEY}": 1}} or {{"{KEY}": 2}}'
)
_PARTS = ("Question", "The user's own explanation", "Aspect", "Why it matters", "Evidence for it")
_ANSWER = "Answer to assess"
PROMPT = digest([_SYSTEM, *_PARTS, _ANSWER, KEY, _STEP])[:12]


class AspectScore(NamedTuple):
    """The score of an aspect, None if no reply could be read, and the number of replies."""

    score: int | None
    attempts: int


class QuestionScore(NamedTuple):
    """The score of a question, 0 to 1.

    Attributes:
        official: aspects without a score count as 0.
        judged_only: the mean over the aspects that have a score; None if none has.
        failures: the number of aspects without a score.
    """

    official: float
    judged_only: float | None
    failures: int


async def judge_aspects(
    judge: Role,
    question: str,
    narrative: str,
    answer: str,
    aspects: Sequence[Aspect],
    retries: int,
) -> list[AspectScore]:
    """Have the judge score each aspect of an answer.

    Args:
        retries: further calls for a reply that cannot be read, each .1 warmer, at most 1.

    Raises:
        BackendError: a call failed for good.
    """
    return [
        await _judge_aspect(judge, question, narrative, answer, aspect, retries)
        for aspect in aspects
    ]


async def _judge_aspect(
    judge: Role, question: str, narrative: str, answer: str, aspect: Aspect, retries: int
) -> AspectScore:
    texts = (question, narrative, aspect.aspect, aspect.reason or "", aspect.evidence or "")
    fence = Fence(*texts, answer)
    shown = [
        f"{part}:\n{fence.wrap(text)}" for part, text in zip(_PARTS, texts, strict=True) if text
    ]
    shown.append(f"{_ANSWER}:\n{fence.wrap(answer)}")
    messages = Message("system", _SYSTEM), Message("user", "\n\n".join(shown))

    for attempt in range(retries + 1):
        reply = await judge.complete(
            messages,
            max_tokens=MAX_TOKENS,
            temperature=min(round(attempt * _STEP, 1), 1.0),
            repeat=attempt,
            accept=lambda text: read_score(text) is not None,
            attempt=Try(attempt, retries + 1),
        )
        score = read_score(reply)
        if score is not None:
            return AspectScore(score, attempt + 1)
    return AspectScore(None, retries + 1)


def read_score(reply: str) -> int | None:
    """Read the score of the last complete JSON object of a reply.

    None unless it is the number 0, 1 or 2, or that digit as text.
    """
    last = find_last_object(strip_thoughts(reply))
    score = None if last is None else last.get(KEY)
    if isinstance(score, str) and score.strip() in ("0", "1", "2"):
        return int(score)
    # True and False are numbers to Python.
    if not isinstance(score, int) or isinstance(score, bool):
        return None
    return score if 0 <= score <= BEST else None


def find_last_object(text: str) -> Mapping[str, Any] | None:
    """Find the last JSON object of a text that is in no other; None without one."""
    scanner = JsonScanner(text)
    last = None
    position = text.find("{")
    while position >= 0 and not scanner.is_exhausted:
        read = scanner.read(position)
        end = position + 1
        if read is not None and isinstance(read.value, dict):
            last, end = read.value, read.end
        position = text.find("{", end)
    return last


def score_question(scores: Sequence[int | None]) -> QuestionScore:
    """Combine the scores of a question's aspects, at least one."""
    judged = [score for score in scores if score is not None]
    official = sum(judged) / (BEST * len(scores))
    judged_only = sum(judged) / (BEST * len(judged)) if judged else None
    return QuestionScore(official, judged_only, len(scores) - len(judged))


def is_official_judge(identity: Mapping[str, Any]) -> bool:
    """Whether a judge is the benchmark's, by the name of its model."""
    name = str(identity.get("name", ""))
    return name.rpartition("/")[2].casefold() == OFFICIAL_JUDGE
