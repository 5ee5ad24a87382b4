"""The audit of data: planted defects are counted with examples, and clean data has none."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_fixtures import headlines, model_server, options, text

from personabench import Record, Sample, Task, Vocabulary
from personabench.api.registry import list_entries, load_class
from personabench.api.users import open_split
from personabench.errors import PluginError
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.run import runner
from personabench.run.audit import (
    MAX_RECORDS,
    Audit,
    audit,
    audit_briefly,
    audit_in_pauses,
    to_rows,
)
from personabench.testing import check_task

USERS = 12
# A user of LaMP-6 begins every subject alike.
# Users of the pairs share prompts, responses and, without preferences of their own, histories.
BY_DESIGN = {
    "lamp6": {"near_gold_in_history"},
    "community_alignment": {"gold_of_other_user", "same_user"},
    "personalllm": {"same_user"},
    "personalllm_gen": {"same_user"},
    "prism": {"gold_of_other_user", "same_user"},
    "psoups": {"gold_of_other_user", "same_user"},
}


def make_samples(seed: int = 0) -> list[Sample]:
    """Two questions of each user, without any defect."""
    rng = random.Random(seed)
    samples = []
    for user in range(USERS):
        history = tuple(
            Record(
                f"r{user}-{number}",
                stimulus=f"{text(rng, 12)} {user} {number}",
                response=f"{text(rng, 9)} {rng.random()}",
                time=f"2020-01-{number + 1:02}",
            )
            for number in range(8)
        )
        for number in range(2):
            samples.append(
                Sample(
                    f"s{user}-{number}",
                    f"u{user}",
                    f"Write about {text(rng, 8)} {user} {number}",
                    stimulus=f"{text(rng, 8)} {user} {number} {rng.random()}",
                    history=history,
                    references=(f"{text(rng, 9)} {rng.random()}",),
                    time="2021-01-01",
                )
            )
    return samples


def open_task(samples: Iterable[Sample], **attributes: Any) -> tuple[Task, Any]:
    def load(self: Task, split: str, data: Path | None) -> Iterable[Sample]:
        return samples

    words = Vocabulary(person="reader", stimulus="book", response="review")
    members = {"__module__": __name__, "name": "given", "words": words, "load": load, **attributes}
    task: Task = type("Given", (Task,), members)()
    return task, task.open("dev", None)


def audit_samples(samples: Iterable[Sample], **attributes: Any) -> Audit:
    return audit(*open_task(samples, **attributes))


def replace(sample: Sample, **changes: Any) -> Sample:
    return msgspec.structs.replace(sample, **changes)


def test_data_without_defects_has_none() -> None:
    result = audit_samples(make_samples())
    assert result.is_clean and result.samples == result.total == 2 * USERS
    assert result.summary == "audit of all 24 questions: nothing found"
    assert {defect.name for defect in result.defects} >= {
        "gold_in_history",
        "gold_of_other_user",
        "future_record",
        "repeated_question",
        "repeated_record",
        "same_user",
    }


def reword(gold: str) -> str:
    """A text with one word of a gold changed, in the midst of others."""
    words = gold.split()
    return " ".join(["so", "here", *words[:-1], "changed", "and", "on"])


def plant_gold(samples: list[Sample], index: int, owner: int) -> list[Sample]:
    """Put the gold of a question, reworded, into a record of an owner's history."""
    record = replace_response(samples[owner].history[3], reword(samples[index].references[0]))
    for position, sample in enumerate(samples):
        if sample.user_id == samples[owner].user_id:
            history = (*sample.history[:3], record, *sample.history[4:])
            samples[position] = replace(sample, history=history)
    return samples


def replace_response(record: Record, response: str) -> Record:
    return msgspec.structs.replace(record, response=response)


def own_gold(samples: list[Sample]) -> list[Sample]:
    return plant_gold(samples, 4, 4)


def gold_of_other(samples: list[Sample]) -> list[Sample]:
    return plant_gold(samples, 4, 8)


def future(samples: list[Sample]) -> list[Sample]:
    samples[4] = replace(samples[4], time="2020-01-05")
    return samples


def repeated_question(samples: list[Sample]) -> list[Sample]:
    samples[5] = replace(samples[4], id="again")
    return samples


def repeated_record(samples: list[Sample]) -> list[Sample]:
    again = msgspec.structs.replace(samples[4].history[0], id="again")
    samples[4] = replace(samples[4], history=(again, *samples[4].history))
    return samples


def same_user(samples: list[Sample]) -> list[Sample]:
    for index in (8, 9):
        samples[index] = replace(samples[index], history=samples[4].history)
    return samples


@pytest.mark.parametrize(
    ("plant", "name", "facts"),
    [
        (own_gold, "near_gold_in_history", {"sample": "s2-0", "record": "r2-3"}),
        (gold_of_other, "gold_of_other_user", {"sample": "s2-0", "record": "r4-3"}),
        (future, "future_record", {"sample": "s2-0", "record": "r2-5"}),
        (repeated_question, "repeated_question", {"sample": "again", "other_sample": "s2-0"}),
        (repeated_record, "repeated_record", {"sample": "s2-0", "times": "2"}),
        (same_user, "same_user", {"user": "u2", "other_user": "u4"}),
    ],
)
def test_a_planted_defect_is_counted_and_named(
    plant: Callable[[list[Sample]], list[Sample]], name: str, facts: dict[str, str]
) -> None:
    result = audit_samples(plant(make_samples()))
    (defect,) = (defect for defect in result.defects if defect.count)
    assert defect.name == name
    assert any(facts.items() <= example.items() for example in defect.examples)
    assert f"{defect.count} of {defect.of} {defect.unit} {defect.what}" in result.summary


def test_labels_count_with_their_question_alone() -> None:
    samples = [
        replace(sample, references=("based on a book",), choices=("based on a book", "true story"))
        for sample in make_samples()
    ]
    record = replace_response(samples[0].history[0], "based on a book")
    samples[0] = replace(samples[0], history=(record, *samples[0].history[1:]))
    assert audit_samples(samples).is_clean

    same = msgspec.structs.replace(record, stimulus=samples[0].stimulus)
    samples[0] = replace(samples[0], history=(same, *samples[0].history[1:]))
    assert audit_samples(samples).count("gold_in_history") == 1


def test_golds_too_short_to_search_for_are_not_called_searched() -> None:
    samples = make_samples()
    # Two golds that may repeat by chance, the first beside a record with the same two words.
    for index in (0, 1):
        samples[index] = replace(samples[index], references=("Bridge, again",))
    record = replace_response(samples[0].history[0], "Bridge, again")
    samples[0] = replace(samples[0], history=(record, *samples[0].history[1:]))
    result = audit_samples(samples)
    (own_gold,) = (defect for defect in result.defects if defect.name == "gold_in_history")
    assert (own_gold.count, own_gold.of) == (0, 22)
    assert result.counts[0].startswith("2 of 24 golds have fewer than five words")
    # The question itself with its short gold is found, and then it was looked for.
    same = msgspec.structs.replace(record, stimulus=samples[0].stimulus)
    samples[0] = replace(samples[0], history=(same, *samples[0].history[1:]))
    (own_gold, *_) = audit_samples(samples).defects
    assert (own_gold.count, own_gold.of) == (1, 23)


@pytest.mark.parametrize("rule", ["longest_option", "shortest_option", "option_2", ""])
def test_options_that_a_rule_guesses(rule: str) -> None:
    rng = random.Random(1)
    samples = []
    for number in range(120):
        offered = [f"{text(rng, rng.randint(3, 9))} {number} {letter}" for letter in "abcd"]
        guesses = {
            "longest_option": max(offered, key=len),
            "shortest_option": min(offered, key=len),
            "option_2": offered[1],
        }
        gold = guesses.get(rule, "") if number % 2 else rng.choice(offered)
        samples.append(
            Sample(
                f"s{number}",
                f"u{number}",
                f"Which? {number}",
                references=(gold or rng.choice(offered),),
                choices=tuple(offered),
            )
        )
    result = audit_samples(samples)
    assert {defect.name for defect in result.defects if defect.count} == ({rule} if rule else set())


@pytest.mark.parametrize("name", sorted(list_entries("task")))
def test_the_example_data_is_clean(name: str) -> None:
    task = load_class("task", name)()
    result = audit(task, open_split(task, task.default_split, None))
    defects = {defect.name for defect in result.defects if defect.count}
    assert defects == BY_DESIGN.get(name, set()), to_rows(result)


def test_time_grows_with_the_data_and_not_with_its_square(tmp_path: Path) -> None:
    def seconds(users: int) -> float:
        data = headlines(tmp_path / str(users), users, records=20)
        task = load_class("task", "lamp4")()
        dataset = open_split(task, "user/dev", data)
        started = time.process_time()
        audit(task, dataset)
        return time.process_time() - started

    # The square would be 64 times as much.
    assert seconds(800) < 25 * max(seconds(100), 0.02)


def test_the_audit_of_a_run_reads_a_bounded_part_and_says_so(tmp_path: Path) -> None:
    data = headlines(tmp_path / "d", 300, records=100)
    task = load_class("task", "lamp4")()
    result = audit(task, open_split(task, "user/dev", data), MAX_RECORDS)
    assert MAX_RECORDS - 300 < result.records <= MAX_RECORDS + 100
    assert 0 < result.samples < 300
    assert f"audit of {result.samples} of 300 questions: " in result.summary


async def test_an_audit_in_pauses_is_the_same_and_lets_others_work(tmp_path: Path) -> None:
    task = load_class("task", "lamp4")()
    dataset = open_split(task, "user/dev", headlines(tmp_path / "d", 200, records=10))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await audit_in_pauses(task, dataset)
    counting.cancel()
    assert turns > 3
    paused, whole = audit_briefly(task, dataset), audit(task, dataset, MAX_RECORDS)
    assert paused is not None and paused is audit_briefly(task, dataset)
    assert to_rows(paused) | {"seconds": 0} == to_rows(whole) | {"seconds": 0}


async def test_code_that_fails_under_the_audit_ends_a_command_and_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, sample: Sample) -> Any:
        raise PluginError("no options")

    monkeypatch.setattr(load_class("task", "lamp4"), "options", fail)
    # Audits are kept by their data, so that no other test may have made this one.
    data = headlines(tmp_path / "d", 9)
    with model_server(0.01) as server:
        chosen = options(
            tmp_path / "r",
            data=data,
            backend="openai",
            backend_options=BackendOptions(model="tiny", base_url=server.url),
        )
        with pytest.raises(PluginError, match="no options"):
            await runner.run(chosen)
        assert not server.asked, "the server answers no sample"
    assert not list((tmp_path / "r").rglob("spec.json"))


async def test_a_run_keeps_the_audit_of_data_that_is_no_example(tmp_path: Path) -> None:
    chosen = options(tmp_path / "r", data=headlines(tmp_path / "clean", 8))
    (outcome,) = await runner.run(chosen, backend=Scripted())
    assert outcome.summary.audit == "audit of all 8 questions: nothing found"
    assert not outcome.summary.warnings

    (outcome,) = await runner.run(options(tmp_path / "r", limit=1), backend=Scripted())
    assert outcome.summary.audit is None


def test_check_task_fails_on_golds_in_their_own_history() -> None:
    samples = make_samples()
    for index, sample in enumerate(samples):
        gold = replace_response(sample.history[0], sample.references[0])
        samples[index] = replace(sample, history=(gold, *sample.history[1:]))
    task, _ = open_task(samples)
    results = {finding.what: finding for finding in check_task(task)}
    finding = results["no gold is in its own history"]
    assert finding.holds is False and finding.detail.endswith("and 21 more")
