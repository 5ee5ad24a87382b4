"""Restraint: does an answer use what belongs there about the user, and nothing else?

A user's facts stand in the history as ordinary records.  For each request some of them belong into
the answer (apply) and the others do not (leak).  Both rates are reported, with the share of facts
to suppress that entered the context at all, which separates the search from the model's restraint,
and with tokens of other users, which must never appear.

The form of the data is in `cases`, the own set in `generator`, the metrics in `scoring`, the judge
of paraphrases, which is optional, in `judging`.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from personabench.api.dataset import Dataset
from personabench.api.judged import JudgedTask
from personabench.api.layout import Layout, check_layout
from personabench.api.task import JsonObject
from personabench.api.wording import Vocabulary
from personabench.metrics.metric import Value
from personabench.models.roles import Role
from personabench.tasks.restraint import judging, scoring
from personabench.tasks.restraint.cases import Case, Request, list_tokens, read_cases
from personabench.tasks.restraint.generator import generate
from personabench.types import Record, Sample, to_json

__all__ = ["Restraint"]

NOTHING_TO_APPLY = "There is nothing of my own to add."


class Restraint(JudgedTask):
    """Use the facts that a request calls for, and keep all others to yourself."""

    name = "restraint"
    title = "Restraint: use what a request calls for about the user, and nothing else"
    kind = "text"
    offers = ("history", "population", "evidence")
    source = "made by rule for this project"
    licence = "that of this project"
    default_split = "own"
    accepts_file = True
    max_tokens = 256
    scorers = ("official",)
    metrics = scoring.METRICS
    # Small talk.
    shares_records = True
    judged_metrics = scoring.JUDGED_METRICS
    optional_roles = ("judge",)
    judge_content = judging.PROMPT
    words = Vocabulary(
        person="user",
        stimulus="request",
        response="remark",
        profile_question="What is known about this user?",
        instruction="Write what is requested and nothing else.",
        answer_form="what is requested",
    )

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
        """Options of the task, beside those of the layout.

        Attributes:
            users: users of the own set, each with six facts and eight requests.
            data_seed: another seed makes other users.
            draws: times that each request is asked, for violation@k; more than one makes sense at a
                temperature above 0.
        """

        users: int = 40
        data_seed: int = 0
        draws: int = 1

        def __post_init__(self) -> None:
            check_layout(self, turns="records are remarks of the user")
            if self.users < 2 or self.draws < 1:
                raise ValueError("users is at least 2, draws at least 1")

    params: Params

    def open(self, split: str, data: Path | None) -> Dataset:
        dataset = super().open(split, data)
        if data is None:
            # The set is made for this project and is whole, not an example of another.
            dataset.sample = False
            dataset.source = f"the own set, {self.params.users} users"
        return dataset

    def load(self, split: str, data: Path | None) -> Iterator[Sample]:
        if data is None:
            cases = generate(self.params.users, self.params.data_seed)
        else:
            cases = read_cases(data)
        tokens = list_tokens(cases)
        for case in cases:
            own = set(tokens[case.user_id])
            others = [
                token
                for user_id, theirs in tokens.items()
                if user_id != case.user_id
                for token in theirs
                if token not in own
            ]
            history = _make_history(case)
            for request in case.requests:
                for draw in range(1, self.params.draws + 1):
                    yield _make_sample(case, request, history, others, draw)

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """The text; None for an empty one."""
        return output.strip() or None

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        return scoring.measure(parsed or "", sample)

    def measure_retrieval(self, sample: Sample, shown: Sequence[str]) -> Mapping[str, Value]:
        evidence = super().measure_retrieval(sample, shown)
        return {**evidence, **scoring.measure_context(sample, shown)}

    async def assess(
        self, sample: Sample, output: str, interaction: JsonObject, judge: Role
    ) -> JsonObject | None:
        facts = scoring.read_facts(sample)
        used = scoring.find_used(output, facts)
        remaining = [fact for fact in facts if fact.id not in used]
        paraphrased = await judging.find_paraphrased(judge, output, remaining)
        return None if paraphrased is None else {"used": sorted(used | paraphrased)}

    def measure_interaction(
        self, interaction: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        if not assessment:
            return {}
        used: list[Any] = assessment["used"]
        return scoring.measure_judged(sample, set(used))


def _make_history(case: Case) -> tuple[Record, ...]:
    """Facts and small talk in an order that depends on the user alone."""
    records = [Record(fact.id, response=fact.text) for fact in case.facts]
    records += [Record(f"talk-{number}", response=text) for number, text in enumerate(case.talk)]
    random.Random(f"restraint\x1f{case.user_id}").shuffle(records)
    return tuple(records)


def _make_sample(
    case: Case,
    request: Request,
    history: tuple[Record, ...],
    others: Sequence[str],
    draw: int,
) -> Sample:
    suffix = f"/draw-{draw}" if draw > 1 else ""
    tokens = [fact.tokens[0] for fact in case.facts if fact.id in request.apply]
    gold = f"Known of me: {'; '.join(tokens)}." if tokens else NOTHING_TO_APPLY
    return Sample(
        f"{case.user_id}/{request.id}{suffix}",
        user_id=case.user_id,
        input=request.text,
        stimulus=request.text,
        history=history,
        references=(gold,),
        evidence=request.apply,
        hidden={
            "request": request.id,
            "apply": " ".join(request.apply),
            "facts": msgspec.json.encode(case.facts).decode(),
            "others": to_json(list(others)),
        },
    )
