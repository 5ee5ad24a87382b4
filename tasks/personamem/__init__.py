"""PersonaMem: which of four replies suits a user whose preferences changed over many conversations?

"Know Me, Respond to Me: Benchmarking LLMs for Dynamic User Profiling and Personalized Responses at Scale"
(arXiv 2504.14225).  Splits 32k, 128k and 1M differ in the length of the history.  The files are in `files`, samples in
`data`, conversations in `conversation`, reading and numbers in `scoring`, what lies beside the numbers in `analysis`.
"""

from __future__ import annotations

import csv
import dataclasses
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from personabench.api.data_sources import Audited, Downloadable
from personabench.api.dataset import Dataset
from personabench.api.official_files import OfficialFiles, SubmissionFile
from personabench.api.task import Task
from personabench.api.wording import Rendered, Vocabulary
from personabench.errors import DataError, UsageError
from personabench.metrics.metric import Metric, Value
from personabench.models.tokens import Tokens
from personabench.tasks.personamem import conversation, scoring
from personabench.tasks.personamem.data import WORDING, PersonaMemData, asked, facts_of, order_of
from personabench.tasks.personamem.files import SPLITS, Turn, read_questions
from personabench.types import Message, Record, Sample, to_json

__all__ = ["PersonaMem"]


class PersonaMem(Task, OfficialFiles, SubmissionFile, Audited, Downloadable):
    """Choose the reply that suits a user with a long, changing history."""

    name = "personamem"
    title = "PersonaMem: replies for users whose preferences change"
    kind = "text"
    source = "https://huggingface.co/datasets/bowen-upenn/PersonaMem (arXiv 2504.14225)"
    licence = "MIT"
    default_split = "32k"
    max_tokens = 1024
    metrics = scoring.BASIC
    scorers = ("official", "strict")
    words = Vocabulary(
        person="user",
        stimulus="situation",
        response="message",
        profile_question=(
            "What does this user like and dislike now, what did they like before, when did it change, and why?"
        ),
        axes=(
            ("Form", "manner of speaking: formality, length, how much is told unasked"),
            ("Affect", "likes and dislikes, their strength, and how firmly they are held"),
            ("Substance", "reasons that are given, constraints of life, openness to what is new"),
        ),
        instruction="Choose the reply that suits this user best. Write <final_answer> and the letter after it.",
    )

    @dataclasses.dataclass(frozen=True)
    class Params:
        """Options of the task.

        Attributes:
            mapping: how question types are counted: raw labels, merged to the paper's names, or as in the authors'
                posted 32k tables.
            template: how the options are printed: official as a list, lines one to a line.
            roles: how a whole conversation is made acceptable to chat models; see `conversation.messages`.
            persona: whether a conversation keeps its system messages, which describe the user.
            shuffle: order of the options: none, a seed (a whole number), or rotate4 to ask four times.
            records: what a record of the history is: user message, message of either side, exchange, block; or
                questions, the earlier ones of the conversation with their right letters, a control.
            accept_duplicate_gold: accept each letter that carries the right text, where the data repeat it.
            wording: the hash of the instruction's text; recorded with every run, never chosen.
        """

        mapping: scoring.TypeMapping = "raw"
        template: Literal["official", "lines"] = "official"
        roles: conversation.Roles = "merge"
        persona: bool = True
        shuffle: str = "none"
        records: conversation.Unit | Literal["questions"] = "user"
        accept_duplicate_gold: bool = False
        wording: str = WORDING

        def __post_init__(self) -> None:
            if self.wording != WORDING:
                raise ValueError(f"wording is recorded, not chosen; this version's is {WORDING}")
            if self.shuffle not in ("none", "rotate4") and not self.shuffle.isdecimal():
                raise ValueError(
                    f"shuffle is none, rotate4 or a whole number as seed, not {self.shuffle!r}"
                )

    params: Params

    def open(self, split: str, data: Path | None) -> PersonaMemData:
        dataset = PersonaMemData(self, split, data)
        self._count_types((question.type, split) for question in dataset.questions)
        return dataset

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """Notes and extracts stand for the history; the question follows in one user message."""
        parts = [f"What is known about the user:\n{notes}"] if notes else []
        if records:
            listed = "\n\n".join(self.describe(record) for record in records)
            parts.append(f"From earlier conversations with the user:\n\n{listed}")
        head = [Message("system", "\n\n".join(parts))] if parts else []
        return Rendered((*head, Message("user", sample.input)), tuple(records))

    def chat(self, sample: Sample, records: Sequence[Record]) -> Rendered:
        """The history as the conversation it was, both sides and system messages, with the question at its end.

        `records` are those that stay; where they lack the system message that opens a history, it is put before them.
        """
        turns = conversation.turns_of(records)
        persona = conversation.persona_of(sample.history)
        if persona and (not turns or turns[0].role != "system"):
            turns.insert(0, Turn("system", persona))
        if not self.params.persona:
            turns = [turn for turn in turns if turn.role != "system"]
        messages, flags = conversation.messages(turns, sample.input, self.params.roles)
        return Rendered(messages, tuple(records), flags)

    def persona(self, sample: Sample) -> str:
        """The description of the user that opens a history; empty without one."""
        return conversation.persona_of(sample.history)

    def exchanges(self, sample: Sample) -> Sequence[Record] | None:
        """The user's messages that answer one of the assistant's, in the conversations before the question."""
        return (
            None if self.params.records == "questions" else conversation.exchanges(sample.history)
        )

    def describe(self, record: Record) -> str:
        if "option" in record.fields:
            return f"User: {record.stimulus}\nThe reply that suited: ({record.response}) {record.fields['option']}"
        if record.fields.get("role") == "assistant":
            return f"Assistant: {record.response}"
        return (
            record.response if record.response.startswith("User: ") else f"User: {record.response}"
        )

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """The letter as a scorer reads it; a reply to anything but the task's own question is text and stays it."""
        if "options" not in sample.attributes:
            return output.strip() or None
        if scorer == "official" and sample.references:
            return scoring.official(output, facts_of(sample).rights)
        if scorer in ("official", "strict", "lenient"):
            return scoring.reported(output)
        raise UsageError(f"{self.name} has no scorer '{scorer}'; it has: {', '.join(self.scorers)}")

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        facts = facts_of(sample)
        types = [metric.name for metric in self.metrics[len(scoring.BASIC) :]]
        label = scoring.bucket(facts.type, facts.split, self.params.mapping)
        return scoring.values(parsed in facts.rights, label, types)

    def audit(self, dataset: Dataset) -> list[str]:
        """Places where the files break their own rules: an altered conversation, another cut than the published."""
        return list(dataset.defects) if isinstance(dataset, PersonaMemData) else []

    def read_references(self, path: Path) -> dict[str, Sample]:
        """The samples of an official question file; its name (`questions_32k.csv`) says of which split."""
        split = next((name for name in SPLITS if path.stem.endswith(f"_{name}")), "")
        questions = read_questions(path).questions
        self._count_types((question.type, split) for question in questions)
        p = self.params
        if p.shuffle == "rotate4":
            raise UsageError("files are scored in one order of the options; rotate4 is for runs")
        return {
            each.id: asked(
                each.id,
                each,
                split,
                order_of(p.shuffle, each.id),
                p.template,
                p.accept_duplicate_gold,
                (),
            )
            for each in questions
        }

    def read_predictions(self, path: Path) -> tuple[str | None, list[tuple[str, str | None]]]:
        """(id, output) pairs of a CSV file with the columns question_id and output; repeated headers are left out."""
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not a CSV file in UTF-8: {error}") from error
        if not rows or not {"question_id", "output"} <= rows[0].keys():
            raise DataError(
                f'{path}: expected JSON lines of {{"id", "output"}}, or CSV with the columns question_id and output'
            )
        kept = [
            (row["question_id"], row["output"])
            for row in rows
            if row["question_id"] != "question_id"
        ]
        if len(kept) < len(rows):
            warnings.warn(
                f"{path}: {len(rows) - len(kept)} repeated header lines left out", stacklevel=2
            )
        return None, [*kept]

    def submission(self, outputs: Iterable[tuple[str, str]]) -> Iterator[str]:
        """JSON lines of question id and unparsed reply, which `score` reads back."""
        for name, output in outputs:
            yield to_json({"id": name, "output": output}) + "\n"

    def download(self, split: str, target: Path, **options: Any) -> None:
        from personabench.tasks.personamem.download import download

        download(split, target, **options)

    @classmethod
    def metrics_of(cls, names: Collection[str]) -> tuple[Metric, ...]:
        basic = {metric.name for metric in scoring.BASIC}
        return scoring.metrics(
            scoring.ordered_types(name for name in names if name not in basic and ":" not in name)
        )

    def _count_types(self, labels: Iterable[tuple[str, str]]) -> None:
        found = {scoring.bucket(label, split, self.params.mapping) for label, split in labels}
        self.metrics = scoring.metrics(scoring.ordered_types(found))  # type: ignore[misc]
