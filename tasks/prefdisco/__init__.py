"""PrefDisco: find out what a user wants of an answer before giving it (arXiv 2510.00177).

A record is a problem posed by a persona with weighted preferences.  It is answered three times by the model under test:
knowing nothing of the user (base), told everything (known), and at last as the task has it (final): after asking in
`prefdisco`, with the history of earlier problems in `prefdisco_warm`.  Files are in `files` and `sources`, samples in
`data` and `warm`, what is said in `wording` and `conversation`, judging in `grading`, numbers in `scoring`, and how new
sets are made in `generating`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from personabench.api.data_sources import Audited, Downloadable, Generative
from personabench.api.dataset import Dataset
from personabench.api.dialogue import DialogueTask, Reply
from personabench.api.judged import JudgedTask
from personabench.api.task import JsonObject
from personabench.api.wording import Rendered
from personabench.metrics.metric import Value
from personabench.models.tokens import Tokens
from personabench.tasks.prefdisco import grading, scoring, warm, wording
from personabench.tasks.prefdisco.conversation import Kind, discover
from personabench.tasks.prefdisco.data import PrefDiscoData, entry_of
from personabench.tasks.prefdisco.files import folded
from personabench.tasks.prefdisco.grading import Weights
from personabench.tasks.prefdisco.wording import GRADING, WORDING
from personabench.types import Message, Record, Sample

if TYPE_CHECKING:
    from personabench.api.context import Context
    from personabench.models.roles import Role, RoleName

FIXED = (0, 2, 4, 8)


@dataclasses.dataclass(frozen=True)
class Judging:
    """Options of both tasks.

    Attributes:
        simulator: the simulated user: passive_nostop, passive (may end the talk) or collaborative (an ablation).
        max_turns: turns at most before the final answer is asked for.
        fixed_questions: exactly 2, 4 or 8 exchanges instead (an ablation); 0 for the loop.
        simulator_max_tokens: allowance of the simulated user.
        images: records with an image: ignore the image, which is never sent, or skip the record.
        weights: importance, the persona's own for the problem, or the rubric's.
        max_criteria: criteria judged of each record, a draw by its name; 0 for all.
        correctness: parser reads the result where it can and asks the judge else; official always asks.
        judge_max_tokens: allowance of a judge's reply.
        wording, grading: hashes of the texts that are sent; recorded with every run, never chosen.
    """

    simulator: Kind = "passive_nostop"
    max_turns: int = 5
    fixed_questions: int = 0
    simulator_max_tokens: int = 1024
    images: Literal["ignore", "skip"] = "ignore"
    weights: Weights = "importance"
    max_criteria: int = 0
    correctness: Literal["parser", "official"] = "parser"
    judge_max_tokens: int = 1024
    wording: str = WORDING
    grading: str = GRADING

    def __post_init__(self) -> None:
        if (self.wording, self.grading) != (WORDING, GRADING):
            raise ValueError("wording and grading are recorded, not chosen")
        if self.fixed_questions not in FIXED:
            raise ValueError(
                f"fixed_questions is one of {', '.join(map(str, FIXED))}, not {self.fixed_questions}"
            )
        if self.max_turns < 1 or self.max_criteria < 0:
            raise ValueError("max_turns is at least 1, max_criteria at least 0")


class _Discovering(DialogueTask, JudgedTask, Downloadable):
    """What both tasks share: how a variant of a record is worded, and how answers are judged."""

    title = "PrefDisco: find out what a user wants before answering"
    kind = "text"
    source = "https://huggingface.co/datasets/stellalisy/prefq-bench (arXiv 2510.00177)"
    licence = "as the source benchmarks of the problems (see docs/tasks/prefdisco.md)"
    default_split = "sample"
    max_tokens = 1024
    scorers = ("official",)
    words = wording.WORDS
    protocol = "dialogue"
    roles: tuple[RoleName, ...] = ("simulator", "judge")
    judge_params = ("weights", "max_criteria", "correctness", "judge_max_tokens", "grading")
    params: Judging

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """A record's request: `attributes` say what the system message tells, `dialogue` what was said since.

        Without either, and without records and notes, it is the request of somebody who knows nothing of the user.
        """
        told = sample.attributes
        parts = [told["system"]] if "system" in told else [wording.WARM] if records or notes else []
        if notes:
            parts.append(f"{wording.ABOUT}\n{notes}")
        if records:
            parts.append("\n\n".join([wording.EARLIER, *map(self.describe, records)]))
        head = [Message("system", "\n\n".join(parts))] if parts else []
        asked, talk = sample.input, sample.dialogue
        if talk and talk[0].role == "user":
            asked, talk = f"{asked}\n\n{talk[0].content}", talk[1:]
        return Rendered((*head, Message("user", asked), *talk), tuple(records))

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """The answer; None for an empty one."""
        return output.strip() or None

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        """Nothing: every number comes from the judge."""
        return {}

    async def converse(
        self, sample: Sample, reply: Reply, ctx: Context, simulator: Role
    ) -> tuple[str, JsonObject]:
        """All conditions of a record: `base` and `known` by the model alone, then the method's."""
        entry = entry_of(sample)
        described = wording.profile(entry.persona, entry.preferences)
        bare = msgspec.structs.replace(sample.view(), history=())
        base = await ctx.answer(bare)
        known = await ctx.answer(_with(bare, f"{wording.KNOWN}\n\n{described}"))
        conditions: dict[str, Any] = {
            "base": {"output": base},
            "known": {"output": known},
        }
        conditions |= await self._final(sample, reply, simulator, described)
        return conditions["final"]["output"], {
            "simulator": self.params.simulator,
            "conditions": conditions,
        }

    async def _final(
        self, sample: Sample, reply: Reply, simulator: Role, described: str
    ) -> dict[str, Any]:
        """The conditions in which the method is at work; `final` is the one that counts."""
        return {"final": await self._discovery(sample, reply, simulator, described)}

    async def _discovery(
        self, sample: Sample, reply: Reply, simulator: Role, described: str
    ) -> dict[str, Any]:
        p = self.params
        system = (
            wording.FIXED.format(count=p.fixed_questions)
            if p.fixed_questions
            else wording.DISCOVERY
        )

        async def ask(dialogue: tuple[Message, ...]) -> str:
            return await reply(msgspec.structs.replace(_with(sample, system), dialogue=dialogue))

        found = await discover(
            ask,
            simulator,
            kind=p.simulator,
            described=described,
            max_turns=p.max_turns,
            fixed=p.fixed_questions,
            max_tokens=p.simulator_max_tokens,
        )
        return found.record()

    async def assess(
        self, sample: Sample, output: str, record: JsonObject, judge: Role
    ) -> JsonObject | None:
        """Grades and correctness of every condition; None where one of them is unjudged."""
        p, entry = self.params, entry_of(sample)
        criteria = grading.selected(entry.criteria, entry.id, p.max_criteria)
        share = grading.weights(criteria, entry.preferences, p.weights)
        found: dict[str, Any] = {}
        for name, told in record["conditions"].items():
            grades = await grading.graded(
                criteria, entry.preferences, told["output"], judge, p.judge_max_tokens
            )
            aligned = grading.prefalign(grades, share)
            if aligned is None:
                return None
            official = p.correctness == "official"
            right = await grading.correctness(
                entry.problem, told["output"], judge, official, p.judge_max_tokens
            )
            found[name] = {"prefalign": aligned, "grades": grades, **right}
        return {"conditions": found, "weights": share}

    def measure_interaction(
        self, record: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        if assessment is None:
            return {}
        judged, done = assessment["conditions"], record["conditions"]
        base, known, final = (judged[name]["prefalign"] for name in ("base", "known", "final"))
        values: dict[str, Value] = {
            "prefalign": final,
            self.metrics[1].name: [base, known, final],
            "prefalign-base": base,
            "prefalign-known": known,
        }
        for name, metric in (
            ("final", "accuracy"),
            ("base", "accuracy-base"),
            ("known", "accuracy-known"),
        ):
            if judged[name]["correct"] is not None:
                values[metric] = float(judged[name]["correct"])
        for told in done.values():
            if "questions" in told:
                values |= {
                    "questions": float(told["questions"]),
                    "no-question": float(not told["questions"]),
                }
        return values

    def download(self, split: str, target: Path, **options: Any) -> None:
        from personabench.tasks.prefdisco.download import download

        download(split, target, **options)


class PrefDisco(_Discovering, Generative):
    """Ask the user what matters to them, then answer a problem in their way."""

    name = "prefdisco"
    title = "PrefDisco: find out what a user wants before answering"
    kind = "text"
    offers = ("dialogue",)
    metrics = scoring.COLD

    @dataclasses.dataclass(frozen=True)
    class Params(Judging):
        """See `Judging`."""

    def open(self, split: str, data: Path | None) -> Dataset:
        """See `Task`; a split is the name of a set: math, 5k/medqa, or a record file of the folder."""
        return PrefDiscoData(split, data, self.params.images == "ignore")

    async def generate(
        self, source: str, target: Path, models: Sequence[Role], **options: Any
    ) -> Path:
        from personabench.tasks.prefdisco.generating import generate

        return await generate(source, target, models, **options)


class PrefDiscoWarm(_Discovering, Audited):
    """Answer a problem in the way of a user whose wishes on earlier problems are known."""

    name = "prefdisco_warm"
    title = "PrefDisco, warm start: earlier wishes as a history (this project's extension)"
    kind = "text"
    offers = ("history", "population")
    metrics = scoring.WARM
    judged_metrics = scoring.ASKING

    @dataclasses.dataclass(frozen=True)
    class Params(Judging):
        """Options beside `Judging`'s.

        Attributes:
            h: earlier records in a history: 0, 1, 3, 5 or 10.
            targets: records a persona is tested on; 0 for 3, or 1 in the bundled sample.
            form: what a history holds of a record: statements, or a reference model's dialogue or response.
            writer: for the latter, the folder of a run of prefdisco on the same set.
            m: preferences that a statement reveals.
            scope: task, or cross_task to take earlier records from all sets of the folder.
            owner: own, or population for what most others said of the same dimensions (a control).
            min_pool: leave out personas with fewer earlier records; a curve over h takes its largest.
            ask: also ask the user, with the history at hand.
            seed: of the split.
        """

        h: int = 5
        targets: int = 0
        form: Literal["statements", "dialogue", "response"] = "statements"
        writer: str = ""
        m: int = 5
        scope: Literal["task", "cross_task"] = "task"
        owner: Literal["own", "population"] = "own"
        min_pool: int = 0
        ask: bool = False
        seed: int = 0

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.h < 0 or self.m < 1 or self.targets < 0 or self.min_pool < 0:
                raise ValueError("h, targets and min_pool are at least 0, m at least 1")
            if self.owner == "population" and self.form != "statements":
                raise ValueError("owner=population is made of statements")

    params: Params

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        if not self.params.ask:
            self.roles = ("judge",)
            self.judged_metrics = ()  # type: ignore[misc]

    def open(self, split: str, data: Path | None) -> Dataset:
        """See `Task`; samples are each persona's targets."""
        return warm.WarmData(self, split, data)

    def describe(self, record: Record) -> str:
        """An earlier problem with what the user said of the answer they want."""
        draft = record.fields.get("draft")
        shown = [f"Problem: {record.stimulus}"] if record.stimulus else []
        shown += [f"First answer: {draft}"] if draft else []
        return "\n".join([*shown, f"Wanted answer: {record.response}"])

    def audit(self, dataset: Dataset) -> list[str]:
        """Targets whose problem stands in their own history."""
        return [
            f"the problem of {sample.id} stands in its history"
            for sample in dataset.samples()
            if any(record.item == sample.item for record in sample.history)
        ]

    async def _final(
        self, sample: Sample, reply: Reply, simulator: Role, described: str
    ) -> dict[str, Any]:
        found: dict[str, Any] = {"final": {"output": (await reply(sample)).strip()}}
        if self.params.ask:
            found["ask"] = await self._discovery(sample, reply, simulator, described)
        return found

    def measure_interaction(
        self, record: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        values = dict(super().measure_interaction(record, assessment, sample))
        if assessment is None:
            return values
        judged, told = assessment["conditions"], warm.seen(sample.history)
        old, new, share = scoring.parts(judged["final"]["grades"], assessment["weights"], set(told))
        values |= {"prefalign-seen": old} if old is not None else {}
        values |= {"prefalign-unseen": new} if new is not None else {}
        values["seen-share"] = share
        preferences = entry_of(sample).preferences
        recalled = [name for name in judged["final"]["grades"] if told.get(name)]
        if recalled:
            same = [folded(told[name]) == folded(preferences[name].value) for name in recalled]
            values["agreement"] = sum(same) / len(same)
        if "ask" in judged:
            base, known, ask = (judged[name]["prefalign"] for name in ("base", "known", "ask"))
            values |= {"prefalign-ask": ask, "normalign-ask": [base, known, ask]}
        return values


def _with(sample: Sample, system: str) -> Sample:
    return msgspec.structs.replace(sample, attributes={**sample.attributes, "system": system})
