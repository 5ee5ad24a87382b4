"""PersonaBench of Salesforce: questions about people, answered from their private documents.

"PersonaBench: Evaluating AI Models on Understanding Personal Information through Accessing
(Synthetic) Private User Data" (arXiv 2502.20616).  The benchmark shares this project's name and
nothing else.  Its metrics are those of `personabench.metrics.private_qa`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from personabench.api.data_sources import Audited, Downloadable
from personabench.api.dataset import Dataset
from personabench.api.id_check import list_few
from personabench.api.layout import BY_TIME, NO_TURNS, Layout, Parts, arrange, check_layout
from personabench.api.rows import NoDataError
from personabench.api.task import Task
from personabench.api.wording import Rendered, Vocabulary
from personabench.metrics import private_qa
from personabench.metrics.metric import Metric, Value
from personabench.models.tokens import Tokens
from personabench.tasks.personabench_qa.files import (
    CATEGORIES,
    Document,
    Person,
    Question,
    find_communities,
    read_community,
)
from personabench.types import Record, Sample, moment

__all__ = ["PersonaBenchQA"]

Floats = npt.NDArray[np.float64]


def _mean_of_categories(values: Floats) -> float:
    """Mean over categories of the mean score; rows of `values` are (category, score)."""
    means = [values[values[:, 0] == index, 1].mean() for index in np.unique(values[:, 0])]
    return float(np.mean(means))


def _mean_of_category(values: Floats, index: int) -> float:
    scores = values[values[:, 0] == index, 1]
    return float(scores.mean()) if len(scores) else float("nan")


def _count_of_category(values: Floats, index: int) -> int:
    return int((values[:, 0] == index).sum())


def _mean_of_measured(values: Floats) -> float:
    """Mean over the samples that have a value; rows of `values` are (value, whether it has one)."""
    measured = values[values[:, 1] == 1, 0]
    return float(measured.mean()) if len(measured) else float("nan")


def _count_measured(values: Floats) -> int:
    return int((values[:, 1] == 1).sum())


class PersonaBenchQA(Task, Audited, Downloadable):
    """Answer questions about a person from their messages, requests and purchases."""

    name = "personabench_qa"
    title = "PersonaBench (Salesforce, arXiv 2502.20616): questions about private documents"
    kind = "text"
    offers = ("history", "population", "dates", "evidence")
    source = "https://github.com/SalesforceAIResearch/personabench (arXiv 2502.20616)"
    licence = "CC BY-NC-SA 4.0"
    default_split = "all"
    max_tokens = 64
    quotes_gold = True
    metrics = (
        Metric("f1"),
        Metric("precision"),
        Metric("recall"),
        Metric("f1-macro", aggregate=_mean_of_categories),
        *(
            Metric(
                f"f1-{category}",
                aggregate=partial(_mean_of_category, index=index),
                size=partial(_count_of_category, index=index),
            )
            for index, category in enumerate(CATEGORIES[:-1])
        ),
        Metric(
            "outdated-recall",
            higher_is_better=False,
            aggregate=_mean_of_measured,
            size=_count_measured,
        ),
        Metric("emptied", higher_is_better=False),
        Metric("retrieval-recall"),
        Metric("retrieval-ndcg"),
    )
    words = Vocabulary(
        person="person",
        stimulus="question",
        response="document",
        profile_question=(
            "Who is this person: age, origin, work, looks, family, friends, pets, and what they "
            "like now and liked before?"
        ),
        instruction="Answer with the names or values alone, separated by commas.",
        answer_form="the names or values alone, separated by commas",
    )

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
        """Options of the task, beside those of the layout.

        Attributes:
            noise: the level of noise in the documents.
            owner: named says in one sentence who asks; unnamed is the official protocol, in which
                nothing says who "I" is.
            documents: the texts that are searched: lines as they are shown, or official, the JSON
                of a session.
            tokenizer: how documents and questions are split for BM25; words or whitespace.
            subjective: include the subjective questions, which the paper leaves out.
        """

        noise: Literal["0.0", "0.3", "0.5", "0.7"] = "0.0"
        owner: Literal["named", "unnamed"] = "named"
        documents: Literal["lines", "official"] = "lines"
        tokenizer: Literal["words", "whitespace"] = "words"
        subjective: bool = False

        def __post_init__(self) -> None:
            check_layout(self, turns=NO_TURNS, order=BY_TIME)

    params: Params

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self.tokenizer = self.params.tokenizer
        self._without_documents = 0

    def open(self, split: str, data: Path | None) -> Dataset:
        dataset = super().open(split, data)
        if data is None:
            dataset.source = "example data, not PersonaBench"
        notes = []
        if self._without_documents:
            notes.append(f"people without documents, who are left out: {self._without_documents}")
        dataset.warnings = (*dataset.warnings, *notes)
        return dataset

    def load(self, split: str, data: Path | None) -> Iterator[Sample]:
        if data is None:
            raise NoDataError(f"the example data of {self.name} are missing; name a folder")
        self._without_documents = 0
        for folder in find_communities(data):
            people, count = read_community(folder, self.params.noise)
            self._without_documents += count
            for person in people:
                yield from self._make_samples(person)

    def _make_samples(self, person: Person) -> Iterator[Sample]:
        history = tuple(map(self._make_record, person.documents))
        for question in person.questions:
            if question.category == "subjective" and not self.params.subjective:
                continue
            yield _make_sample(person, question, history)

    def _make_record(self, document: Document) -> Record:
        fields = {"source": document.source}
        if self.params.documents == "official":
            fields["dump"] = document.dump()
        return Record(document.id, response=document.lines(), time=document.time, fields=fields)

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        """Word the request: notes and documents in the order of time, then the question."""
        known = []
        if self.params.owner == "named":
            known.append(f"{sample.attributes['name']} asks about their own life.")
        if notes:
            known.append(f"What is known about this person:\n{notes}")
        parts = Parts(
            question=f"Question: {sample.input}\n\n{self.words.instruction}",
            notes="\n\n".join(known),
            records=records,
            word_turn=self.describe,
            word_list=self._list_documents,
        )
        messages = arrange(parts, self.params, "message")
        return Rendered(tuple(messages), tuple(records))

    def _list_documents(self, records: Sequence[Record]) -> str:
        ordered = sorted(records, key=lambda record: moment(record.time))
        described = [self.describe(record) for record in ordered]
        return "\n\n".join(["From this person's documents:", *described])

    def describe(self, record: Record) -> str:
        return f"[{(record.time or '').replace('T', ' ')}]\n{record.response}"

    def document_text(self, record: Record) -> str:
        return record.fields.get("dump", record.response)

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        output = parsed or ""
        score = private_qa.score_overlap(output, _decode(sample, "answer"))
        category = float(CATEGORIES.index(sample.hidden["category"]))
        values: dict[str, Value] = {
            "f1": score.f1,
            "precision": score.precision,
            "recall": score.recall,
            "f1-macro": [category, score.f1],
            **{f"f1-{name}": [category, score.f1] for name in CATEGORIES[:-1]},
            "emptied": float(score.emptied),
        }
        outdated = private_qa.outdated_recall(output, _decode(sample, "outdated"))
        values["outdated-recall"] = [outdated or 0.0, float(outdated is not None)]
        return values

    def measure_retrieval(self, sample: Sample, shown: Sequence[str]) -> Mapping[str, Value]:
        """Score the five best documents, and all; the best choice of alternative segments counts.

        `evidence-recall` is over all shown documents, the retrieval scores over the first five.
        """
        segments = _decode(sample, "segments")
        values = dict(super().measure_retrieval(sample, shown))
        # Documents of another person may have ids like these, but they hold no answer.
        if not segments or not shown or sample.history_owner:
            return values
        values["evidence-recall"] = private_qa.score_retrieval(segments, shown, len(shown)).recall
        score = private_qa.score_retrieval(segments, shown)
        return {**values, "retrieval-recall": score.recall, "retrieval-ndcg": score.ndcg}

    @classmethod
    def derive(
        cls,
        options: tuple[Mapping[str, Any], Mapping[str, Any]],
        scores: tuple[Mapping[str, float], Mapping[str, float]],
    ) -> Mapping[str, float]:
        """Robustness against noise, and how well outdated values are left out at either level."""
        levels = [str(option.get("noise", "")) for option in options]
        others = [{k: v for k, v in option.items() if k != "noise"} for option in options]
        if levels[0] == levels[1] or others[0] != others[1]:
            return {}
        low, high = sorted(zip(levels, scores, strict=True), key=lambda pair: pair[0])
        numbers = {}
        if "f1" in low[1] and "f1" in high[1]:
            numbers["noise robustness"] = private_qa.robustness(low[1]["f1"], high[1]["f1"])
        for level, values in (low, high):
            if "outdated-recall" in values:
                numbers[f"information updating at {level}"] = 1 - values["outdated-recall"]
        return numbers

    def audit(self, dataset: Dataset) -> list[str]:
        """List questions without a gold segment."""
        names = [sample.id for sample in dataset.samples() if not _decode(sample, "segments")]
        return [f"no gold segment: {list_few(names)}"] if names else []

    def counts(self, dataset: Dataset) -> list[str]:
        """Count questions by category, outdated values, and answers that are no texts."""
        categories: Counter[str] = Counter()
        outdated = numbers = objects = 0
        for sample in dataset.samples():
            categories[sample.hidden["category"]] += 1
            outdated += bool(_decode(sample, "outdated"))
            answer = _decode(sample, "answer")
            members = answer if isinstance(answer, list) else [answer]
            numbers += any(isinstance(member, int | float) for member in members)
            objects += any(isinstance(member, dict) for member in members)
        by_category = [f"{categories[name]} {name}" for name in CATEGORIES if categories[name]]
        return [
            f"questions by category: {', '.join(by_category)}",
            f"{outdated} questions have an outdated value, {numbers} a number as their answer and "
            f"{objects} an object",
        ]

    def download(self, split: str, target: Path, **options: Any) -> None:
        # Imported here, since only this command needs it.
        from personabench.tasks.personabench_qa.download import download

        download(split, target, **options)


def _make_sample(person: Person, question: Question, history: tuple[Record, ...]) -> Sample:
    segments = list(question.segments)
    evidence = dict.fromkeys(segment for alternatives in segments for segment in alternatives)
    return Sample(
        f"{person.community}-{question.id}",
        user_id=f"{person.community}/{person.name}",
        input=question.text,
        stimulus=question.text,
        history=history,
        references=(_write_answer(question.answer),),
        attributes={"name": person.name},
        time=history[-1].time,
        hidden={
            "answer": msgspec.json.encode(question.answer).decode(),
            "outdated": msgspec.json.encode(question.outdated).decode(),
            "segments": msgspec.json.encode(segments).decode(),
            "category": question.category,
        },
        evidence=tuple(evidence),
    )


def _write_answer(answer: Any) -> str:
    """Write an answer as text: members of a list by commas, an object as key and value."""
    if isinstance(answer, list):
        return ", ".join(map(_write_answer, answer))
    if isinstance(answer, dict):
        return ", ".join(f"{key} {value}" for key, value in answer.items())
    return str(answer)


def _decode(sample: Sample, name: str) -> Any:
    return msgspec.json.decode(sample.hidden[name])
