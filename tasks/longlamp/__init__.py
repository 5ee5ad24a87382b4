"""LongLaMP: long texts as a user would write them (arXiv 2407.11016).

Abstracts, product reviews, posts on a topic and emails, each with a user setting, in which users of
the test are new, and a temporal one, in which their latest texts are.  `forms` has the formats,
`records` reads them, `prompts` words requests, and `scoring` has the metrics.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from personabench.api.data_sources import Audited, Downloadable
from personabench.api.dataset import Dataset
from personabench.api.id_check import list_few
from personabench.api.layout import Layout, has_layout
from personabench.api.rows import NoDataError
from personabench.api.task import Task
from personabench.api.wording import Rendered, Vocabulary
from personabench.errors import DataError, UsageError
from personabench.hashing import fold_text
from personabench.metrics import meteor
from personabench.metrics.metric import Value
from personabench.metrics.text import strip_chatter
from personabench.models.tokens import Tokens
from personabench.tasks.longlamp import prompts, scoring
from personabench.tasks.longlamp.forms import FORMS, Form, parse_split
from personabench.tasks.longlamp.records import NO_USER, find_files, read_samples
from personabench.types import Record, Sample

__all__ = ["LongLampAbstract", "LongLampEmail", "LongLampReview", "LongLampTopic"]

SAMPLE = Path(__file__).parent / "sample"
# The context of the paper's Llama 2 less the output allowance.
LENGTH = 4096 - 1024
_SOURCE = "https://huggingface.co/datasets/LongLaMP/LongLaMP (arXiv 2407.11016)"


class _LongLamp(Task, Audited, Downloadable):
    """The part that the four tasks share."""

    kind = "text"
    tokenizer = "whitespace"
    default_split = "user/test"
    splits = (
        *("user/train", "user/val", "user/test"),
        *("temporal/train", "temporal/val", "temporal/test"),
    )
    max_tokens = 1024
    metrics = scoring.METRICS

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
        """Options of a LongLaMP task, beside those of the layout of `chat`.

        Attributes:
            template: chat, or one of the benchmark's own prompts in one user message:
                longlamp-official, and longlamp-llama, which was used with Llama.
            length: tokens of a request, to which past texts are cut in equal shares; 0 for no
                budget. The default is the context of Llama 2 less 1024 tokens of output.
        """

        template: Literal["chat", "longlamp-official", "longlamp-llama"] = "chat"
        length: int = LENGTH

        def __post_init__(self) -> None:
            if self.template != "chat" and has_layout(self):
                raise ValueError(
                    "layout, profile and order are options of template=chat; the benchmark's own "
                    "prompts have one layout"
                )
            if self.length < 0:
                raise ValueError("length is a number of tokens, or 0 for no budget")

    params: Params

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        # METEOR needs files that no package installs; without them the task runs without it.
        self._missing_meteor = meteor.describe_missing_data()
        if self._missing_meteor:
            available = tuple(m for m in self.metrics if not m.name.startswith("meteor"))
            self.metrics = available  # type: ignore[misc]

    @property
    def form(self) -> Form:
        """The format of the task's dataset."""
        return FORMS[self.name]

    def open(self, split: str, data: Path | None) -> Dataset:
        setting, name = parse_split(self.name, split)
        root = SAMPLE if data is None else data
        if data is None and f"{setting}/{name}" != self.default_split:
            raise UsageError(
                f"the example data of {self.name} have the split {self.default_split} alone; name "
                f"a folder with {self.form.config}_{setting} with --data"
            )
        self._check_licensed(root, setting, name)
        dataset = super().open(f"{setting}/{name}", root)
        unnamed = sum(sample.hidden[NO_USER] == "True" for sample in dataset.samples())
        warnings = [dataset.warnings] if isinstance(dataset.warnings, str) else [*dataset.warnings]
        if unnamed:
            warnings.append(f"{unnamed} rows name no user, and count as users of their own")
        for problem in (self._missing_meteor, meteor.describe_limitations()):
            if problem:
                warnings.append(problem)
        dataset.warnings = tuple(warnings)
        if data is None:
            dataset.source = "example data, not LongLaMP"
        return dataset

    def _check_licensed(self, root: Path, setting: str, name: str) -> None:
        """Say how to get licensed files where there are none; a task without a licence passes."""

    def load(self, split: str, data: Path | None) -> Iterator[Sample]:
        if data is None:
            raise NoDataError(f"the example data of {self.name} are missing; name a folder")
        setting, name = parse_split(self.name, split)
        yield from read_samples(
            find_files(data, self.form, setting, name), self.form, setting, name
        )

    def render(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        return self._render(sample, records, notes, tokens, self.words.instruction)

    def render_content(
        self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
    ) -> Rendered:
        return self._render(sample, records, notes, tokens, self.words.goal)

    def _render(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
        instruction: str,
    ) -> Rendered:
        length = self.params.length or None
        template = self.params.template
        parts = (self.form, self.words, sample, records, notes, tokens)
        if template == "chat":
            return prompts.render_chat(*parts, self.params, length, instruction)
        return prompts.render_official(*parts, template, length)

    def describe(self, record: Record) -> str:
        return prompts.describe(self.words, record)

    def query_text(self, sample: Sample) -> str:
        return self.form.find_query(sample.input) or sample.input

    def document_text(self, record: Record) -> str:
        if not record.fields:
            return f"{record.stimulus or ''} {record.response}".strip()
        return " ".join(record.fields[name] for name in self.form.document)

    def question(self, record: Record, like: Sample) -> Sample:
        """See `Task`; the inputs of a dataset have no common wording, so it has one of its own."""
        question = super().question(record, like)
        text = self.form.request.format(stimulus=question.stimulus)
        return msgspec.structs.replace(question, input=text)

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """Strip the text; `lenient` drops chatter around it as well."""
        if scorer not in self.scorers:
            raise UsageError(
                f"{self.name} has no scorer '{scorer}'; it has: {', '.join(self.scorers)}"
            )
        text = strip_chatter(output) if scorer == "lenient" else output
        return text.strip() or None

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        if not sample.references:
            return {}
        gold = sample.references[0].strip()
        return scoring.measure_text(parsed or "", gold, not self._missing_meteor)

    def audit(self, dataset: Dataset) -> list[str]:
        """List samples whose gold stands in the same profile."""
        leaking = []
        for sample in dataset.samples():
            golds = {fold_text(text) for text in sample.references}
            if any(fold_text(record.response) in golds for record in sample.history):
                leaking.append(sample.id)
        if not leaking:
            return []
        return [f"the gold text stands in the same profile: {list_few(leaking)}"]

    def describe_missing(self) -> str:
        return self._missing_meteor or ""

    def download(self, split: str, target: Path, **options: Any) -> None:
        # Imported here, since only this command needs it.
        from personabench.tasks.longlamp.download import download

        download(self.name, split, target, **options)


def _make_words(
    person: str, stimulus: str, response: str, content: str, axes: tuple[str, str, str]
) -> Vocabulary:
    form, affect, substance = axes
    goal = f"You write the {response} that one particular {person} wrote, as this {person} would."
    return Vocabulary(
        person=person,
        stimulus=stimulus,
        response=response,
        profile_question=f"How does this {person} write {response}s: {content}?",
        axes=(("Form", form), ("Affect", affect), ("Substance", substance)),
        goal=goal,
        answer_form=f"the text of the {response}",
        instruction=f"{goal} Answer with the text of the {response} and nothing else.",
    )


class LongLampAbstract(_LongLamp):
    """Write the abstract that this author gave a paper, from its title and some phrases."""

    name = "longlamp_abstract"
    title = "LongLaMP: personalized abstract generation"
    kind = "text"
    source = _SOURCE
    licence = "see the card of the data set; abstracts under their sources' terms"
    words = _make_words(
        "author",
        "title",
        "abstract",
        "structure, length, voice, openings and closings, and what they report",
        (
            "order of problem, method and result, sentence length, first person or passive",
            "hedged or assertive, sober or promotional",
            "whether problem, method, data or numbers take most of the space",
        ),
    )


class LongLampReview(_LongLamp):
    """Write the review that this reviewer wrote of a product."""

    name = "longlamp_review"
    title = "LongLaMP: personalized product review writing"
    kind = "text"
    offers = ("history", "population", "precedents")
    source = _SOURCE
    licence = "see the card of the data set; texts from Amazon reviews"
    words = _make_words(
        "reviewer",
        "product",
        "review",
        "structure, length, tone, openings and closings, and what they attend to",
        (
            "length, paragraphs, how a review opens and closes",
            "how strongly praise and blame are put, irony or warmth",
            "aspects of a product that are attended to, and stories that are told",
        ),
    )


class LongLampTopic(_LongLamp):
    """Write the post of which this author gave a summary."""

    name = "longlamp_topic"
    title = "LongLaMP: personalized topic writing"
    kind = "text"
    offers = ("history", "population", "precedents")
    source = _SOURCE
    licence = "see the card of the data set; posts from Reddit"
    words = _make_words(
        "author",
        "summary",
        "post",
        "structure, length, tone, openings and closings, and how they tell a thing",
        (
            "length, paragraphs, spelling and marks that come back",
            "how openly feelings are shown, irony or warmth",
            "how much is explained, and what a post asks of its readers",
        ),
    )


class LongLampEmail(_LongLamp):
    """Complete the email that this sender wrote."""

    name = "longlamp_email"
    title = "LongLaMP: personalized email completion"
    kind = "text"
    offers = ("history", "population", "precedents")
    source = "Avocado Research Email Collection, LDC2015T03 (arXiv 2407.11016)"
    licence = "texts need a licence for the Avocado Research Email Collection"
    words = _make_words(
        "sender",
        "subject",
        "email",
        "greetings, structure, length, tone, and how they close",
        (
            "greeting, length, paragraphs, lists, and how an email closes",
            "how formal, friendly or urgent it is",
            "what is put first, and how requests and dates are stated",
        ),
    )

    def _check_licensed(self, root: Path, setting: str, name: str) -> None:
        try:
            find_files(root, self.form, setting, name)
        except DataError as error:
            raise DataError(
                f"{error}. The emails need a licence (LDC2015T03); make the files with the "
                "benchmark's scripts, and name their folder with --data"
            ) from error
