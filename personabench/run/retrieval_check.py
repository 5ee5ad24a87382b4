"""Recall of retrievers on a task's evidence marks, without a model.

Every question searches its history as `rag` would, once per retriever, and the first k records are
scored by the task's own `measure_retrieval`.  Recall says nothing without the tokens behind it, so
both are reported.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from personabench.api.dataset import Dataset
from personabench.api.task import Task
from personabench.errors import UsageError
from personabench.hashing import digest
from personabench.models.tokens import EstimatedTokens
from personabench.retrieval.embedders import Embedders
from personabench.retrieval.search import search
from personabench.types import Record, Sample

# As in the context of a method, so that `random` draws what `rag` draws.
_SEED = 0


@dataclass(frozen=True)
class RetrievalScore:
    """The scores of one retriever at one k.

    Attributes:
        n: questions with usable evidence.
        metrics: means of the values of `Task.measure_retrieval`.
        tokens: of the retrieved records, estimated, on average.
        no_match: questions that share no token with any record, for BM25.
    """

    retriever: str
    k: int
    n: int
    metrics: dict[str, float]
    tokens: float
    no_match: int = 0


@dataclass(frozen=True)
class RetrievalOptions:
    """The retrievers to check, and how many records each returns.

    Attributes:
        retrievers: of `personabench.retrieval.search.SEARCHES`, without `ranked`.
        limit: the number of questions, in file order; None for all.
    """

    retrievers: Sequence[str] = ("bm25", "dense")
    cutoffs: Sequence[int] = (1, 5, 10, 25)
    embedder: str = "wordllama"
    limit: int | None = None


async def check_retrieval(
    task: Task, dataset: Dataset, options: RetrievalOptions
) -> list[RetrievalScore]:
    """Score retrievers on the questions that have evidence and count for the primary metric.

    Raises:
        UsageError: no question has evidence, or a retriever cannot be used on the data.
    """
    samples = list(_choose_samples(task, dataset, options.limit))
    if not samples:
        raise UsageError(
            f"{task.name}: no question has evidence in its history, so retrieval has no score"
        )

    embedders = Embedders()
    scores = []
    try:
        for retriever in options.retrievers:
            rankings = []
            unmatched: list[Sample] = []
            for sample in samples:
                ranking, has_match = await _rank(task, sample, retriever, options, embedders)
                rankings.append(ranking)
                if not has_match:
                    unmatched.append(sample)
            scores += [
                _score(task, samples, rankings, retriever, k, len(unmatched))
                for k in options.cutoffs
            ]
    finally:
        await embedders.aclose()
    return scores


def _choose_samples(task: Task, dataset: Dataset, limit: int | None) -> Iterator[Sample]:
    primary = task.metrics[0]
    chosen = 0
    for sample in dataset.samples():
        if not sample.evidence or not sample.history:
            continue
        if primary.size is not None:
            # Questions that the primary metric leaves out, such as adversarial ones.
            value = task.measure(None, sample).get(primary.name)
            if value is None or not primary.size(np.array([value], dtype=np.float64)):
                continue
        yield sample
        chosen += 1
        if chosen == limit:
            return


async def _rank(
    task: Task, sample: Sample, retriever: str, options: RetrievalOptions, embedders: Embedders
) -> tuple[list[Record], bool]:
    flags: list[str] = []
    ranking = await search(
        sample.history,
        query=task.query_text(sample.view()),
        document=task.document_text,
        k=max(options.cutoffs),
        by=retriever,
        tokenizer=task.tokenizer,
        rng=random.Random(digest([_SEED, retriever, sample.id])),
        embed=lambda texts: embedders.embed(texts, options.embedder),
        ranking=None,
        flag=lambda name, by=1: flags.append(name),
    )
    return ranking, "bm25_no_match" not in flags


def _score(
    task: Task,
    samples: Sequence[Sample],
    rankings: Sequence[Sequence[Record]],
    retriever: str,
    k: int,
    no_match: int,
) -> RetrievalScore:
    counter = EstimatedTokens()
    values: dict[str, list[float]] = {}
    tokens = 0
    for sample, ranking in zip(samples, rankings, strict=True):
        top = ranking[:k]
        tokens += sum(counter.count(task.describe(record)) for record in top)
        measured = task.measure_retrieval(sample, [record.id for record in top])
        for name, value in measured.items():
            if isinstance(value, float | int):
                values.setdefault(name, []).append(float(value))
    metrics = {name: sum(column) / len(column) for name, column in values.items()}
    return RetrievalScore(retriever, k, len(samples), metrics, tokens / len(samples), no_match)
