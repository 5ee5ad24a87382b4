"""The `TrainedMethod` interface: a method that trains on a corpus, on users' histories, or both.

    class Tuned(TrainedMethod):
        external = True

        async def train_user(self, user, ctx):
            exchanges = [ctx.exchange(record) for record in user.history]
            ...  # write files into ctx.folder / "adapter"
            return Trained("lora", parameters=1024)

        async def predict(self, sample, state, ctx):
            artifact = ctx.artifact(sample)
            return await ctx.using(artifact).answer(sample)

`personabench train` calls `train` and `train_user`; runs call `predict`.  What training may see is
given to it by the engine alone: the visible history of a user, and samples of a split that is not
tested.
"""

from __future__ import annotations

import logging
import random
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from personabench.api.artifacts import Artifact, Kind, Seen
from personabench.api.contracts import Contract, guard_methods
from personabench.api.method import Method
from personabench.api.wording import Wording, WordingView
from personabench.errors import UsageError
from personabench.models.backends.hf_transformers import (
    decoder_layers,
    generate,
    load_checkpoint,
    repeatable,
    tokenize_prompt,
)
from personabench.models.tokens import EstimatedTokens
from personabench.retrieval.search import search
from personabench.types import Message, Record, Sample, User

__all__ = [
    "Corpus",
    "Exchange",
    "TrainContext",
    "Trained",
    "TrainedMethod",
    "decoder_layers",
    "generate",
    "load_checkpoint",
    "repeatable",
    "tokenize_prompt",
]

_log = logging.getLogger("personabench.train")


class Exchange(msgspec.Struct, frozen=True):
    """One training example.

    Attributes:
        messages: the request as a run would make it; empty for a text by itself.
        output: the reply to learn.
        record_ids: the records in both.
    """

    messages: tuple[Message, ...]
    output: str
    record_ids: tuple[str, ...]


class Trained(msgspec.Struct, frozen=True):
    """Facts that a training stage returns beside the files in its folder.

    Attributes:
        kind: "none" if there was too little to train on; the stage before answers then.
        parameters: trained numbers; steps: updates of them.
    """

    kind: Kind
    parameters: int = 0
    steps: int = 0


@dataclass
class Corpus:
    """The samples of a split that is not tested, with their references."""

    samples: Iterable[Sample]


@dataclass
class TrainContext:
    """The inputs of a training stage.

    Attributes:
        task: the task's wording, as in `Context`.
        base: the folder or the hub name of the base model; device: "cpu" or "cuda".
        seed: depends on the run's seed and the user alone, so that no order of users matters.
        folder: an empty folder for the files of the artifact.
        parent: the artifact of the population stage, if there is one.
        like: a question of the user without history and reference, which words the exchanges.
        counts: events to report on the card.
    """

    task: Wording
    base: str
    device: str
    seed: int
    folder: Path
    parent: Artifact | None = None
    like: Sample = field(default_factory=Sample)
    visible: Mapping[str, Record] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.task = WordingView(self.task)
        self._records: dict[str, None] = {}
        self._samples: dict[str, None] = {}
        self._users: dict[str, None] = {}

    @property
    def seen(self) -> Seen:
        """The ids of everything that became an example so far."""
        return Seen(tuple(self._users), tuple(self._records), tuple(self._samples))

    def count(self, name: str, by: int = 1) -> None:
        """Count an event."""
        self.counts[name] = self.counts.get(name, 0) + by

    def log(self, text: str) -> None:
        """Write a line to the log."""
        _log.info("%s", text)

    def exchange(self, record: Record, earlier: Sequence[Record] = ()) -> Exchange:
        """Turn a record into a request and its reply, with earlier records shown.

        A record that is a response alone is a text by itself, as the task describes it.

        Raises:
            UsageError: a record is not the user's.
        """
        for used in (record, *earlier):
            if self.visible.get(used.id) != used:
                raise UsageError(
                    f"record {used.id} is not visible to user {self.like.user_id}: it cannot be "
                    "trained on"
                )
        shown = {used.id: None for used in (record, *earlier)}
        self._users[self.like.user_id] = None
        self._records |= shown
        if record.stimulus is None:
            return Exchange((), self.task.describe(record), (record.id,))

        question = self.task.question(record, self.like)
        rendered = self.task.render(question, earlier, "", EstimatedTokens())
        return Exchange(rendered.messages, record.response, tuple(shown))

    def example(self, sample: Sample, records: Sequence[Record] = ()) -> Exchange:
        """Turn a sample of the corpus into a request and its reference.

        Raises:
            UsageError: the sample has no reference.
        """
        if not sample.references:
            raise UsageError(f"sample {sample.id} of the corpus has no reference to train on")
        self._users[sample.user_id] = None
        self._samples[sample.id] = None
        self._records |= {f"{sample.user_id}/{record.id}": None for record in records}
        rendered = self.task.render(sample.view(), records, "", EstimatedTokens())
        ids = tuple(record.id for record in records)
        return Exchange(rendered.messages, sample.references[0], ids)

    async def retrieve(self, question: Sample, records: Sequence[Record], k: int) -> list[Record]:
        """The k of the records that fit a question best by BM25, best first."""

        async def embed(texts: Sequence[str]) -> Any:
            raise UsageError("training retrieves with bm25 only")

        return await search(
            records,
            query=self.task.query_text(question),
            document=self.task.document_text,
            k=k,
            by="bm25",
            tokenizer=self.task.tokenizer,
            rng=random.Random(self.seed),
            embed=embed,
            ranking=None,
            flag=self.count,
        )


def _trained(plugin: Any, value: Any) -> str:
    return "" if isinstance(value, Trained) else f"it returned {type(value).__name__}"


CONTRACTS: Mapping[str, Contract] = {
    "train": Contract("a `Trained`", _trained, waits=True),
    "train_user": Contract("a `Trained`", _trained, waits=True),
}


class TrainedMethod(Method):
    """A method with artifacts of training.

    Attributes:
        kind: of its artifacts, which the backend has to serve; "json" for files that the method
            itself writes and reads, without a base model and without the extra `train`.
        external: True: without its artifacts it cannot run.
        inference_params: parameters that training does not depend on.
    """

    kind: ClassVar[Kind] = "lora"
    external: ClassVar[bool] = True
    inference_params: ClassVar[Sequence[str]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        guard_methods(cls, CONTRACTS)

    @property
    def corpus_split(self) -> str:
        """The split that the population stage trains on; empty without such a stage."""
        return ""

    @classmethod
    def needs_base(cls) -> bool:
        """Whether it trains a base model, whose backend then serves its artifacts."""
        return cls.kind != "json"

    def needs_user(self) -> bool:
        """Whether answers need artifacts of users."""
        return True

    def count_steps(self, records: int) -> int:
        """The updates of a user's training on so many records, for dry runs."""
        return 0

    async def train(self, corpus: Corpus, ctx: TrainContext) -> Trained:
        """Train the population stage, once."""
        raise UsageError(f"method {self.name} has no population stage")

    @abstractmethod
    async def train_user(self, user: User, ctx: TrainContext) -> Trained:
        """Train on one user's visible history, oldest record first."""
