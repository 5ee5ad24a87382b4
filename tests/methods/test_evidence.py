"""The evidence oracle shows the marked records, no method sees the marks, and tables say so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from personabench import Context, Method, Sample
from personabench.api import registry
from personabench.leaderboard.board import boards
from personabench.results.index import read_runs
from personabench.run import runner
from personabench.run.controls import apply_control
from personabench.run.options import Options
from personabench.testing import trial

TASKS = ("locomo", "longmemeval", "personabench_qa", "personamem_v2", "prefeval", "restraint")


class Spy(Method):
    """A method that keeps what it sees."""

    name = "spy"
    seen: list[Sample] = []

    async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
        self.seen.append(sample)
        return await ctx.answer(sample)


@pytest.mark.parametrize("name", TASKS)
def test_the_marked_records_are_shown_each_once_and_no_others(name: str) -> None:
    task = registry.load_class("task", name)()
    roles = dict.fromkeys(task.roles, lambda request: "no")
    result = trial("evidence", task, roles=roles)
    samples = {sample.id: sample for sample in task.open(task.default_split, None).samples()}
    for line in result.predictions:
        sample = samples[line.sample_id]
        marked = [record.id for record in sample.history if record.id in sample.evidence]
        assert sorted(line.shown or ()) == sorted(marked)
        assert ("no_evidence" in line.flags) == (not sample.evidence)
    summary = result.summary
    assert summary is not None
    assert summary.metrics["official"]["evidence-recall"] == 1.0


def test_no_method_sees_the_marks() -> None:
    Spy.seen = []
    trial(Spy(), "locomo", limit=3)
    assert Spy.seen and not any(sample.evidence or sample.hidden for sample in Spy.seen)
    sample = registry.load_class("task", "locomo")().open("all", None).load(0)
    assert sample.view().evidence == () and sample.view(privileged=True).evidence
    assert sample.view(privileged=True).references == ()


def test_a_table_calls_the_row_an_oracle(tmp_path: Path) -> None:
    methods = ["none", "evidence"]
    options = Options(methods, ["locomo"], backend="scripted", limit=3, results=tmp_path)
    outcomes = asyncio.run(runner.run(options))
    (board,) = boards(read_runs(tmp_path))
    assert len(outcomes) == len(board.rows) == 2
    assert "Oracle, sees what a method must not: evidence." in board.notes


def test_evidence_that_a_control_hides_is_counted() -> None:
    task = registry.load_class("task", "prefeval")()
    dataset = apply_control(task.open("all", None), "size=2", 0)
    result = trial("evidence", task, dataset=dataset, limit=2)
    assert all(line.flags["evidence_missing"] == 1 for line in result.predictions)
    assert not any(line.shown for line in result.predictions)
