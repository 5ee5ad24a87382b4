"""The time that is left of a command, and what it has to do before it begins."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from engine_fixtures import options

from personabench.models.budget import Budget
from personabench.models.traffic import PhaseTraffic, Traffic
from personabench.run import runner
from personabench.run.openings import Openings
from personabench.run.outline import FillerEmbedders, outline
from personabench.run.pace import Pace, estimate_seconds, measure_pace
from personabench.run.plan import plan
from personabench.run.progress import CommandProgress, Expectation, Progress, RunProgress
from personabench.run.session import Session, identified_models


def in_progress(
    seconds: float, done: int, expectation: Expectation | None, **calls: PhaseTraffic
) -> RunProgress:
    traffic = Traffic(by_phase=calls)  # type: ignore[arg-type]
    progress = Progress(total=36, done=done)
    return RunProgress("dpl on lamp4", 36, 36, expectation, progress, traffic, seconds)


def test_profiling_of_users_to_come_is_part_of_the_time_left() -> None:
    expectation = Expectation({"profile": 100, "predict": 36}, {"profile": 512, "predict": 32}, 36)
    run = in_progress(
        100.0, 1, expectation, profile=PhaseTraffic(10, 95.0), predict=PhaseTraffic(1, 0.5)
    )
    # 90 profile calls of 9.5 s and 35 answers of 0.5 s, as 95.5 s of calls take 100 s.
    left = CommandProgress([[run]]).remaining()
    assert left == pytest.approx((90 * 9.5 + 35 * 0.5) * 100 / 95.5)
    assert left is not None and left < 100.0 / 1 * 35, "the samples alone would say an hour"


def test_a_phase_without_a_call_takes_as_long_as_its_replies_may_be() -> None:
    expectation = Expectation({"predict": 10}, {"predict": 32}, 10)
    done = in_progress(20.0, 36, None, profile=PhaseTraffic(10, 20.0, 5120))
    done.has_ended = True
    ahead = RunProgress("rag on lamp4", 10, 10, expectation)
    left = CommandProgress([[done, ahead]]).remaining()
    assert left == pytest.approx(10 * 2.0 * 32 / 512)


def test_calls_and_seconds_of_models_that_take_no_time_are_counted() -> None:
    run = in_progress(9.0, 9, None, predict=PhaseTraffic(9, 0.0, 32))
    assert CommandProgress([[run]]).remaining() == pytest.approx(27.0)
    rule = in_progress(9.0, 9, None)
    assert CommandProgress([[rule]]).remaining() == pytest.approx(27.0)
    assert CommandProgress([[RunProgress("rag on lamp4", 5, 5)]]).remaining() is None


def test_one_total_for_all_runs_and_what_is_ahead() -> None:
    first, second = in_progress(9.0, 9, None), RunProgress("rag on lamp4", 36, 20)
    command = CommandProgress([[first], [second]])
    assert (command.total, command.completed, command.ahead) == (72, 9 + 16, 20)
    assert first.progress is not None and command.place(first.progress) == (1, 2)
    first.has_ended = True
    assert command.ahead == 20
    with first.timed():
        time.sleep(0.01)
    assert first.seconds > 9.0


def test_a_run_whose_calls_nobody_knows_gives_a_lower_bound() -> None:
    run = in_progress(9.0, 0, None, profile=PhaseTraffic(9, 9.0, 900))
    run.is_simple = False
    command = CommandProgress([[run]])
    assert command.is_open and command.remaining() == pytest.approx(36.0)
    assert run.progress is not None
    run.progress.done = 3
    assert not command.is_open


def test_a_dry_run_that_takes_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("personabench.run.outline._SECONDS", 0.0)
    (summary,) = outline_of(tmp_path / "results", "summary").groups[0]
    assert summary.expectation is None and summary.is_open


def outline_of(results: Path, methods: str, task: str = "lamp4") -> CommandProgress:
    chosen = options(results, methods, task, draw=0)
    seeds = (chosen, dataclasses.replace(chosen, seed=1))

    async def make() -> CommandProgress:
        command = CommandProgress()
        async with AsyncExitStack() as stack:
            model, _ = await stack.enter_async_context(identified_models(chosen))
            openings = Openings(chosen, Budget({}))
            session = Session(model, None, FillerEmbedders(), Budget({}), openings)
            jobs = runner.resolve(chosen, model, {})
            await outline(command, 0, seeds, jobs, session, lambda later: [])
        return command

    return asyncio.run(make())


def test_expected_calls_are_those_of_a_plan_of_all_users(tmp_path: Path) -> None:
    command = outline_of(tmp_path / "results", "none,summary")
    (none, summary), (_, later) = command.groups
    assert none.expectation is None, "samples say enough of a method without profiles"
    size = none.total
    assert (none.pending, summary.pending, later.pending) == (size, size, size)
    assert summary.expectation is not None
    (plan_of_all,) = asyncio.run(plan(options(tmp_path / "results", "summary")))
    assert summary.expectation.calls == plan_of_all.calls
    assert summary.expectation.allowance["profile"] > summary.expectation.allowance["predict"]
    # Of a further seed, greedy calls are stored by then.
    assert later.remaining_calls() == {}
    assert not (tmp_path / "results").exists(), "nothing is written before a run begins"


def test_an_interrupted_command_counts_the_runs_that_it_kept_from_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(self: object, owed: object) -> bool:
        return False

    monkeypatch.setattr("personabench.run.engine.Engine.run", interrupted)
    chosen = options(tmp_path / "results", "none,rag", "lamp4", draw=0)
    further = dataclasses.replace(chosen, seed=1)
    (outcome,) = asyncio.run(runner.run(chosen, further))
    assert outcome.interrupted and outcome.summary.owed > 0
    assert outcome.ahead == 3 * outcome.summary.owed


def test_a_plan_is_timed_by_earlier_runs_of_its_model(tmp_path: Path) -> None:
    chosen = options(tmp_path / "results", "summary", "lamp4")
    (outcome,) = asyncio.run(runner.run(chosen))
    pace = measure_pace([outcome.summary], "scripted", 4)
    assert pace is not None and pace.runs == 1
    assert pace.calls == {name: phase.calls for name, phase in outcome.summary.usage.items()}
    assert measure_pace([outcome.summary], "another", 4) is None

    pace = Pace({"profile": 10, "predict": 100}, {"profile": 50.0, "predict": 50.0}, 2.0, 1)
    row = {"calls_by_phase": {"profile": 2, "predict": 8}, "to_pay": 10, "to_pay_at_most": 20}
    assert estimate_seconds(row, pace) == {"seconds": 7.0, "seconds_at_most": 14.0}
    assert estimate_seconds(row, None) == {"seconds": None, "seconds_at_most": None}
