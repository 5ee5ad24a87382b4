"""PrefDisco: find out a user's preferences before answering (arXiv 2510.00177).

A record is a problem posed by a persona with weighted preferences.  The model under test answers it
three times: without knowing the user (base), with the full profile (known), and as the task has it
(final): after a conversation in `prefdisco`, with the history of earlier problems in
`prefdisco_warm`.

Files are in `files` and `sources`, samples in `data` and `warm_start`, texts in `wording` and the
conversation in `conversation`, judging in `grading`, metrics in `scoring`, and the making of new
sets in `generation`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from personabench.api.data_sources import Audited, Downloadable, Generative
from personabench.api.dataset import Dataset
from personabench.api.dialogue import DialogueTask, Reply
from personabench.api.judged import JudgedTask
from personabench.api.layout import Layout, Parts, arrange, check_layout
from personabench.api.task import JsonObject
from personabench.api.wording import Rendered
from personabench.hashing import fold_text
from personabench.metrics.metric import Value
from personabench.models.tokens import Tokens
from personabench.tasks.prefdisco import grading, scoring, warm_start, wording
from personabench.tasks.prefdisco.conversation import Kind, discover
from personabench.tasks.prefdisco.data import PrefDiscoData, read_hidden_entry
from personabench.tasks.prefdisco.files import Criterion, Entry
from personabench.tasks.prefdisco.grading import Weights
from personabench.tasks.prefdisco.wording import GRADING, WORDING
from personabench.types import Message, Record, Sample

if TYPE_CHECKING:
    from personabench.api.context import Context
    from personabench.models.roles import Role, RoleName

# The ablation of the paper fixes these numbers of questions; 0 is the loop.
FIXED = (0, 2, 4, 8)


@dataclasses.dataclass(frozen=True)
class Judging(Layout):
    """Options of both tasks, beside those of the layout.

    Attributes:
        simulator: the simulated user: passive_nostop, passive (may end the talk) or collaborative
            (an ablation).
        max_turns: maximum number of turns before the final answer.
        fixed_questions: exactly 2, 4 or 8 exchanges instead (an ablation); 0 for the loop.
        simulator_max_tokens: maximum tokens of each reply of the simulated user.
        images: records with an image: ignore the image, which is never sent, or skip the record.
        weights: importance, the persona's own for the problem, or the rubric's.
        max_criteria: criteria judged of each record, drawn by its name; 0 for all.
        correctness: parser reads the result if possible and calls the judge otherwise; official
            always calls the judge.
        judge_max_tokens: maximum tokens of each reply of the judge.
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
        check_layout(self, turns="records are wishes, not replies")
        if (self.wording, self.grading) != (WORDING, GRADING):
            raise ValueError("wording and grading are recorded, not chosen")
        if self.fixed_questions not in FIXED:
            allowed = ", ".join(map(str, FIXED))
            raise ValueError(f"fixed_questions is one of {allowed}, not {self.fixed_questions}")
        if self.max_turns < 1 or self.max_criteria < 0:
            raise ValueError("max_turns is at least 1, max_criteria at least 0")


class _Discovering(DialogueTask, JudgedTask, Downloadable):
    """The part that both tasks share: wording of the conditions, and judging of the answers."""

    title = "PrefDisco: find out what a user wants before answering"
    kind = "text"
    source = "https://huggingface.co/datasets/stellalisy/prefq-bench (arXiv 2510.00177)"
    licence = "as the source benchmarks of the problems (see docs/tasks/prefdisco.md)"
    default_split = "sample"
    max_tokens = 1024
    scorers = ("official",)
    tokenizer = "whitespace"
    words = wording.WORDS
    protocol = "dialogue"
    roles: tuple[RoleName, ...] = ("simulator", "judge")
    judge_params = ("weights", "max_criteria", "correctness", "judge_max_tokens", "grading")
    params: Judging

    def render(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
    ) -> Rendered:
        """Render a record's request.

        The sample's attribute `system` is the condition's system message, its `dialogue` the
        conversation so far.  Without either, and without records and notes, this is the request of
        an unknown user.
        """
        content = sample.input
        dialogue = sample.dialogue
        # Two user messages in a row break the chat templates of some models.
        if dialogue and dialogue[0].role == "user":
            content = f"{content}\n\n{dialogue[0].content}"
            dialogue = dialogue[1:]

        opening = wording.WARM if records or notes else ""
        parts = Parts(
            opening=sample.attributes.get("system", opening),
            question=content,
            notes=f"{wording.ABOUT}\n{notes}" if notes else "",
            records=records,
            word_turn=lambda record: record.stimulus or "",
            word_list=self._list_records,
        )
        messages = (*arrange(parts, self.params, "list", "best_first"), *dialogue)
        return Rendered(messages, tuple(records))

    def render_content(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
    ) -> Rendered | None:
        """See `Wording`; None within a conversation, whose turns have a form that it reads."""
        if "system" in sample.attributes:
            return None
        return self.render(sample, records, notes, tokens)

    def _list_records(self, records: Sequence[Record]) -> str:
        descriptions = [self.describe(record) for record in records]
        return "\n\n".join([wording.EARLIER, *descriptions])

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """The answer; None for an empty one."""
        return output.strip() or None

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        """No metric: all of them come from the judge."""
        return {}

    async def converse(
        self,
        sample: Sample,
        reply: Reply,
        ctx: Context,
        simulator: Role,
    ) -> tuple[str, JsonObject]:
        """Run all conditions of a record: the model alone (`base`, `known`), then the method's."""
        entry = read_hidden_entry(sample)
        described = wording.describe_user(entry.persona, entry.preferences)
        # The model alone must not see the history either, or every gain would shrink.
        bare = msgspec.structs.replace(sample.view(), history=())
        informed = _set_system(bare, f"{wording.KNOWN}\n\n{described}")

        conditions: dict[str, Any] = {
            "base": {"output": await ctx.answer(bare)},
            "known": {"output": await ctx.answer(informed)},
        }
        conditions |= await self._run_method(sample, reply, simulator, described)
        interaction = {"simulator": self.params.simulator, "conditions": conditions}
        return conditions["final"]["output"], interaction

    async def _run_method(
        self,
        sample: Sample,
        reply: Reply,
        simulator: Role,
        described: str,
    ) -> dict[str, Any]:
        """Run the conditions in which the method is at work; `final` is the one that counts."""
        return {"final": await self._discover(sample, reply, simulator, described)}

    async def _discover(
        self,
        sample: Sample,
        reply: Reply,
        simulator: Role,
        described: str,
    ) -> dict[str, Any]:
        """Run the conversation of a sample and return it as JSON."""
        params = self.params
        system = wording.DISCOVERY
        if params.fixed_questions:
            system = wording.FIXED.format(count=params.fixed_questions)
        prompted = _set_system(sample, system)

        async def ask(dialogue: tuple[Message, ...]) -> str:
            return await reply(msgspec.structs.replace(prompted, dialogue=dialogue))

        discovery = await discover(
            ask,
            simulator,
            kind=params.simulator,
            described=described,
            max_turns=params.max_turns,
            fixed=params.fixed_questions,
            max_tokens=params.simulator_max_tokens,
        )
        return discovery.to_json()

    async def assess(
        self,
        sample: Sample,
        output: str,
        interaction: JsonObject,
        judge: Role,
    ) -> JsonObject | None:
        """Grade every condition; None if one of them is unjudged."""
        params = self.params
        entry = read_hidden_entry(sample)
        criteria = grading.select_criteria(entry.criteria, entry.id, params.max_criteria)
        weights = grading.normalize_weights(criteria, entry.preferences, params.weights)

        assessed: dict[str, Any] = {}
        for name, condition in interaction["conditions"].items():
            assessment = await self._assess_answer(
                entry, criteria, weights, condition["output"], judge
            )
            # A record counts in all conditions or in none, so further calls would be wasted.
            if assessment is None:
                return None
            assessed[name] = assessment
        return {"conditions": assessed, "weights": weights}

    async def _assess_answer(
        self,
        entry: Entry,
        criteria: Sequence[Criterion],
        weights: Mapping[str, float],
        answer: str,
        judge: Role,
    ) -> dict[str, Any] | None:
        """Grade one answer and decide its correctness; None if too few grades could be parsed."""
        params = self.params
        grades = await grading.grade_criteria(
            criteria, entry.preferences, answer, judge, params.judge_max_tokens
        )
        prefalign = grading.compute_prefalign(grades, weights)
        if prefalign is None:
            return None
        correctness = await grading.assess_correctness(
            entry.problem,
            answer,
            judge,
            params.correctness == "official",
            params.judge_max_tokens,
        )
        return {"prefalign": prefalign, "grades": grades, **correctness}

    def measure_interaction(
        self,
        interaction: JsonObject,
        assessment: JsonObject | None,
        sample: Sample,
    ) -> Mapping[str, Value]:
        if assessment is None:
            return {}
        judged = assessment["conditions"]
        prefaligns = {condition: judged[condition]["prefalign"] for condition in judged}
        normalign = self.metrics[1].name
        values: dict[str, Value] = {
            "prefalign": prefaligns["final"],
            normalign: _list_normalign_row(prefaligns, "final"),
            "prefalign-base": prefaligns["base"],
            "prefalign-known": prefaligns["known"],
        }

        accuracies = {"final": "accuracy", "base": "accuracy-base", "known": "accuracy-known"}
        for condition, metric in accuracies.items():
            correct = judged[condition]["correct"]
            if correct is not None:
                values[metric] = float(correct)

        for stored in interaction["conditions"].values():
            if "questions" in stored:
                values["questions"] = float(stored["questions"])
                values["no-question"] = float(not stored["questions"])
        return values

    def download(self, split: str, target: Path, **options: Any) -> None:
        from personabench.tasks.prefdisco.download import download

        download(split, target, **options)


class PrefDisco(_Discovering, Generative):
    """Find out the user's preferences in a conversation, then answer a problem accordingly."""

    name = "prefdisco"
    title = "PrefDisco: find out what a user wants before answering"
    kind = "text"
    offers = ("dialogue",)
    metrics = scoring.COLD

    @dataclasses.dataclass(frozen=True)
    class Params(Judging):
        """See `Judging`."""

    def open(self, split: str, data: Path | None) -> Dataset:
        """Open a set; a split is its name: math, 5k/medqa, or a record file of the folder."""
        return PrefDiscoData(split, data, self.params.images == "ignore")

    async def generate(
        self,
        source: str,
        target: Path,
        models: Sequence[Role],
        **options: Any,
    ) -> Path:
        from personabench.tasks.prefdisco.generation import generate

        return await generate(source, target, models, **options)


class PrefDiscoWarm(_Discovering, Audited):
    """Answer a problem for a user whose preferences on earlier problems are known."""

    name = "prefdisco_warm"
    title = "PrefDisco, warm start: earlier wishes as a history (this project's extension)"
    kind = "text"
    offers = ("history", "population", "precedents", "items")
    metrics = scoring.WARM
    judged_metrics = scoring.ASKING

    @dataclasses.dataclass(frozen=True)
    class Params(Judging):
        """Options beside `Judging`'s.

        Attributes:
            h: earlier records in a history: 0, 1, 3, 5 or 10.
            targets: records a persona is tested on; 0 for 3, or 1 in the example data.
            form: content of a history record: statements, or a reference model's dialogue or
                response.
            writer: for the latter, the folder of a run of prefdisco on the same set.
            m: preferences that a statement reveals.
            scope: task, or cross_task to take earlier records from all sets of the folder.
            owner: own, or population for the most frequent wishes of all peers (a control).
            min_pool: leave out personas with fewer earlier records; a curve over h takes its
                largest.
            ask: also run the conversation, with the history at hand.
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
                raise ValueError("owner=population requires form=statements")

    params: Params

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        # Without a conversation a run has no use for a simulator, and must not require one.
        if not self.params.ask:
            self.roles = ("judge",)
            self.judged_metrics = ()  # type: ignore[misc]

    def open(self, split: str, data: Path | None) -> Dataset:
        """Open a set; its samples are each persona's targets."""
        return warm_start.WarmData(self, split, data)

    def describe(self, record: Record) -> str:
        """Describe an earlier problem and the user's wishes for its answer."""
        parts = []
        if record.stimulus:
            parts.append(f"Problem: {record.stimulus}")
        draft = record.fields.get("draft")
        if draft:
            parts.append(f"First answer: {draft}")
        parts.append(f"Wanted answer: {record.response}")
        return "\n".join(parts)

    def audit(self, dataset: Dataset) -> list[str]:
        """Find targets whose problem is part of their own history."""
        return [
            f"the problem of {sample.id} is also in its history"
            for sample in dataset.samples()
            if any(record.item == sample.item for record in sample.history)
        ]

    async def _run_method(
        self,
        sample: Sample,
        reply: Reply,
        simulator: Role,
        described: str,
    ) -> dict[str, Any]:
        output = await reply(sample)
        conditions: dict[str, Any] = {"final": {"output": output.strip()}}
        if self.params.ask:
            conditions["ask"] = await self._discover(sample, reply, simulator, described)
        return conditions

    def measure_interaction(
        self,
        interaction: JsonObject,
        assessment: JsonObject | None,
        sample: Sample,
    ) -> Mapping[str, Value]:
        values = dict(super().measure_interaction(interaction, assessment, sample))
        if assessment is None:
            return values

        judged = assessment["conditions"]
        grades = judged["final"]["grades"]
        revealed = warm_start.find_revealed(sample.history)
        old, new, share = scoring.split_prefalign(grades, assessment["weights"], set(revealed))
        if old is not None:
            values["prefalign-seen"] = old
        if new is not None:
            values["prefalign-unseen"] = new
        values["seen-share"] = share

        agreement = _measure_agreement(sample, grades, revealed)
        if agreement is not None:
            values["agreement"] = agreement

        if "ask" in judged:
            prefaligns = {condition: judged[condition]["prefalign"] for condition in judged}
            values["prefalign-ask"] = prefaligns["ask"]
            values["normalign-ask"] = _list_normalign_row(prefaligns, "ask")
        return values


def _list_normalign_row(prefaligns: Mapping[str, float], condition: str) -> list[float]:
    """A sample's row for NormAlign, which is aggregated from mean PrefAligns."""
    return [prefaligns["base"], prefaligns["known"], prefaligns[condition]]


def _measure_agreement(
    sample: Sample,
    judged: Iterable[str],
    revealed: Mapping[str, str],
) -> float | None:
    """Share of judged preferences whose earlier value is also the one for this problem.

    None if the history reveals no value of them.
    """
    preferences = read_hidden_entry(sample).preferences
    # A dialogue reveals that a dimension matters, but no value that could be compared.
    comparable = [name for name in judged if revealed.get(name)]
    if not comparable:
        return None

    equal = 0
    for name in comparable:
        equal += fold_text(revealed[name]) == fold_text(preferences[name].value)
    return equal / len(comparable)


def _set_system(sample: Sample, system: str) -> Sample:
    """A copy of a sample with a system message for `render`."""
    attributes = {**sample.attributes, "system": system}
    return msgspec.structs.replace(sample, attributes=attributes)
