"""The example data tell methods apart: enough users, and no rule that comes near a good score."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from personabench import Method, Sample, Task
from personabench.api import registry
from personabench.api.compatibility import explain_misfit
from personabench.api.dataset import Dataset
from personabench.api.users import open_split
from personabench.tasks import lamp, personamem, reviews
from personabench.testing import trial

BOUND = 1 / 3
"""The share of the way from guessing to a perfect score that a rule may come."""
USERS = 12
"""The fewest users of a task's example data."""
# A trajectory of PRELUDE is one simulated user of the published protocol, which has three.
TRAJECTORIES = ("prelude_email", "prelude_summ")
# PLUME's has five.
WRITERS = ("plume_email", "plume_summ")
FEWER_USERS = {
    **dict.fromkeys(TRAJECTORIES, 3),
    **dict.fromkeys(WRITERS, 5),
    **dict.fromkeys(("personamem_v2", "personamem_v2_gen"), 4),
}
# A model plays a role in their scores, so that a rule has none of its own.
SCORED_BY_MODELS = (
    "aloe",
    "lampqa",
    "longmemeval",
    "bespoke",
    "personafeedback_gen",
    "personamem_v2_gen",
    "prefdisco",
    "prefdisco_warm",
    "personamem_v2_gen",
    "prefeval_gen",
    "penguin",
    "usafebench",
    *TRAJECTORIES,
    *WRITERS,
)
TASKS = tuple(registry.list_entries("task"))
# The others take seconds each.
FAST = ("lamp1", "lamp3", "lamp4")
SCORED = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.variants)
    for name in TASKS
    if name not in SCORED_BY_MODELS
]
# The characters of a token in English prose, roughly.
CHARACTERS = 4.5


def open_example(name: str) -> tuple[Task, Dataset]:
    task: Task = registry.load_class("task", name)()
    return task, open_split(task, task.default_split, None)


def find_rules(task: Task, dataset: Dataset) -> Iterator[Method]:
    for name, entry in registry.list_entries("method").items():
        # Others may need a package that is not installed.
        if not entry.facts.get("rule"):
            continue
        method: Method = registry.load_class("method", name)()
        # The right answers in disguise are no rule.
        if method.rule and name != "oracle" and not explain_misfit(method, task, dataset):
            yield method


def find_progress(score: float, task: Task, samples: list[Sample]) -> float:
    """How far a score is from guessing (0) to perfection (1)."""
    if task.kind == "text" and not samples[0].choices:
        return score
    if task.kind == "ordinal":
        errors = [
            sum(abs(float(choice) - float(sample.references[0])) for choice in sample.choices)
            / len(sample.choices)
            for sample in samples
        ]
        return 1 - score / (sum(errors) / len(errors))
    chance = sum(1 / len(sample.choices) for sample in samples) / len(samples)
    return (score - chance) / (1 - chance)


@pytest.mark.parametrize("name", SCORED)
def test_no_rule_comes_near_a_good_score(name: str) -> None:
    task, dataset = open_example(name)
    samples = [dataset.load(position) for position in range(len(dataset.index()))]
    progress = {}
    for method in find_rules(task, dataset):
        summary = trial(method, name).summary
        assert summary is not None
        score = summary.metrics["official"][summary.primary]
        progress[method.name] = find_progress(score, task, samples)
    assert len(progress) > 2
    assert max(progress.values()) <= BOUND, progress


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_dozen_users(name: str) -> None:
    _, dataset = open_example(name)
    users = {user for _, user in dataset.index()}
    assert len(users) >= FEWER_USERS.get(name, USERS)


def example_folder(module: object) -> Path:
    return Path(inspect.getfile(module)).parent / "sample"  # type: ignore[arg-type]


def test_no_headline_is_written_twice_for_one_article() -> None:
    questions = json.loads((example_folder(lamp) / "lamp4" / "dev_questions.json").read_text())
    histories = {question["user_id"]: question["profile"] for question in questions}
    texts = [record["text"] for history in histories.values() for record in history]
    texts += [question["input"].partition(": ")[2] for question in questions]
    assert len(texts) == len(set(texts)) > 250


def test_one_conversation_of_personamem_is_as_long_as_the_published_ones() -> None:
    path = example_folder(personamem) / "shared_contexts_32k.jsonl"
    conversations = [
        messages for line in path.read_text().splitlines() for messages in json.loads(line).values()
    ]
    lengths = [sum(len(message["content"]) for message in each) for each in conversations]
    assert max(lengths) / CHARACTERS > 32_000
    assert path.stat().st_size < 300_000


def test_one_product_is_reviewed_last_by_several_users() -> None:
    path = example_folder(reviews) / "DPL-main" / "House_and_Hills" / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    items = Counter(row["data"]["asin"] for row in rows)
    assert max(items.values()) >= 4
