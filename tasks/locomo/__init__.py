"""LoCoMo: questions about months of conversation between two people.

"Evaluating Very Long-Term Conversational Memory of LLM Agents" (arXiv 2402.17753).  The task owns
the request and the scorers; a method decides only which turns of the conversation are shown.
`files` reads the data, `scoring` is the official scorer, `judging` the optional judge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from personabench.api.data_sources import Audited, Downloadable
from personabench.api.dataset import Dataset
from personabench.api.judged import JudgedTask
from personabench.api.layout import BY_TIME, NO_TURNS, Layout, Parts, arrange, check_layout
from personabench.api.official_files import OfficialFiles, SubmissionFile
from personabench.api.rows import NoDataError
from personabench.api.sessions import list_sessions, write_date
from personabench.api.task import JsonObject
from personabench.api.wording import Rendered, Vocabulary
from personabench.errors import UsageError
from personabench.hashing import digest
from personabench.metrics.metric import Value
from personabench.metrics.text import strip_chatter
from personabench.models.roles import Role
from personabench.models.tokens import Tokens
from personabench.tasks.locomo import judging, scoring
from personabench.tasks.locomo.files import (
    Conversation,
    Question,
    Session,
    locate,
    read_conversations,
)
from personabench.types import Record, Sample, to_json

__all__ = ["LoCoMo"]

ANSWER_MARK = "Answer:"
_SHORT = "Answer with a short phrase, in words of the conversations if you can, and nothing else."
_REASONED = (
    "First reason in a few sentences about who said what and when. Then end with a line that "
    f'begins with "{ANSWER_MARK}" and gives a short phrase.'
)
_USE_DATES = "Use the dates of the conversations to answer with a date or a period."


class LoCoMo(JudgedTask, OfficialFiles, SubmissionFile, Audited, Downloadable):
    """Answer questions about the conversations of two people over months."""

    name = "locomo"
    title = "LoCoMo: questions about months of conversation"
    kind = "text"
    offers = ("history", "population", "dates", "evidence")
    source = "https://github.com/snap-research/locomo (arXiv 2402.17753)"
    licence = "CC BY-NC 4.0"
    default_split = "all"
    accepts_file = True
    quotes_gold = True
    metrics = scoring.METRICS
    max_tokens = 48
    optional_roles = ("judge",)
    judged_metrics = scoring.JUDGED_METRICS
    judge_params = ("judge",)
    words = Vocabulary(
        person="pair of friends",
        stimulus="question",
        response="turn",
        profile_question=(
            "What happened to the two people, when did it happen, and what do they like, plan and "
            "think?"
        ),
        instruction=_SHORT,
        answer_form="a short phrase, in words of the conversations if you can",
    )

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
        """Options of the task, beside those of the layout.

        Attributes:
            template: short asks for a phrase, as the benchmark does; reason for reasons and then a
                line with the answer.
            unit: a record is a turn or a whole session.
            dates: show the date of each session; off is an ablation.
            judge: the wording of an optional judge, strict or generous.
        """

        template: Literal["short", "reason"] = "short"
        unit: Literal["turn", "session"] = "turn"
        dates: bool = True
        judge: judging.Strictness = "strict"

        def __post_init__(self) -> None:
            check_layout(self, turns=NO_TURNS, order=BY_TIME)

    params: Params

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        if self.params.template == "reason":
            self.words = msgspec.structs.replace(  # type: ignore[misc]
                self.words, instruction=_REASONED
            )
            self.max_tokens = 512  # type: ignore[misc]
        # Of the data that was opened last.  A sample does not hold it, as samples are hashed.
        self._malformed_evidence = 0

    def open(self, split: str, data: Path | None) -> Dataset:
        dataset = super().open(split, data)
        if data is None:
            dataset.source = "example data, not LoCoMo"
        return dataset

    def load(self, split: str, data: Path | None) -> Iterator[Sample]:
        if data is None:
            raise NoDataError("the example data of locomo are missing; name a file with --data")
        self._malformed_evidence = 0
        for conversation in read_conversations(locate(data)):
            history = self._make_history(conversation.sessions)
            for question in conversation.questions:
                self._malformed_evidence += question.malformed_evidence
                yield self._make_sample(conversation, question, history)

    def _make_history(self, sessions: Sequence[Session]) -> tuple[Record, ...]:
        records = []
        for session in sessions:
            time = session.time if self.params.dates else None
            if self.params.unit == "session":
                lines = [f"{turn.speaker}: {turn.text}" for turn in session.turns]
                fields = {"block": session.id}
                records.append(
                    Record(session.id, response="\n".join(lines), time=time, fields=fields)
                )
                continue
            for turn in session.turns:
                fields = {"block": session.id, "speaker": turn.speaker}
                records.append(Record(turn.id, response=turn.text, time=time, fields=fields))
        # A session without turns has no text to show.
        return tuple(record for record in records if record.response.strip())

    def _make_sample(
        self, conversation: Conversation, question: Question, history: tuple[Record, ...]
    ) -> Sample:
        hidden = {"category": str(question.category), "lost": str(question.lost_evidence)}
        wording = question.text
        if question.category == scoring.TEMPORAL and self.params.dates:
            wording = f"{question.text} {_USE_DATES}"
        if question.category == scoring.ADVERSARIAL:
            hidden |= _order_options(question)
            options = "\n".join(f"({letter}) {hidden[letter]}" for letter in "ab")
            wording = f"{question.text}\n\nChoose the right answer:\n{options}"

        evidence = question.evidence
        if self.params.unit == "session":
            evidence = tuple(dict.fromkeys(name.partition(":")[0] for name in evidence))
        last_time = conversation.sessions[-1].time if conversation.sessions else None
        return Sample(
            question.id,
            user_id=conversation.id,
            input=wording,
            stimulus=question.text,
            history=history,
            references=(question.answer or scoring.NOT_MENTIONED,),
            attributes={"speakers": " and ".join(conversation.speakers)},
            time=last_time if self.params.dates else None,
            hidden=hidden,
            evidence=evidence,
        )

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """Word the request: the shown parts of the conversations, then the question."""
        speakers = sample.attributes.get("speakers", "two people")
        heading = f"From the conversations of {speakers}:"
        today = [f"Today is {write_date(sample.time)}."] if sample.time else []
        question = [*today, f"Question: {sample.input}", self.words.instruction]
        parts = Parts(
            question="\n\n".join(question),
            notes=f"Notes about the conversations of {speakers}:\n\n{notes}" if notes else "",
            records=records,
            word_turn=self.describe,
            word_list=lambda shown: f"{heading}\n\n{list_sessions(shown, self.describe)}",
        )
        return Rendered(tuple(arrange(parts, self.params, "message")), tuple(records))

    def describe(self, record: Record) -> str:
        speaker = record.fields.get("speaker")
        return f"{speaker}: {record.response}" if speaker else record.response

    def document_text(self, record: Record) -> str:
        return self.describe(record)

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """Read the answer; the letter of an adversarial question stands for its text."""
        if scorer not in self.scorers:
            raise UsageError(
                f"{self.name} has no scorer '{scorer}'; it has: {', '.join(self.scorers)}"
            )
        answer = strip_chatter(output) if scorer == "lenient" else output.strip()
        if self.params.template == "reason":
            _, mark, last = answer.rpartition(ANSWER_MARK)
            # Official: the whole reply is the answer if it has no such line.
            if not mark and scorer == "lenient":
                return None
            answer = last.strip()
        letter = scoring.read_letter(answer)
        return sample.hidden.get(letter, answer) or None

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        category = _category(sample)
        value = scoring.score(parsed or "", sample.references[0], category)
        return scoring.make_values(value, category, self.metrics)

    async def assess(
        self, sample: Sample, output: str, interaction: JsonObject, judge: Role
    ) -> JsonObject | None:
        """Judge an answer; an adversarial question has a rule of its own and needs no judge."""
        category = _category(sample)
        answer = self.parse(output, sample, "official") or ""
        if category == scoring.ADVERSARIAL:
            return {"right": scoring.is_abstention(answer), "evidence": ""}

        judged = await judging.judge_answer(
            judge, sample.stimulus or sample.input, sample.references[0], answer, self.params.judge
        )
        if judged.attempts > 1:
            judge.flag("judge_retried", judged.attempts - 1)
        if judged.value is None:
            return None
        return {"right": judged.value, "evidence": judged.evidence}

    def measure_interaction(
        self, interaction: JsonObject, assessment: JsonObject | None, sample: Sample
    ) -> Mapping[str, Value]:
        if not assessment:
            return {}
        return scoring.make_values(
            float(assessment["right"]), _category(sample), self.judged_metrics
        )

    def read_references(self, path: Path) -> dict[str, Sample]:
        """Read the questions of an official file."""
        samples = {}
        for conversation in read_conversations(locate(path)):
            for question in conversation.questions:
                samples[question.id] = self._make_sample(conversation, question, ())
        return samples

    def submission(self, outputs: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Yield JSON lines of question id and answer, which `score` reads back."""
        for sample_id, output in outputs:
            yield to_json({"id": sample_id, "output": output}) + "\n"

    def audit(self, dataset: Dataset) -> list[str]:
        return []

    def counts(self, dataset: Dataset) -> list[str]:
        """Count evidence in another form, evidence that names no turn, and questions without."""
        lost = bare = 0
        for sample in dataset.samples():
            lost += int(sample.hidden["lost"])
            bare += not sample.evidence and sample.hidden["lost"] == "0"
        counts = (
            (self._malformed_evidence, 'marks of evidence are in another form than "D1:2"'),
            (lost, "marks of evidence name no turn and are left out"),
            (bare, "questions have no mark of evidence"),
        )
        return [f"{count} {what}" for count, what in counts if count]

    def download(self, split: str, target: Path, **options: Any) -> None:
        # Imported here, since only this command needs it.
        from personabench.tasks.locomo.download import download

        download(split, target, **options)


def _category(sample: Sample) -> int:
    return int(sample.hidden["category"])


def _order_options(question: Question) -> dict[str, str]:
    """The two options of an adversarial question by letter, in an order drawn from its id."""
    options = [scoring.NOT_MENTIONED, question.decoy]
    if int(digest(question.id)[:8], 16) % 2:
        options.reverse()
    return dict(zip("ab", options, strict=True))
