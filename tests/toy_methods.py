"""Toy tasks of every protocol and methods for them: online, dialogue, judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from personabench import (
    Context,
    Dataset,
    Message,
    Method,
    Metric,
    Rendered,
    Sample,
    Task,
    Tokens,
    Vocabulary,
)
from personabench.api.dialogue import DialogueTask, Reply
from personabench.api.judged import JudgedTask
from personabench.api.online import OnlineTask
from personabench.api.task import JsonObject
from personabench.metrics.metric import Value
from personabench.models.roles import Role

SECRET = "the-hidden-wish"


class Days(Dataset):
    """Three users of four samples each; every sample hides the user's wish."""

    separation, split, sample = "user", "dev", True
    hash, source = "toy", "toy data"

    def index(self) -> Sequence[tuple[str, str]]:
        return [(f"{user}{day}", user) for user in "abc" for day in range(4)]

    def load(self, position: int) -> Sample:
        name, user = self.index()[position]
        return Sample(
            name,
            user,
            f"Say something for day {name}.",
            references=("this",),
            hidden={"wish": SECRET},
        )


class Toy(Task):
    """What the toy tasks share."""

    name = "toy"
    metrics = (Metric("length"),)
    scorers = ("official",)
    words = Vocabulary("person", "day", "saying", "What do they like?", (), "Say it.")

    def open(self, split: str, data: Path | None) -> Dataset:
        return Days()

    def render(
        self, sample: Sample, records: Sequence[Any], notes: str, tokens: Tokens
    ) -> Rendered:
        told = [Message("user", f"{notes} {sample.input}".strip()), *sample.dialogue]
        return Rendered(tuple(told))

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        return output

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        return {"length": len(parsed or "")}


class Talk(Toy, DialogueTask):
    """Two turns: the simulated user asks back once, then the method answers for good."""

    name = "toy_talk"
    protocol = "dialogue"
    roles = ("simulator",)

    async def converse(
        self, sample: Sample, reply: Reply, ctx: Context, simulator: Role
    ) -> tuple[str, JsonObject]:
        first = await reply(sample)
        plain = await ctx.answer(sample, ())
        question = await simulator.complete(
            f"{sample.hidden['wish']}: ask back on {first}", max_tokens=8
        )
        told = (Message("assistant", first), Message("user", question))
        last = await reply(msgspec.structs.replace(sample, dialogue=told))
        return last, {"first": first, "plain": plain, "question": question}

    def measure_interaction(
        self, interaction: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        return {"length": len(interaction["question"])}


class Daily(Toy, OnlineTask):
    """Each day the simulated user lengthens what was said."""

    name = "toy_daily"
    protocol = "online"
    offers = ("feedback",)
    roles = ("simulator",)

    async def react(
        self, sample: Sample, output: str, simulator: Role
    ) -> tuple[JsonObject, JsonObject]:
        final = await simulator.complete(
            f"{sample.hidden['wish']}: lengthen {output}", max_tokens=8
        )
        simulator.flag("lengthened")
        return {"draft": output, "final": final}, {"final": final}

    def measure_interaction(
        self, interaction: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        return {"length": len(interaction["final"])}


class Judged(Toy, JudgedTask):
    """The judge gives a mark; words that are no mark leave the sample unjudged."""

    name = "toy_judged"
    metrics = (Metric("mark"), Metric("length"))
    roles = ("judge",)
    judge_params = ("strict",)

    @dataclasses.dataclass(frozen=True)
    class Params:
        """strict: how the judge is asked."""

        strict: bool = False

    async def assess(
        self, sample: Sample, output: str, interaction: JsonObject, judge: Role
    ) -> JsonObject | None:
        words = await judge.complete(
            f"strict={self.params.strict} mark {sample.id}: {output}", max_tokens=4
        )
        return {"mark": int(words)} if words.isdigit() else None

    def measure_interaction(
        self, interaction: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        return {} if assessment is None else {"mark": assessment["mark"]}


class Maybe(Judged):
    """Judged only when a judge is named."""

    name = "toy_maybe"
    metrics = (Metric("length"),)
    roles = ()
    optional_roles = ("judge",)
    judged_metrics = (Metric("mark"),)


class Plain(Method):
    """Asks, and counts what it learnt."""

    name = "plain"

    async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
        return await ctx.answer(sample)


class Counting(Method):
    """Tells how many rounds it saw and asks the model about the last one."""

    name = "counting"
    needs = ("feedback",)

    async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
        seen = state or {"rounds": 0, "last": ""}
        ctx.note("seen", seen["rounds"])
        return await ctx.answer(sample, notes=f"round {seen['rounds']}, last {seen['last']}")

    async def update(self, state: Any, feedback: Any, ctx: Context) -> Any:
        digest = await ctx.complete(
            (Message("user", f"What does {feedback['final']} teach?"),), max_tokens=8
        )
        return {"rounds": (state or {"rounds": 0})["rounds"] + 1, "last": digest.text}


class Peeking(Plain):
    """An oracle."""

    name = "peeking"
    privileged = True

    async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
        return sample.hidden["wish"]


TOY = f"{Path(__file__)}:"
"""What `--method` and `--task` call a class here, with its name after it."""
