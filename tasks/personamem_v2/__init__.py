"""PersonaMem-v2: preferences that were never stated, and slipped through while the user asked.

"PersonaMem-v2: Towards Personalized Intelligence via Learning Implicit User Personas and Agentic
Memory" (arXiv 2512.06688).  `personamem_v2` chooses among four replies, `personamem_v2_gen` writes
one, which a judge assesses.  Splits 32k and 128k are two lengths of the same histories.  `files`
reads the data, `data` makes samples, `scoring` has letters and subsets, `judging` the judge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from personabench.api import defaults
from personabench.api.data_sources import Audited, Downloadable
from personabench.api.dataset import Dataset
from personabench.api.judged import JudgedTask
from personabench.api.layout import Layout, Parts, arrange, check_layout
from personabench.api.task import JsonObject, Task
from personabench.api.wording import Rendered, Vocabulary
from personabench.metrics.metric import Metric, Value
from personabench.models.roles import Role
from personabench.models.tokens import Tokens
from personabench.tasks.personamem_v2 import judging, scoring
from personabench.tasks.personamem_v2.data import ROTATIONS, PersonaMemV2Data
from personabench.tasks.personamem_v2.files import FORGET, PUBLISHED_HASHES, SPLITS
from personabench.types import Message, Record, Sample

__all__ = ["PersonaMemV2", "PersonaMemV2Gen"]

_TURNS = "records are exchanges of the conversation, which only `full` shows as such"
_PROFILE_QUESTION = (
    "What does this user like, dislike, need and avoid, what changed, whose tastes are other "
    "people's, and what did the user ask to forget?"
)


class _PersonaMemV2(Task, Audited, Downloadable):
    """The part that both tasks share: data, history and the wording of the conversation."""

    source = "https://huggingface.co/datasets/bowen-upenn/PersonaMem-v2 (arXiv 2512.06688)"
    licence = "CC BY 4.0"
    default_split = "32k"
    splits = SPLITS
    accepts_file = True
    published_hashes = PUBLISHED_HASHES
    max_tokens = 1024

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
        """Options of both tasks, beside those of the layout.

        Attributes:
            persona: begin the whole conversation with the system message that describes the user.
        """

        persona: bool = True

        def __post_init__(self) -> None:
            check_layout(self, turns=_TURNS)

    params: Params

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self._subsets = scoring.Subsets((), (), **self._subset_options)

    def open(self, split: str, data: Path | None) -> PersonaMemV2Data:
        dataset = PersonaMemV2Data(split, data, self._rotations)
        types = {row.type for row in dataset.rows}
        scenarios = {row.scenario for row in dataset.rows}
        self._subsets = scoring.Subsets(types, scenarios, **self._subset_options)
        self.metrics = self._subsets.metrics  # type: ignore[misc]
        return dataset

    @property
    def _rotations(self) -> int:
        """How often each question is presented; 0 without options."""
        return 0

    @property
    def _subset_options(self) -> Mapping[str, Any]:
        return {}

    def chat(self, sample: Sample, records: Sequence[Record]) -> Rendered:
        """Render exchanges as the conversation that they were, the question as its last turn."""
        messages = []
        persona = self.persona(sample)
        if self.params.persona and persona:
            messages.append(Message("system", persona))
        for record in records:
            if record.stimulus:
                messages.append(Message("user", record.stimulus))
            if record.response:
                messages.append(Message("assistant", record.response))
        messages += self._ask(sample)
        return Rendered(tuple(messages), tuple(records))

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """Put notes and exchanges into the system message, the question after it."""
        question, *rest = self._ask(sample)
        parts = Parts(
            question=question.content,
            notes=f"What is known about the user:\n{notes}" if notes else "",
            records=records,
            word_turn=lambda record: record.stimulus or "",
            word_list=self._list_exchanges,
        )
        messages = arrange(parts, self.params, "list")
        return Rendered((*messages, *rest), tuple(records))

    def _ask(self, sample: Sample) -> list[Message]:
        return [Message("user", sample.input)]

    def _list_exchanges(self, records: Sequence[Record]) -> str:
        described = [self.describe(record) for record in records]
        return "\n\n".join(["From earlier conversations with the user:", *described])

    def describe(self, record: Record) -> str:
        lines = [f"User: {record.stimulus}"] if record.stimulus else []
        if record.response:
            lines.append(f"Assistant: {record.response}")
        return "\n".join(lines)

    def document_text(self, record: Record) -> str:
        return f"{record.stimulus} {record.response}".strip()

    def persona(self, sample: Sample) -> str:
        """Return the description that opens the conversation; it lacks the tested preferences."""
        return sample.attributes.get("persona", "")

    def audit(self, dataset: Dataset) -> list[str]:
        return []

    def counts(self, dataset: Dataset) -> list[str]:
        """Count evidence that is not in the history, and broken messages."""
        samples = list(dataset.samples())
        unmatched = [sample for sample in samples if not sample.evidence]
        unplaced = [sample for sample in unmatched if sample.hidden["distance"] == "0"]
        turns = sum(int(sample.hidden["unmatched"]) for sample in samples)
        lines = [
            f"{turns} turns of evidence are in no user turn of their history; "
            f"{len(unmatched)} of {len(samples)} questions have no other evidence, "
            f"{len(unplaced)} of these by design (distance 0)"
        ]
        zero = [sample for sample in samples if sample.hidden["distance"] == "0"]
        sensitive = [sample for sample in zero if sample.hidden["type"] == "sensitive_info"]
        lines.append(
            f"{len(zero)} questions at distance 0, {len(sensitive)} of them sensitive_info"
        )
        doubled = sum(sample.choices.count(sample.references[0]) > 1 for sample in samples)
        if doubled:
            lines.append(
                f"{doubled} questions have the right text under two letters; either counts"
            )
        if isinstance(dataset, PersonaMemV2Data) and dataset.rejected:
            broken = sum(map(len, dataset.rejected.values()))
            lines.append(f"{broken} broken messages in {len(dataset.rejected)} histories")
        return lines

    def download(self, split: str, target: Path, **options: Any) -> None:
        # Imported here, since only this command needs it.
        from personabench.tasks.personamem_v2.download import download

        download(split, target, **options)


class PersonaMemV2(_PersonaMemV2):
    """Choose the reply that suits a user whose preferences slipped through."""

    name = "personamem_v2"
    title = "PersonaMem-v2: replies that suit implicit preferences"
    kind = "category"
    offers = ("history", "population", "options", "persona", "preference", "picks", "evidence")
    metrics = scoring.Subsets((), ()).metrics
    words = Vocabulary(
        person="user",
        stimulus="message",
        response="reply",
        profile_question=_PROFILE_QUESTION,
        instruction=(
            "Choose the reply that suits this user best. Think it over first if you need to. Then "
            'end with "Final Answer: " and the letter of that one reply.'
        ),
        goal="Choose the reply that suits this user best.",
        answer_form="the letter of the reply that suits the user best: A, B, C or D",
    )

    @dataclasses.dataclass(frozen=True)
    class Params(_PersonaMemV2.Params):
        """Options of the task, beside those of the layout.

        Attributes:
            persona: begin the whole conversation with the system message that describes the user.
            template: joined puts the options below the question; official into a system message
                after it, as the released code does, which many chat templates refuse.
            rotations: 4 presents each question with the right reply under each letter, at four
                times the price.
        """

        template: Literal["joined", "official"] = "joined"
        rotations: Literal[1, 4] = 1

    params: Params

    @property
    def _rotations(self) -> int:
        return ROTATIONS if self.params.rotations > 1 else 1

    def question(self, record: Record, like: Sample) -> Sample:
        """Turn an exchange into a question without options, which past messages did not have."""
        return msgspec.structs.replace(super().question(record, like), choices=())

    def _ask(self, sample: Sample) -> list[Message]:
        if not sample.choices:
            return super()._ask(sample)
        options = "\n".join(
            f"{letter}. {option}"
            for letter, option in zip(scoring.LETTERS, sample.choices, strict=False)
        )
        task = f"{options}\n\n{self.words.instruction}"
        if self.params.template == "official":
            return [Message("user", sample.input), Message("system", task)]
        return [Message("user", f"{sample.input}\n\n{task}")]

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """Read the letter of a reply: a marked or boxed one, else the only one that it states.

        The reply to a draft question stays text.
        """
        if not sample.choices:
            return output.strip() or None
        letter = scoring.read_letter(output)
        if letter is None:
            return defaults.parse_answer(self, output, sample, "lenient")
        if not letter:
            return None
        return sample.choices[scoring.LETTERS.index(letter)]

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        values = self._subsets.measure(float(parsed in sample.references), sample.hidden)
        for metric, fact in (("stale-rate", "stale"), ("leak-rate", "leaking")):
            texts = msgspec.json.decode(sample.hidden[fact], type=list[str])
            values[metric] = [float(bool(texts)), float(parsed in texts)]
        return values

    @classmethod
    def metrics_of(cls, names: Collection[str]) -> tuple[Metric, ...]:
        return scoring.find_metrics(names, "accuracy")


class PersonaMemV2Gen(_PersonaMemV2, JudgedTask):
    """Write a reply that suits the user's preference; a judge says whether it does."""

    name = "personamem_v2_gen"
    title = "PersonaMem-v2: write a reply that suits implicit preferences"
    kind = "text"
    offers = ("history", "population", "persona", "preference", "evidence")
    roles = ("judge",)
    judge_params = ("judge",)
    judge_content = judging.PROMPT
    metrics = scoring.Subsets((), (), "fit", ("leak-rate",)).metrics
    quotes_gold = True
    words = Vocabulary(
        person="user",
        stimulus="message",
        response="reply",
        profile_question=_PROFILE_QUESTION,
        instruction="Reply to the user.",
        answer_form="the reply to the user",
    )

    @dataclasses.dataclass(frozen=True)
    class Params(_PersonaMemV2.Params):
        """Options of the task, beside those of the layout.

        Attributes:
            persona: begin the whole conversation with the system message that describes the user.
            judge: narrow asks whether the reply suits the tested preference, broad whether it suits
                the whole person, whose profile the judge then sees.
        """

        judge: judging.Scope = "narrow"

    params: Params

    @property
    def _subset_options(self) -> Mapping[str, Any]:
        return {"primary": "fit", "errors": ("leak-rate",)}

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        return {}

    async def assess(
        self, sample: Sample, output: str, interaction: JsonObject, judge: Role
    ) -> JsonObject | None:
        judged = await judging.judge_reply(judge, sample, output, self.params.judge)
        if judged.attempts > 1:
            judge.flag("judge_retried", judged.attempts - 1)
        if judged.value is None:
            return None
        return {"fits": judged.value, "reply": judged.evidence}

    def measure_interaction(
        self, interaction: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        if not assessment:
            return {}
        fits = bool(assessment["fits"])
        is_forget = sample.hidden["type"] == FORGET
        values = self._subsets.measure(float(fits), sample.hidden)
        # The judge is asked whether the reply makes use of what was to be forgotten.
        values["leak-rate"] = [float(is_forget), float(not fits)]
        return values

    @classmethod
    def metrics_of(cls, names: Collection[str]) -> tuple[Metric, ...]:
        return scoring.find_metrics(names, "fit")
