"""Answers that are written instead of chosen: judged against the preferred one, or scored.

A judge sees what is known of the user and two answers, the written one and the response that the
data call preferred, once in each order, and names the better one.  Rewards of the written answers,
computed elsewhere, give the score of a simulated user of PersonalLLM.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np

from personabench.api.judged import JudgedTask
from personabench.api.rows import NoDataError, read_rows
from personabench.api.task import JsonObject
from personabench.api.wording import Vocabulary
from personabench.errors import DataError
from personabench.hashing import digest
from personabench.metrics.judges.ask import query_judge
from personabench.metrics.judges.fence import RULE, Fence
from personabench.metrics.judges.verdict_reader import read_verdict
from personabench.metrics.metric import Metric, Value
from personabench.models.roles import Role
from personabench.tasks.prefpair.base import PreferenceTask
from personabench.tasks.prefpair.comparison import make_samples
from personabench.tasks.prefpair.scoring import Floats
from personabench.types import Sample

_BETTER = re.compile(r"[_#> -]{0,4}better_?\s{0,3}:_?\s{0,3}([12])[. _]{0,3}", re.IGNORECASE)
_SYSTEM = (
    "You decide in the place of a user which of two answers to the user's message they would like "
    "better, from what is known of them. An answer is not better for being longer. "
    f"{RULE} First give your reasons in two or three sentences. Then end with one line, "
    '"Better: 1" or "Better: 2".'
)
PROMPT = digest([_SYSTEM, "known, message, answers"])[:12]
"""The hash of the judge's wording."""
RECORDS = 10
"""The user's newest records that the judge sees."""
_RIDGE = 0.1
_STEPS = 25


async def judge_answer(
    judge: Role, *, known: str, message: str, answer: str, preferred: str
) -> list[int] | None:
    """Have a judge compare an answer with the preferred one in both orders.

    Returns:
        For each order 1 if the answer is better, else 0; None if an order is unjudged.

    Raises:
        BackendError: a call failed for good.
    """
    fence = Fence(known, message, answer, preferred)
    wins = []
    for is_first in (True, False):
        texts = (answer, preferred) if is_first else (preferred, answer)
        user = (
            f"Known of the user:\n{fence.wrap(known or '(nothing)')}\n\n"
            f"Message:\n{fence.wrap(message)}\n\nAnswer 1:\n{fence.wrap(texts[0])}\n\n"
            f"Answer 2:\n{fence.wrap(texts[1])}"
        )
        reply = await query_judge(judge, _SYSTEM, user, read_better)
        if reply.attempts > 1:
            judge.flag("judge_retried", reply.attempts - 1)
        if reply.value is None:
            return None
        wins.append(int((reply.value == 1) == is_first))
    return wins


def read_better(reply: str) -> int | None:
    """Parse the number of the better answer, alone on its line; None without, or with both."""

    def read_line(line: str) -> int | None:
        match = _BETTER.fullmatch(line)
        return None if match is None else int(match[1])

    return read_verdict(reply, read_line)


def control_length(values: Floats) -> float:
    """The win rate at equal length; rows are (share of orders won, excess of length, -1 to 1).

    A logistic model of the wins has an intercept and the excess of length, with a weak ridge so
    that it exists where all are won; the rate is that of the intercept.
    """
    wins, excess = values[:, 0], values[:, 1]
    features = np.column_stack([np.ones(len(wins)), excess])
    weights = np.zeros(2)
    for _ in range(_STEPS):
        rates = 1 / (1 + np.exp(-features @ weights))
        gradient = features.T @ (wins - rates) - _RIDGE * weights
        curvature = (features.T * (rates * (1 - rates))) @ features + _RIDGE * np.eye(2)
        weights = weights + np.linalg.solve(curvature, gradient)
    return float(1 / (1 + np.exp(-weights[0])))


JUDGED_METRICS = (
    Metric("win"),
    Metric("win-equal-length", aggregate=control_length),
    Metric("conflict", higher_is_better=False),
)


def measure_wins(wins: Sequence[int], answer: str, preferred: str) -> dict[str, Value]:
    """The values of a judged answer for `JUDGED_METRICS`; a conflict of orders is half a win."""
    share = sum(wins) / len(wins)
    longest = max(len(answer), len(preferred), 1)
    return {
        "win": share,
        "win-equal-length": [share, (len(answer) - len(preferred)) / longest],
        "conflict": float(len(set(wins)) > 1),
    }


class GeneratedAnswers(PreferenceTask, JudgedTask):
    """The part that tasks of written answers share: one sample for each comparison, and a judge."""

    kind = "text"
    max_tokens = 512
    offers: ClassVar[tuple[str, ...]] = ("history", "comparisons")
    judge_content = PROMPT
    judge_sees_own_history = True
    words = Vocabulary(
        person="user",
        stimulus="message",
        response="preferred response",
        profile_question=PreferenceTask.words.profile_question,
        goal="Answer this user's message in the way that this user prefers.",
        instruction="Reply with the answer only.",
        answer_form="the answer to the user's message",
    )

    @dataclasses.dataclass(frozen=True)
    class Params(PreferenceTask.Params):
        """Options of the layout."""

        def __post_init__(self) -> None:
            if self.orders != 2:
                raise ValueError("orders is an option of choices; a judge sees both orders")

    params: Params

    def load(self, split: str, data: Path | None) -> Iterator[Sample]:
        if data is None:
            raise NoDataError(f"the example data of {self.name} are missing; name a folder")
        folder = data / self.data_name
        for comparison in self.read(folder if folder.is_dir() else data, self._counts):
            (sample,) = make_samples(comparison, 1, self.shows_profile)
            hidden = {**comparison.hidden, "profile": comparison.profile}
            yield msgspec.structs.replace(sample, id=comparison.id, choices=(), hidden=hidden)

    async def assess(
        self, sample: Sample, output: str, interaction: JsonObject, judge: Role
    ) -> JsonObject | None:
        """Have the judge compare the answer with the preferred response; see `judge_answer`."""
        records = [self.describe(record) for record in sample.history[-RECORDS:]]
        wins = await judge_answer(
            judge,
            known=sample.hidden.get("profile") or "\n\n".join(records),
            message=sample.stimulus or sample.input,
            answer=output,
            preferred=sample.references[0],
        )
        return None if wins is None else {"wins": wins, "answer": output}

    def measure_interaction(
        self, interaction: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        if not assessment:
            return {}
        return measure_wins(assessment["wins"], assessment["answer"], sample.references[0])


class Rewards:
    """Rewards of written answers from a file, by message and answer.

    Args:
        path: rows of `{"prompt", "response", "rewards": {"gemma_2b": 1.5, ...}}`.
        names: the reward models that every row must have.

    Raises:
        DataError: the file is missing or broken, or a row lacks a reward.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._by_answer: dict[str, dict[str, float]] = {}
        for row in read_rows(path):
            rewards = row["rewards"]
            is_complete = isinstance(rewards, dict) and set(names) <= rewards.keys()
            if not is_complete or not all(isinstance(rewards[n], int | float) for n in names):
                raise DataError(
                    f"{row.location}: rewards is {rewards!r}, expected a number for each of: "
                    f"{', '.join(names)}"
                )
            key = _answer_key(str(row["prompt"]), str(row["response"]))
            self._by_answer[key] = {name: float(rewards[name]) for name in names}

    def find(self, prompt: str, answer: str) -> Mapping[str, float] | None:
        """Return the rewards of an answer; None if the file has none."""
        return self._by_answer.get(_answer_key(prompt, answer))


def _answer_key(prompt: str, answer: str) -> str:
    return digest([prompt.strip(), answer.strip()])
