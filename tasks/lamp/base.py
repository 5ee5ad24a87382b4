"""Base class of the eight LaMP tasks; a subclass adds its name, vocabulary and numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from personabench.api.data_sources import Audited, Downloadable
from personabench.api.dataset import Dataset
from personabench.api.id_check import list_few
from personabench.api.layout import Layout, has_layout
from personabench.api.official_files import OfficialFiles, SubmissionFile
from personabench.api.task import Task
from personabench.api.wording import Rendered
from personabench.errors import UsageError
from personabench.hashing import fold_text
from personabench.metrics.metric import Value
from personabench.models.tokens import Tokens
from personabench.tasks.lamp import prompts, scoring
from personabench.tasks.lamp.forms import FORMS, Form, find_candidates, search_query
from personabench.tasks.lamp.records import LampData, is_output_file, read_outputs
from personabench.types import Record, Sample, to_json


class Lamp(Task, OfficialFiles, SubmissionFile, Audited, Downloadable):
    """A task of LaMP, "When Large Language Models Meet Personalization" (arXiv 2304.11406)."""

    version = 3
    tokenizer = "whitespace"

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
        """Options of a LaMP task, beside those of the layout of `chat`.

        Attributes:
            template: `chat`, or `lamp-official` for the benchmark's own prompt in one user message.
            length: token budget of the official prompt (the papers use 256 or 512); default: none.
            dates: append ` date: D` to a record's retrieval text.
        """

        template: Literal["chat", "lamp-official"] = "chat"
        length: int | None = None
        dates: bool = False

        def __post_init__(self) -> None:
            if self.template != "chat" and has_layout(self):
                raise ValueError(
                    "layout, profile and order are options of template=chat; the benchmark's own "
                    "prompt has one layout"
                )
            if self.length is None:
                return
            if self.length < 1 or self.template != "lamp-official":
                raise ValueError(
                    "length is the token budget of the template lamp-official: it must be positive "
                    "and needs template=lamp-official"
                )

    params: Params

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        if self.params.layout == "turns" and not self.form.stimulus:
            raise UsageError(
                f"task.layout=turns: the records of {self.name} are no answers to a question; "
                "use list or message"
            )

    @property
    def form(self) -> Form:
        """The format of the task's dataset."""
        return FORMS[self.name]

    def open(self, split: str, data: Path | None) -> Dataset:
        return LampData(self.name, split, data)

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        if self.params.template == "lamp-official":
            return self._render_official(sample, records, notes, tokens)
        return prompts.chat(
            self.form, self.words, sample, records, notes, self.params, self.wording
        )

    def render_content(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        question = self.form.remove_answer_rule(sample.input)
        if self.params.template == "lamp-official":
            bare = msgspec.structs.replace(sample, input=question)
            return self._render_official(bare, records, notes, tokens)
        return prompts.chat_content(
            self.form, self.words, sample, records, notes, self.params, question
        )

    def _render_official(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        length = self.params.length
        return prompts.official(self.form, self.words, sample, records, notes, tokens, length)

    def query_text(self, sample: Sample) -> str:
        return search_query(self.form, sample)

    def document_text(self, record: Record) -> str:
        text = " ".join(record.fields[name] for name in self.form.document)
        if self.params.dates and record.time:
            return f"{text} date: {record.time}"
        return text

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        if scorer not in self.scorers:
            raise UsageError(
                f"{self.name} has no scorer '{scorer}'; it has: {', '.join(self.scorers)}"
            )
        return scoring.parse(output, self.form.labels, self.kind, scorer)

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        return scoring.measure(parsed, sample, self.kind)

    def read_references(self, path: Path) -> dict[str, Sample]:
        samples = {}
        for sample_id, output in read_outputs(path, self.name).items():
            samples[sample_id] = Sample(
                sample_id,
                # Output files name no users: each sample counts as a user of its own.
                user_id=sample_id,
                input="",
                references=(output,),
                choices=self.form.labels,
            )
        return samples

    def recognizes(self, path: Path) -> bool:
        return is_output_file(path, self.name)

    def read_predictions(self, path: Path) -> tuple[str | None, list[tuple[str, str | None]]]:
        """See `Task`; this task's official name is returned as the task's name."""
        official, pairs = scoring.read_submission(path)
        task = self.name if official == self.form.official else official
        return task, pairs

    def submission(self, outputs: Iterable[tuple[str, str]]) -> Iterator[str]:
        yield f'{{"task":"{self.form.official}","golds":['
        separator = ""
        for sample_id, output in outputs:
            yield separator + to_json({"id": sample_id, "output": output})
            separator = ","
        yield "]}\n"

    def audit(self, dataset: Dataset) -> list[str]:
        """List samples whose gold occurs in the user's own profile.

        For free text the gold text counts, for LaMP-1 either candidate's title. The other labels
        occur in every profile by design.
        """
        leaking = [sample.id for sample in dataset.samples() if self._is_leaking(sample)]
        if not leaking:
            return []

        gold = "a candidate title" if self.name == "lamp1" else "the gold text"
        return [f"{gold} occurs in the same profile: {list_few(leaking)} of {len(dataset.index())}"]

    def _is_leaking(self, sample: Sample) -> bool:
        golds = {fold_text(text) for text in self._gold_texts(sample)}
        if not golds:
            return False

        field = "title" if "title" in self.form.fields else "text"
        return any(fold_text(record.fields[field]) in golds for record in sample.history)

    def _gold_texts(self, sample: Sample) -> Sequence[str]:
        if self.name == "lamp1":
            return find_candidates(sample.input) or ()
        if self.kind == "text":
            return sample.references
        return ()

    def download(self, split: str, target: Path, **options: Any) -> None:
        # Imported here, since only this command needs it.
        from personabench.tasks.lamp.download import download

        download(self.name, split, target, **options)
