"""PersonaMem: which of four replies suits a user whose preferences changed over many conversations?

"Know Me, Respond to Me: Benchmarking LLMs for Dynamic User Profiling and Personalized Responses at
Scale" (arXiv 2504.14225). Splits 32k, 128k and 1M differ in the length of the history. `files`
reads the files, `data` makes samples, `conversation` converts histories, `scoring` parses and
scores replies, `analysis` reports beyond the metrics.
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
from personabench.api.layout import Layout, Parts, arrange, check_layout
from personabench.api.official_files import OfficialFiles, SubmissionFile
from personabench.api.task import Task
from personabench.api.wording import Rendered, Vocabulary
from personabench.errors import DataError, UsageError
from personabench.metrics.metric import Metric, Value
from personabench.models.tokens import Tokens
from personabench.tasks.personamem import conversation, scoring
from personabench.tasks.personamem.data import (
    INSTRUCTION,
    QUESTION,
    WORDING,
    PersonaMemData,
    make_sample,
    order_options,
    read_facts,
)
from personabench.tasks.personamem.files import PUBLISHED_HASHES, SPLITS, Turn, read_questions
from personabench.types import Record, Sample, to_json

__all__ = ["PersonaMem"]


class PersonaMem(Task, OfficialFiles, SubmissionFile, Audited, Downloadable):
    """Choose the reply that suits a user with a long, changing history."""

    name = "personamem"
    title = "PersonaMem: replies for users whose preferences change"
    kind = "text"
    offers = ("history", "population", "conversations", "options", "persona", "picks")
    source = "https://huggingface.co/datasets/bowen-upenn/PersonaMem (arXiv 2504.14225)"
    licence = "MIT"
    default_split = "32k"
    published_hashes = PUBLISHED_HASHES
    max_tokens = 1024
    metrics = scoring.BASIC
    scorers = ("official", "strict")
    tokenizer = "whitespace"
    words = Vocabulary(
        person="user",
        stimulus="situation",
        response="message",
        profile_question=(
            "What does this user like and dislike now, what did they like before, "
            "when did it change, and why?"
        ),
        axes=(
            ("Form", "manner of speaking: formality, length, how much is told unasked"),
            ("Affect", "likes and dislikes, their strength, and how firmly they are held"),
            ("Substance", "reasons that are given, constraints of life, openness to what is new"),
        ),
        instruction=(
            "Choose the reply that suits this user best. "
            "Write <final_answer> and the letter after it."
        ),
        goal="Choose the reply that suits this user best.",
        answer_form="the letter of the reply that suits best: (a), (b), (c) or (d)",
    )

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
        """Options of the task, beside those of the layout.

        Attributes:
            mapping: how question types are counted: raw labels, merged to the paper's names, or as
                in the authors' posted 32k tables.
            template: how the options are printed: official as a list, lines one per line.
            roles: how a whole conversation is made acceptable to chat models; see
                `conversation.make_messages`.
            persona: keep a conversation's system messages, which describe the user.
            shuffle: order of the options: none, a seed (a whole number), or rotate4 to present each
                question in four orders.
            records: unit of the history: user message, message of either side, exchange, block; or
                questions, the earlier ones of the conversation with their right letters, a control.
            accept_duplicate_gold: accept each letter that carries the right text.
            wording: hash of the instruction; recorded with every run, cannot be set.
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
            check_layout(self, turns="records are messages, and only `full` shows their replies")
            if self.wording != WORDING:
                raise ValueError(f"wording cannot be set; the value of this version is {WORDING}")
            if self.shuffle not in ("none", "rotate4") and not self.shuffle.isdecimal():
                raise ValueError(
                    f"shuffle must be none, rotate4 or a whole number as seed, not {self.shuffle!r}"
                )

    params: Params

    def open(self, split: str, data: Path | None) -> PersonaMemData:
        dataset = PersonaMemData(self, split, data)
        self._set_metrics((question.type, split) for question in dataset.questions)
        return dataset

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """Put the profile and records into the system message, the question into a user message."""
        return self._render_question(sample, records, notes, sample.input)

    def render_content(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        # Drafts of past messages hold no instruction.
        question = sample.input.replace(INSTRUCTION, QUESTION, 1)
        return self._render_question(sample, records, notes, question)

    def _render_question(
        self, sample: Sample, records: Sequence[Record], notes: str, question: str
    ) -> Rendered:
        parts = Parts(
            question=question,
            notes=f"What is known about the user:\n{notes}" if notes else "",
            records=records,
            word_turn=lambda record: record.stimulus or "",
            word_list=self._list_records,
        )
        messages = arrange(parts, self.params, "list", "best_first")
        return Rendered(tuple(messages), tuple(records))

    def _list_records(self, records: Sequence[Record]) -> str:
        descriptions = [self.describe(record) for record in records]
        return "\n\n".join(["From earlier conversations with the user:", *descriptions])

    def chat(self, sample: Sample, records: Sequence[Record]) -> Rendered:
        """Render the history as the original conversation with the question at its end.

        `records` may be a part of the history. Both sides and system messages are shown.
        """
        turns = conversation.restore_turns(records)
        # A part of the history may lack its opening system message, which describes the user.
        persona = conversation.find_persona(sample.history)
        if persona and (not turns or turns[0].role != "system"):
            turns.insert(0, Turn("system", persona))
        if not self.params.persona:
            turns = [turn for turn in turns if turn.role != "system"]

        messages, flags = conversation.make_messages(turns, sample.input, self.params.roles)
        return Rendered(messages, tuple(records), flags)

    def persona(self, sample: Sample) -> str:
        """Return the description of the user that opens a history; empty without one."""
        return conversation.find_persona(sample.history)

    def exchanges(self, sample: Sample) -> Sequence[Record] | None:
        """Return the user's messages that answer the assistant's, before the question."""
        # A history of questions has no assistant messages.
        if self.params.records == "questions":
            return None
        return conversation.find_exchanges(sample.history)

    def describe(self, record: Record) -> str:
        if "option" in record.fields:
            option = record.fields["option"]
            return f"User: {record.stimulus}\nThe reply that suited: ({record.response}) {option}"
        if record.fields.get("role") == "assistant":
            return f"Assistant: {record.response}"
        # Exchanges and blocks already name the speaker of each message.
        if record.response.startswith("User: "):
            return record.response
        return f"User: {record.response}"

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """Parse the letter of a reply; the reply to a draft question stays text."""
        # Drafts of past messages (`Task.question`) have no options.
        if "options" not in sample.attributes:
            return output.strip() or None
        if scorer == "official" and sample.references:
            return scoring.parse_official(output, read_facts(sample).rights)
        if scorer in ("official", "strict", "lenient"):
            return scoring.parse_strict(output)
        raise UsageError(f"{self.name} has no scorer '{scorer}'; it has: {', '.join(self.scorers)}")

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        facts = read_facts(sample)
        # The metrics after the basic ones are those of the types, named after them.
        type_metrics = self.metrics[len(scoring.BASIC) :]
        types = [metric.name for metric in type_metrics]
        label = scoring.map_type(facts.type, facts.split, self.params.mapping)
        return scoring.make_values(parsed in facts.rights, label, types)

    def audit(self, dataset: Dataset) -> list[str]:
        """List breaches of the files' own rules, such as an altered conversation."""
        return list(dataset.defects) if isinstance(dataset, PersonaMemData) else []

    def read_references(self, path: Path) -> dict[str, Sample]:
        """Read the samples of an official question file; its name states the split."""
        if self.params.shuffle == "rotate4":
            raise UsageError(
                "prediction files are scored in one order of the options; use rotate4 for runs only"
            )

        splits = [split for split in SPLITS if path.stem.endswith(f"_{split}")]
        split = splits[0] if splits else ""
        questions = read_questions(path).questions
        self._set_metrics((question.type, split) for question in questions)
        samples = {}
        for question in questions:
            samples[question.id] = make_sample(
                question,
                sample_id=question.id,
                split=split,
                order=order_options(self.params.shuffle, question.id),
                params=self.params,
                # Scoring needs no history.
                history=(),
            )
        return samples

    def read_predictions(self, path: Path) -> tuple[str | None, list[tuple[str, str | None]]]:
        """Read (id, output) pairs of a CSV file with the columns question_id and output."""
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not a CSV file in UTF-8: {error}") from error
        if not rows or not {"question_id", "output"} <= rows[0].keys():
            raise DataError(
                f'{path}: expected JSON lines of {{"id", "output"}}, '
                "or CSV with the columns question_id and output"
            )

        # Concatenated files repeat their header.
        pairs: list[tuple[str, str | None]] = [
            (row["question_id"], row["output"])
            for row in rows
            if row["question_id"] != "question_id"
        ]
        headers = len(rows) - len(pairs)
        if headers:
            warnings.warn(f"{path}: {headers} repeated header lines were skipped", stacklevel=2)
        return None, pairs

    def submission(self, outputs: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Yield JSON lines of question id and unparsed reply, which `score` reads back."""
        for sample_id, output in outputs:
            yield to_json({"id": sample_id, "output": output}) + "\n"

    def download(self, split: str, target: Path, **options: Any) -> None:
        # Imported here, since only this command needs it.
        from personabench.tasks.personamem.download import download

        download(split, target, **options)

    @classmethod
    def metrics_of(cls, names: Collection[str]) -> tuple[Metric, ...]:
        basic = {metric.name for metric in scoring.BASIC}
        # Names with a colon are not metrics of a type.
        types = [name for name in names if name not in basic and ":" not in name]
        return scoring.make_metrics(scoring.order_types(types))

    def _set_metrics(self, labels: Iterable[tuple[str, str]]) -> None:
        """Set the metrics to those of the types that the data hold."""
        mapping = self.params.mapping
        types = {scoring.map_type(label, split, mapping) for label, split in labels}
        ordered = scoring.order_types(types)
        self.metrics = scoring.make_metrics(ordered)  # type: ignore[misc]
