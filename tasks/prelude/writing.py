"""The part that PRELUDE and PLUME share: documents in rounds, for users with hidden preferences.

A round is a document, and its source decides the user's preference.  The method writes a summary
of it, or an email from it, and learns from the user's reaction.  Reactions and metrics are those of
the benchmark.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from personabench.api.data_sources import Downloadable
from personabench.api.dataset import Dataset
from personabench.api.layout import Layout, Parts, arrange
from personabench.api.online import OnlineTask
from personabench.api.wording import Rendered, Vocabulary
from personabench.errors import UsageError
from personabench.metrics.metric import Value
from personabench.metrics.text import strip_reasoning
from personabench.models.roles import RoleName
from personabench.models.tokens import Tokens
from personabench.tasks.prelude import scoring, user
from personabench.tasks.prelude.data import Trajectories
from personabench.tasks.prelude.user import TOP_P
from personabench.types import Record, Sample

INTERVAL_TRAJECTORIES = 6
"""Each trajectory is one user; intervals over fewer users are not reported."""


class Summaries:
    """Documents to summarise."""

    documents = "summ"
    request = "Summarise this document."
    words = Vocabulary(
        person="reader",
        stimulus="document",
        response="summary",
        profile_question="Which form, tone and wording does this reader like in a summary?",
        axes=(
            ("Form", "prose, lists, questions, length and layout"),
            ("Tone", "formal or casual, sober or lively, how the reader is addressed"),
            ("Wording", "sentence length, simple or technical words, symbols"),
        ),
        instruction=(
            "Write the summary that this reader would like. "
            "Answer with the summary and nothing else."
        ),
        goal="Write the summary that this reader would like.",
        answer_form="the summary",
    )


class Emails:
    """Notes to write emails from."""

    documents = "email"
    request = "Write a short email from these notes."
    words = Vocabulary(
        person="sender",
        stimulus="notes",
        response="email",
        profile_question="Which form, tone and wording does this sender like in an email?",
        axes=(
            ("Form", "greeting, closing, length, order and layout"),
            ("Tone", "formal or casual, sober or lively, how the receiver is addressed"),
            ("Wording", "sentence length, simple or technical words, set phrases"),
        ),
        instruction=(
            "Write the email that this sender would like. Answer with the email and nothing else."
        ),
        goal="Write the email that this sender would like.",
        answer_form="the email",
    )


class WritingTask(OnlineTask, Downloadable):
    """Rounds of documents for users with a hidden preference per source of documents.

    Attributes:
        documents: the documents, summ or email; request: the sentence that comes with one.
        benchmark: the benchmark's name, for readers; env: the name of its preference file.
        seeds_option: how more trajectories are requested, for the warning about few.
    """

    documents: ClassVar[str]
    request: ClassVar[str]
    benchmark: ClassVar[str]
    seeds_option: ClassVar[str]
    env: ClassVar[str]
    protocol = "online"
    offers = ("feedback", "preference")
    roles: tuple[RoleName, ...] = ("simulator",)
    kind = "text"
    default_split = "all"
    max_tokens = 512
    scorers = ("official",)

    @dataclasses.dataclass(frozen=True)
    class Params(Layout):
        """Options of the task, beside those of the layout.

        Attributes:
            rounds: rounds of a trajectory; 0 is the paper's number.
            seeds: the seeds of the trajectories, such as 3,4,5.
            preferences: a preference file, instead of the data folder's or the bundled one; its
                content is part of the data's hash, its path is not.
            user_max_tokens: maximum tokens of each reply of the simulated user; user_top_p: their
                nucleus sampling probability. Its temperature is `--simulator-temperature`.
            document_tokens: documents are truncated, and counted, after so many tokens; 0 for
                never.
            accuracy: measure that compares an inferred preference with the true ones.
        """

        rounds: int = 0
        seeds: str = ""
        preferences: str = ""
        user_max_tokens: int = 4000
        user_top_p: float = TOP_P
        document_tokens: int = 0
        accuracy: scoring.Accuracy = "wordllama"

        def __post_init__(self) -> None:
            check_minimums(self, rounds=0, user_max_tokens=1, document_tokens=0)
            if not 0 < self.user_top_p <= 1:
                raise ValueError(f"user_top_p must be above 0 and at most 1, not {self.user_top_p}")
            read_seeds(self.seeds)

    params: Any

    def open(self, split: str, data: Path | None) -> Dataset:
        if split not in ("all", "user/all"):
            raise UsageError(f"{self.name} has one split, all, not '{split}'")

        dataset = self.draw_trajectories(data)
        if self.params.accuracy == "bertscore":
            # Before the run: scoring would notice it only after all calls.
            dataset.missing_requirement = self.describe_missing()
        count = len({user_id for _, user_id in dataset.index()})
        if count < INTERVAL_TRAJECTORIES:
            dataset.warnings = (
                *dataset.warnings,
                f"{count} trajectories are too few for an interval; {self.seeds_option} gives one",
            )
        return dataset

    @abstractmethod
    def draw_trajectories(self, data: Path | None) -> Trajectories:
        """Draw the rounds of all trajectories."""

    def render(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
    ) -> Rendered:
        """Render notes about the user as system message, then the document with its instruction."""
        return self._render_document(sample, records, notes, tokens, self._contract)

    def render_content(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
    ) -> Rendered:
        return self._render_document(sample, records, notes, tokens, "")

    @property
    def _contract(self) -> str:
        """The form of the answer, without the request for the user's own."""
        return self.words.instruction.removeprefix(self.words.goal).strip()

    def _render_document(
        self,
        sample: Sample,
        records: Sequence[Record],
        notes: str,
        tokens: Tokens,
        contract: str,
    ) -> Rendered:
        question = sample.input
        flags = {}
        document = self.truncate_document(sample, tokens)
        if sample.stimulus and document != sample.stimulus:
            question = self.word_request(document)
            flags["documents_cut"] = 1.0

        # The paper's request without anything known of the user mentions none.
        stage = "draft_for_user" if notes or records else "draft"
        ending = self._part(stage, goal=self.words.goal, contract=contract).strip()
        # The instruction comes last, where models heed it even after a long document.
        if ending:
            question = f"{question}\n\n{ending}"
        parts = Parts(
            question=question,
            notes=self._part("preference", notes=notes) if notes else "",
            records=records,
            word_turn=lambda record: self.question(record, sample).input,
            word_list=lambda ordered: "\n\n".join(map(self.describe, ordered)),
            opening=self._part("system"),
        )
        messages = arrange(parts, self.params, "list")
        return Rendered(tuple(messages), tuple(records), flags)

    def word_request(self, document: str) -> str:
        """The request with a document, without an instruction."""
        return self._part("document", request=self.request, document=document)

    def _part(self, stage: str, **slots: str) -> str:
        return self.texts.part(user.PROMPTS, stage, self.words, slots)

    def truncate_document(self, sample: Sample, tokens: Tokens) -> str:
        """The document of a round, as far as the options let it be seen."""
        limit = self.params.document_tokens
        document = sample.stimulus or ""
        return tokens.truncate(document, limit) if limit else document

    def parse(self, output: str, sample: Sample, scorer: str) -> str | None:
        """The draft: the answer without reasoning, which users do not see; None if it is empty."""
        return strip_reasoning(output).strip() or None

    def measure(self, parsed: str | None, sample: Sample) -> Mapping[str, Value]:
        return {}

    def describe_missing(self) -> str:
        """Name a package that the options need and how to get it; empty if nothing is missing."""
        if importlib.util.find_spec("bert_score"):
            return ""
        return "task.accuracy=bertscore, the paper's measure, needs: pip install bert-score"


def check_minimums(params: Any, **minimums: int) -> None:
    """Check options that are numbers.

    Raises:
        ValueError: one is below its minimum.
    """
    for name, minimum in minimums.items():
        value = getattr(params, name)
        if value < minimum:
            raise ValueError(f"{name} must be at least {minimum}, not {value}")


def read_seeds(text: str) -> list[int]:
    """Read the option `seeds`.

    Raises:
        ValueError: it is no list of different whole numbers.
    """
    words = [word.strip() for word in text.split(",")] if text else []
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise ValueError(f"seeds must be different whole numbers such as 3,4,5, not {text!r}")
    return [int(word) for word in words]
