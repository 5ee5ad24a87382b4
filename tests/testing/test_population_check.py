"""Histories that answer the earlier questions of their user are found in the population."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from toy_methods import Toy

from personabench import Dataset, Record, Sample
from personabench.api import registry
from personabench.testing.checks import check_task
from personabench.testing.population_check import find_answered_samples

CHECK = "no other history of the user answers a question"


class Growing(Dataset):
    """One user whose answers become records, or do not."""

    separation, split, sample = "time", "dev", True
    hash, source = "growing", "toy data"

    def __init__(self, keeps_answers: bool) -> None:
        self.keeps_answers = keeps_answers

    def index(self) -> Sequence[tuple[str, str]]:
        return [(f"day{number}", "ann") for number in range(3)]

    def load(self, position: int) -> Sample:
        days = range(position) if self.keeps_answers else range(10, 10 + position)
        history = tuple(Record(f"r{day}", f"Day {day}!", f"answer {day}") for day in days)
        reference = f"answer {position}"
        return Sample(
            f"day{position}",
            "ann",
            "Say it.",
            stimulus=f"day {position}",
            history=history,
            references=(reference,),
        )


def test_a_later_history_may_answer_an_earlier_question() -> None:
    assert find_answered_samples(Growing(keeps_answers=True)) == ["day0", "day1"]
    assert find_answered_samples(Growing(keeps_answers=False)) == []


def test_check_task_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Growing(keeps_answers=True)
    monkeypatch.setattr(Toy, "open", lambda self, split, folder: data)
    findings = {finding.what: finding for finding in check_task(Toy(), "dev", None)}
    assert (findings[CHECK].holds, findings[CHECK].detail) == (False, "day0, day1")

    monkeypatch.setattr(Toy, "offers", ("history",))
    assert CHECK not in {finding.what for finding in check_task(Toy(), "dev", None)}


@pytest.mark.parametrize("task", ["lamp3", "lamp4", "personamem", "reviews", "prefdisco_warm"])
def test_built_in_tasks_hold(task: str) -> None:
    opened = registry.load_class("task", task)()
    assert find_answered_samples(opened.open(opened.default_split, None)) == []
