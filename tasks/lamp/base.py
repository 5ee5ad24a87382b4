"""The one implementation behind the eight LaMP tasks; a subclass adds its name, words and numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from personabench.api.data_sources import Audited, Downloadable
from personabench.api.dataset import Dataset
from personabench.api.id_check import few
from personabench.api.official_files import OfficialFiles, SubmissionFile
from personabench.api.task import Task
from personabench.api.wording import Rendered
from personabench.errors import UsageError
from personabench.metrics.metric import Value
from personabench.models.tokens import Tokens
from personabench.tasks.lamp import prompts, scoring
from personabench.tasks.lamp.forms import FORMS, Form, candidates_of, query_of
from personabench.tasks.lamp.records import LampData, parse_split, read_outputs
from personabench.types import Record, Sample, to_json


class Lamp(Task, OfficialFiles, SubmissionFile, Audited, Downloadable):
    """A task of LaMP, "When Large Language Models Meet Personalization" (arXiv 2304.11406)."""

    version = 3

    @dataclasses.dataclass(frozen=True)
    class Params:
        """Options of a LaMP task.

        Attributes:
            template: `chat`, or `lamp-official` for the benchmark's own prompt in one user message.
            length: token budget of the official prompt (the papers use 256 or 512); none by default.
            dates: append ` date: D` to what a record is found by.
        """

        template: Literal["chat", "lamp-official"] = "chat"
        length: int | None = None
        dates: bool = False

        def __post_init__(self) -> None:
            if self.length is not None and (self.length < 1 or self.template != "lamp-official"):
                raise ValueError(
                    "length is the positive token budget of the template lamp-official"
                )

    params: Params

    @property
    def form(self) -> Form:
        """The format of the task's dataset."""
        return FORMS[self.name]

    def open(self, split: str, data: Path | None) -> Dataset:
        return LampData(self.name, split, data)

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        if self.params.template == "chat":
            return prompts.chat(self.form, self.words, sample, records, notes)
        return prompts.official(
            self.form, self.words, sample, records, notes, tokens, self.params.length
        )

    def query_text(self, sample: Sample) -> str:
        return query_of(self.form, sample)

    def document_text(self, record: Record) -> str:
        text = " ".join(record.fields[name] for name in self.form.document)
        return f"{text} date: {record.time}" if self.params.dates and record.time else text

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        if scorer not in self.scorers:
            raise UsageError(
                f"{self.name} has no scorer '{scorer}'; it has: {', '.join(self.scorers)}"
            )
        return scoring.parse(output, self.form.labels, self.kind, scorer)

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        return scoring.measure(parsed, sample, self.kind)

    def read_references(self, path: Path) -> dict[str, Sample]:
        return {
            gold_id: Sample(gold_id, gold_id, "", references=(output,), choices=self.form.labels)
            for gold_id, output in read_outputs(path, self.name).items()
        }

    def read_predictions(self, path: Path) -> tuple[str | None, list[tuple[str, str | None]]]:
        """See `Task`; a stated official name that is this task's own is given as the task's name."""
        stated, pairs = scoring.read_submission(path)
        return self.name if stated == self.form.official else stated, pairs

    def submission(self, outputs: Iterable[tuple[str, str]]) -> Iterator[str]:
        yield f'{{"task":"{self.form.official}","golds":['
        for number, (name, output) in enumerate(outputs):
            yield "," * bool(number) + to_json({"id": name, "output": output})
        yield "]}\n"

    def audit(self, dataset: Dataset) -> list[str]:
        """Golds that stand in their own user's profile: gold texts, and for LaMP-1 either candidate's title."""
        leaking = [sample.id for sample in dataset.samples() if self._leaks(sample)]
        what = "a candidate title" if self.name == "lamp1" else "the gold text"
        return (
            [f"{what} stands in the same profile: {few(leaking)} of {len(dataset.index())}"]
            if leaking
            else []
        )

    def _leaks(self, sample: Sample) -> bool:
        wanted = set(self._gold_texts(sample))
        field = "title" if "title" in self.form.fields else "text"
        return bool(wanted) and any(
            _folded(record.fields[field]) in wanted for record in sample.history
        )

    def _gold_texts(self, sample: Sample) -> Iterator[str]:
        texts = candidates_of(sample.input) or () if self.name == "lamp1" else sample.references
        if self.name == "lamp1" or self.kind == "text":
            yield from map(_folded, texts)

    def download(self, split: str, target: Path, **options: Any) -> None:
        from personabench.tasks.lamp.download import download

        parse_split(split)
        download(self.name, split, target, **options)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
