"""Recall of retrievers on evidence marks, against an independent computation."""

from __future__ import annotations

import asyncio
import functools
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from personabench.api import registry
from personabench.api.task import Task
from personabench.errors import UsageError
from personabench.models.tokens import EstimatedTokens
from personabench.retrieval.local_embedders import WordLlama
from personabench.run.retrieval_check import RetrievalOptions, RetrievalScore, check_retrieval

CUTOFFS = (1, 3, 5)


def check(task: Task, *retrievers: str, **options: Any) -> dict[tuple[str, int], RetrievalScore]:
    dataset = task.open(task.default_split, None)
    chosen = RetrievalOptions(retrievers, CUTOFFS, **options)
    scores = asyncio.run(check_retrieval(task, dataset, chosen))
    return {(score.retriever, score.k): score for score in scores}


def rank_by_bm25(query: str, documents: Sequence[str]) -> list[int]:
    """BM25 Okapi (k1 1.5, b 0.75, epsilon 0.25) of lower-cased words, later documents first."""
    texts = [re.findall(r"\w+", document.lower()) for document in documents]
    counts = [Counter(words) for words in texts]
    average = sum(map(len, texts)) / len(texts)
    frequency = Counter(word for words in counts for word in words)
    weights = {
        word: math.log(len(texts) - n + 0.5) - math.log(n + 0.5) for word, n in frequency.items()
    }
    floor = 0.25 * sum(weights.values()) / len(weights)
    weights = {word: floor if weight < 0 else weight for word, weight in weights.items()}

    def score(index: int) -> float:
        length = 1.5 * (0.25 + 0.75 * len(texts[index]) / average)
        total = 0.0
        for word in re.findall(r"\w+", query.lower()):
            count = counts[index].get(word, 0)
            total += weights.get(word, 0.0) * count * 2.5 / (count + length)
        return total

    scores = [round(score(index), 9) for index in range(len(texts))]
    return sorted(range(len(texts)), key=lambda index: (-scores[index], -index))


@functools.cache
def load_embedder() -> WordLlama:
    return WordLlama()


def rank_by_vectors(query: str, documents: Sequence[str]) -> list[int]:
    vectors = asyncio.run(load_embedder().embed([query, *documents])).astype("float64")
    scores = [float((vector * vectors[0]).sum()) for vector in vectors[1:]]
    return sorted(range(len(documents)), key=lambda index: (-scores[index], -index))


@pytest.mark.parametrize(
    ("retriever", "rank"), [("bm25", rank_by_bm25), ("dense", rank_by_vectors)]
)
@pytest.mark.parametrize("name", ["locomo", "prefeval"])
def test_recall_equals_an_independent_computation(name: str, retriever: str, rank: Any) -> None:
    task = registry.load_class("task", name)()
    samples = list(task.open(task.default_split, None).samples())
    # Adversarial questions of LoCoMo are no part of its primary metric.
    counted = [sample for sample in samples if sample.hidden.get("category") != "5"]
    scores = check(task, retriever)
    for k in CUTOFFS:
        recalls, tokens = [], 0
        for sample in counted:
            documents = [task.document_text(record) for record in sample.history]
            top = [sample.history[index] for index in rank(sample.stimulus, documents)[:k]]
            found = {record.id for record in top}.intersection(sample.evidence)
            recalls.append(len(found) / len(sample.evidence))
            tokens += sum(EstimatedTokens().count(task.describe(record)) for record in top)
        score = scores[retriever, k]
        assert score.n == len(counted)
        assert score.metrics["evidence-recall"] == pytest.approx(sum(recalls) / len(recalls))
        assert score.tokens == pytest.approx(tokens / len(counted))


def test_metrics_of_a_tasks_own_are_reported() -> None:
    scores = check(registry.load_class("task", "longmemeval")(), "bm25", "recency", "random")
    assert len(scores) == 9
    assert {"recall-any@5", "evidence-recall"} <= scores["bm25", 5].metrics.keys()
    assert all(0 <= value <= 5 for score in scores.values() for value in score.metrics.values())


def test_data_without_marks_or_dates_are_refused() -> None:
    with pytest.raises(UsageError, match="no question has evidence in its history"):
        check(registry.load_class("task", "lamp4")(), "bm25")
    with pytest.raises(UsageError, match="recency needs dated records"):
        check(registry.load_class("task", "prefeval")(), "recency")
    with pytest.raises(UsageError, match="unknown retriever"):
        check(registry.load_class("task", "prefeval")(), "magic")


def test_a_limit_takes_the_first_questions() -> None:
    score = check(registry.load_class("task", "locomo")(), "bm25", limit=4)["bm25", 1]
    assert score.n == 4 and score.no_match == 0
