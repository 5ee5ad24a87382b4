"""Scores that are computed while a run waits for further answers."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import Jittery, headlines, options

from personabench.api import registry
from personabench.api.dataset import Dataset
from personabench.errors import PluginError
from personabench.run import early_scores, runner
from personabench.run.early_scores import EarlyScores
from personabench.run.session import identified_models
from personabench.types import Prediction, Sample, Usage

USERS = 30


@pytest.fixture
def chosen(tmp_path: Path) -> runner.Options:
    data = headlines(tmp_path / "data", USERS)
    return options(tmp_path / "results", "none", "lamp4", data=data, concurrency=4)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The moments at which answers were measured."""
    task = registry.load_class("task", "lamp4")
    measure = task.measure
    moments: list[float] = []

    def note(self: Any, parsed: str | None, sample: Sample) -> Any:
        moments.append(time.monotonic())
        return measure(self, parsed, sample)

    monkeypatch.setattr(task, "measure", note)
    return moments


class Timed(Jittery):
    """Answers in ten milliseconds, and knows when it answered last."""

    last = 0.0

    async def complete(self, request: Any, group: str) -> Any:
        await asyncio.sleep(0.01)
        self.last = time.monotonic()
        return await super().complete(request, group)


def test_answers_are_scored_while_others_are_awaited(
    chosen: runner.Options, measured: list[float]
) -> None:
    backend = Timed()
    (outcome,) = asyncio.run(runner.run(chosen, backend=backend))
    assert outcome.summary.n == len(measured) == USERS, "each answer is measured once"
    early = sum(moment < backend.last for moment in measured)
    assert early >= USERS - 2 * chosen.concurrency


def test_early_scores_equal_those_of_answers_on_disk(
    chosen: runner.Options, measured: list[float]
) -> None:
    def read(folder: Path) -> tuple[bytes, dict[str, Any]]:
        summary = json.loads((folder / "summary.json").read_text())
        varying = ("time", "sha256")
        facts = {name: value for name, value in summary.items() if name not in varying}
        return (folder / "scores.jsonl").read_bytes(), facts

    (outcome,) = asyncio.run(runner.run(chosen, backend=Jittery()))
    early = read(outcome.folder)
    measured.clear()
    (again,) = asyncio.run(runner.run(chosen, backend=Jittery()))
    assert again.folder == outcome.folder and len(measured) == USERS
    assert read(again.folder) == early


def test_a_slow_metric_does_not_hold_up_the_calls(
    chosen: runner.Options, measured: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_scores, "_SLOW", 0.0)
    monkeypatch.setattr(early_scores, "_SLOW_SHARE", 0.0)
    monkeypatch.setattr(early_scores, "_ALWAYS", 0.0)
    backend = Timed()
    (outcome,) = asyncio.run(runner.run(chosen, backend=backend))
    assert outcome.summary.n == len(measured) == USERS
    assert sum(moment < backend.last for moment in measured) <= 2


def test_the_first_answer_may_take_long_and_holds_up_nothing(
    chosen: runner.Options, measured: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = registry.load_class("task", "lamp4")
    measure = task.measure

    def load_first(self: Any, parsed: str | None, sample: Sample) -> Any:
        if not measured:
            time.sleep(0.6)
        return measure(self, parsed, sample)

    monkeypatch.setattr(task, "measure", load_first)
    backend = Timed()
    (outcome,) = asyncio.run(runner.run(chosen, backend=backend))
    assert outcome.summary.n == len(measured) == USERS
    assert backend.last < measured[0], "all answers came while the first one was measured"


async def test_trajectories_are_scored_after_the_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early: list[int] = []
    monkeypatch.setattr(EarlyScores, "score", lambda self, position, *_: early.append(position))
    (outcome,) = await runner.run(options(tmp_path, "none", "prelude_summ", limit=1))
    assert outcome.summary.n and not early


def test_a_measure_that_fails_is_reported_when_all_answers_are_on_disk(
    chosen: runner.Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, parsed: str | None, sample: Sample) -> Any:
        raise ZeroDivisionError("no words")

    monkeypatch.setattr(registry.load_class("task", "lamp4"), "measure", fail)
    backend = Jittery()
    with pytest.raises(PluginError, match="no words"):
        asyncio.run(runner.run(chosen, backend=backend))
    assert backend.asked.total() == USERS


def test_the_score_so_far_is_that_of_the_official_scorer(tmp_path: Path) -> None:
    chosen = options(tmp_path / "results", "none", "lamp3")

    async def resolve() -> runner.ResolvedRun:
        async with identified_models(chosen) as (model, _):
            (job,) = runner.resolve(chosen, model, {})
            return job

    job = asyncio.run(resolve())
    score = EarlyScores(job.task)
    assert score.describe() == ""
    for position in (0, 1):
        sample: Sample = job.dataset.load(position)
        answer = str(int(sample.references[0]) % 5 + 1)
        score.score(position, sample, prediction(job.dataset, position, answer))
    off_by_one, *_ = score.describe().split(" of ")
    assert score.describe().endswith("of 2 samples") and off_by_one.startswith("MAE ")
    assert float(off_by_one.removeprefix("MAE ")) >= 1.0


def prediction(dataset: Dataset, position: int, output: str) -> Prediction:
    sample_id, user_id = dataset.index()[position]
    return Prediction(sample_id, user_id, output, output, {}, (), Usage())
