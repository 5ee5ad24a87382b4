"""Goldens on parts of the published files, computed independently; skipped without the files.

`PERSONABENCH_PARTS` names a folder with `locomo` (the first three conversations), `prefeval` (four
topics), `personabench_private` (one community), `personamem_32k` (whole) and `usafebench` (a third
of the instructions).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from personabench.api import registry
from personabench.api.dataset import Dataset
from personabench.api.task import Task
from personabench.run.retrieval_check import RetrievalOptions, check_retrieval
from personabench.testing import trial
from personabench.types import Sample

PARTS = Path(os.environ.get("PERSONABENCH_PARTS", ""))
pytestmark = pytest.mark.skipif(
    "PERSONABENCH_PARTS" not in os.environ, reason="PERSONABENCH_PARTS names no folder"
)
CUTOFFS = (1, 5, 10, 25)


def open_part(name: str, folder: str, **params: Any) -> tuple[Task, Dataset]:
    cls = registry.load_class("task", name)
    task: Task = cls(cls.Params(**params))
    return task, task.open(task.default_split, PARTS / folder)


def score(task: Task, samples: list[Sample], answers: list[str]) -> dict[str, float]:
    """The metrics of some answers."""
    import numpy as np

    columns: dict[str, list[Any]] = {}
    for sample, answer in zip(samples, answers, strict=True):
        for name, value in task.measure(task.parse(answer, sample, "official"), sample).items():
            columns.setdefault(name, []).append(value)
    return {
        metric.name: float(metric.aggregate(np.array(columns[metric.name], dtype=float)))
        for metric in task.metrics
        if metric.name in columns
    }


def check_search(task: Task, dataset: Dataset, cutoffs: tuple[int, ...]) -> list[Any]:
    return asyncio.run(check_retrieval(task, dataset, RetrievalOptions(("bm25",), cutoffs)))


def test_locomo_has_its_questions_and_the_official_scores_of_echo_and_abstention() -> None:
    task, dataset = open_part("locomo", "locomo")
    samples = list(dataset.samples())
    categories = Counter(sample.hidden["category"] for sample in samples)
    assert [categories[str(number)] for number in range(1, 6)] == [74, 90, 21, 200, 112]
    echo = score(task, samples, [sample.references[0] for sample in samples])
    assert echo["f1"] == pytest.approx(0.9921, abs=5e-5)
    assert echo["f1-open-domain"] == pytest.approx(0.8559, abs=5e-5)
    for name in ("f1-multi-hop", "f1-temporal", "f1-single-hop"):
        assert echo[name] == 1.0
    constant = score(task, samples, ["Not mentioned in the conversation"] * len(samples))
    assert constant["f1"] == pytest.approx(0.0080, abs=5e-5) and constant["adversarial"] == 1.0
    assert score(task, samples, [""] * len(samples))["f1"] == 0.0


@pytest.mark.parametrize(
    ("unit", "tokenizer", "recalls"),
    [
        ("turn", "whitespace", (0.1419, 0.3138, 0.4009, 0.4947)),
        ("turn", "words", (0.2365, 0.4290, 0.5063, 0.6254)),
        ("session", "whitespace", (0.4204, 0.6910, 0.8251, 0.9678)),
        ("session", "words", (0.5453, 0.8106, 0.8933, 0.9854)),
    ],
)
def test_locomo_evidence_is_retrieved_as_often_as_computed_independently(
    unit: str, tokenizer: str, recalls: tuple[float, ...]
) -> None:
    task, dataset = open_part("locomo", "locomo", unit=unit)
    task.tokenizer = tokenizer
    scores = check_search(task, dataset, CUTOFFS)
    assert [s.metrics["evidence-recall"] for s in scores] == pytest.approx(recalls, abs=5e-5)
    # Two questions of categories 1 to 4 have no evidence.
    assert scores[0].n == 74 + 90 + 21 + 200 - 2


@pytest.mark.parametrize(
    ("noise", "tokenizer", "recall", "ndcg"),
    [
        ("0.0", "whitespace", 0.1879, 0.1759),
        ("0.0", "words", 0.2264, 0.1848),
        ("0.5", "whitespace", 0.1842, 0.1463),
        ("0.5", "words", 0.1990, 0.1670),
    ],
)
def test_private_documents_are_retrieved_as_often_as_computed_independently(
    noise: str, tokenizer: str, recall: float, ndcg: float
) -> None:
    options = {"noise": noise, "documents": "official"}
    task, dataset = open_part("personabench_qa", "personabench_private", **options)
    task.tokenizer = tokenizer
    (scores,) = check_search(task, dataset, (5,))
    assert scores.metrics["retrieval-recall"] == pytest.approx(recall, abs=5e-5)
    assert scores.metrics["retrieval-ndcg"] == pytest.approx(ndcg, abs=5e-5)


def test_private_questions_have_their_categories_and_scores() -> None:
    task, dataset = open_part("personabench_qa", "personabench_private")
    samples = list(dataset.samples())
    categories = Counter(sample.hidden["category"] for sample in samples)
    assert [*categories.values()].count(26) == 2 and categories["basic"] == 57
    assert categories["preference-easy"] == 7 and len(samples) == 116
    assert score(task, samples, [s.references[0] for s in samples])["f1"] == 1.0
    echo = score(task, samples, [sample.input for sample in samples])
    assert echo["f1"] == pytest.approx(0.0101, abs=5e-5)


def test_prefeval_leaks_by_length_as_computed_independently() -> None:
    _, dataset = open_part("prefeval", "prefeval")
    samples = list(dataset.samples())
    assert len(samples) == 198
    longest = split = shortest = 0.0
    for sample in samples:
        lengths = [len(choice) for choice in sample.choices]
        gold = len(sample.references[0])
        longest += gold == max(lengths) and lengths.count(gold) == 1
        split += (gold == max(lengths)) / lengths.count(max(lengths))
        shortest += gold == min(lengths) and lengths.count(gold) == 1
    assert longest / 198 == pytest.approx(0.3838, abs=5e-5)
    assert split / 198 == pytest.approx(0.4066, abs=5e-5)
    assert shortest / 198 == pytest.approx(0.1667, abs=5e-5)


@pytest.mark.parametrize(
    ("method", "least", "most"),
    # Unique alone, and with ties for the right option: those of the harness lie in between.
    [("longest_option", 0.3838, 0.4293), ("shortest_option", 0.1667, 0.1768)],
)
def test_rules_on_prefeval_lie_between_the_treatments_of_ties(
    method: str, least: float, most: float
) -> None:
    task, dataset = open_part("prefeval", "prefeval")
    result = trial(method, task, dataset=dataset)
    assert result.summary is not None
    assert least <= result.summary.metrics["official"]["accuracy"] <= most


@pytest.mark.parametrize(("noise", "sessions"), [("0.0", {110, 90, 64}), ("0.5", {220, 180, 128})])
def test_people_have_their_documents(noise: str, sessions: set[int]) -> None:
    task, dataset = open_part("personabench_qa", "personabench_private", noise=noise)
    assert {len(sample.history) for sample in dataset.samples()} == sessions
    assert all(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d", record.time or "")
        for sample in dataset.samples()
        for record in sample.history
    )
    assert task.counts(dataset)[1] == (  # type: ignore[attr-defined]
        "15 questions have an outdated value, 1 a number as their answer and 7 an object"
    )


@pytest.mark.parametrize(
    ("method", "accuracy"),
    [
        ("longest_option", 0.516),
        ("shortest_option", 0.234),
        ("majority_letter", 0.268),
        ("type_length", 0.672),
    ],
)
def test_rules_on_personamem_32k(method: str, accuracy: float) -> None:
    task, dataset = open_part("personamem", "personamem_32k")
    result = trial(method, task, dataset=dataset)
    assert result.summary is not None
    metrics = result.summary.metrics["official"]
    assert metrics["accuracy"] == pytest.approx(accuracy, abs=5e-4)


def test_usafebench_rewards_no_policy_that_ignores_the_user() -> None:
    import numpy as np

    from personabench.tasks.usafebench import scoring

    _, dataset = open_part("usafebench", "usafebench")
    samples = list(dataset.samples())
    parts = Counter(sample.hidden["part"] for sample in samples)
    assert parts == {"safety": 661, "help": 155, "twin": 155}
    shared = {sample.item for sample in samples if sample.hidden["shared"] == "yes"}
    assert len(shared) == 58
    assert not [s for s in samples if s.hidden["part"] == "twin" and s.item in shared]

    for refuses in (
        lambda sample: True,
        lambda sample: False,
        lambda sample: sample.attributes["domain"] == "autonomous",
        lambda sample: sample.item in shared,
    ):
        rows = np.array(
            [scoring.make_row(s.hidden, not refuses(s), scoring.JUDGED) for s in samples]
        )
        assert scoring.paired(rows) == pytest.approx(0.5)
        assert scoring.gain(rows) == pytest.approx(0)
