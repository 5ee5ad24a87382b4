"""Judged tasks: who is asked, what is kept, and what a judge cannot say."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from toy_methods import TOY

from personabench.errors import BackendError
from personabench.leaderboard import boards
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.results.index import Run
from personabench.run.options import Options
from personabench.run.plan import plan
from personabench.run.runner import Outcome, run
from personabench.types import Request, Response


def judged(
    place: Path, mark: str = "3", model: str = "judge", task: str = "Judged", **changes: Any
) -> Any:
    """A run of a judged toy task: its outcome, the model under test and the judge."""
    options = {"backend": "scripted", "results": place, **changes}
    under, judge = Scripted(), Scripted(BackendOptions(model=model), answer=lambda request: mark)
    wanted = Options([f"{TOY}Plain"], [f"{TOY}{task}"], **options)
    (outcome,) = asyncio.run(run(wanted, backend=under, roles={"judge": judge}))
    return outcome, under, judge


def test_judging_is_paid_once_and_another_judge_judges_anew(tmp_path: Path) -> None:
    first, under, judge = judged(tmp_path)
    assert first.summary.metrics["official"]["mark"] == 3.0 and first.summary.n == 12
    assert (len(under.requests), len(judge.requests)) == (12, 12)
    assert first.summary.usage["judge"].calls == 12 and first.summary.warnings == []
    again, under, judge = judged(tmp_path)
    assert (len(under.requests), len(judge.requests)) == (0, 0)
    assert again.summary.metrics == first.summary.metrics

    other, under, judge = judged(tmp_path, "5", "stern")
    assert other.folder == first.folder and (len(under.requests), len(judge.requests)) == (0, 12)
    assert other.summary.metrics["official"]["mark"] == 5.0
    assert other.summary.judge != first.summary.judge
    assert other.summary.roles["judge"].model == "stern"
    assert len(list((first.folder / "judgements").iterdir())) == 2

    strict, under, judge = judged(tmp_path, "2", assignments=["task.strict=true"])
    assert strict.folder == first.folder and (len(under.requests), len(judge.requests)) == (0, 12)


def test_a_refresh_judges_anew_and_goes_on_where_the_judge_failed(tmp_path: Path) -> None:
    first = judged(tmp_path)[0]
    renewed, under, judge = judged(tmp_path, "5", cache="refresh")
    assert (
        renewed.summary.metrics["official"]["mark"]
        == 5.0
        != first.summary.metrics["official"]["mark"]
    )
    assert (len(under.requests), len(judge.requests)) == (12, 12), (
        "the answers are the same, and judged again"
    )

    class Weak(Scripted):
        async def complete(self, request: Request, group: str) -> Response:
            if len(self.requests) >= 4:
                raise BackendError("no")
            return await super().complete(request, group)

    options = Options(
        [f"{TOY}Plain"], [f"{TOY}Judged"], backend="scripted", results=tmp_path, cache="refresh"
    )
    roles: Any = {"judge": Weak(BackendOptions(model="judge"), answer=lambda request: "1")}
    (broken,) = asyncio.run(run(options, backend=Scripted(), roles=roles))
    assert broken.summary.judge_errors == 8
    assert "8 answers could not be judged; the first: " in broken.missing_values
    told: Any = dataclasses.replace(
        options, roles={"judge": ("scripted", BackendOptions(model="judge"))}
    )
    assert asyncio.run(plan(told))[0].calls == {"judge": 8}
    rest, under, judge = judged(tmp_path, "1", cache="refresh")
    assert (len(under.requests), len(judge.requests)) == (0, 8) and rest.summary.metrics[
        "official"
    ]["mark"] == 1.0
    assert len(judged(tmp_path, "2", cache="refresh", limit=5)[2].requests) < 12, (
        "only what was asked for"
    )
    assert not judged(tmp_path)[2].requests


def test_a_plan_counts_kept_answers_that_another_judge_has_to_see(tmp_path: Path) -> None:
    wanted = Options([f"{TOY}Plain"], [f"{TOY}Judged"], backend="scripted", results=tmp_path)
    for judge, calls in (
        ("judge", {"predict": 12, "judge": 12}),
        ("judge", {}),
        ("stern", {"judge": 12}),
    ):
        roles: Any = {"judge": ("scripted", BackendOptions(model=judge))}
        (forecast,) = asyncio.run(plan(dataclasses.replace(wanted, roles=roles)))
        assert forecast.calls == calls and forecast.to_pay == sum(calls.values())
        judged(tmp_path, model=judge)


@pytest.mark.parametrize("presses", [1, 2])
def test_an_interrupt_while_judging_keeps_what_is_paid(tmp_path: Path, presses: int) -> None:
    class Slow(Scripted):
        pressed = False

        async def complete(self, request: Request, group: str) -> Response:
            if len(self.requests) >= 4 and not self.pressed:
                self.pressed = True
                for _ in range(presses):
                    os.kill(os.getpid(), signal.SIGINT)
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.02)
            return await super().complete(request, group)

    under, judge = Scripted(), Slow(BackendOptions(model="judge"), answer=lambda request: "3")
    options = Options(
        [f"{TOY}Plain"], [f"{TOY}Judged"], backend="scripted", results=tmp_path, concurrency=3
    )
    if presses == 1:
        (outcome,) = asyncio.run(run(options, backend=under, roles={"judge": judge}))
        assert (
            outcome.interrupted
            and outcome.summary.status == "incomplete"
            and outcome.summary.owed == 0
        )
        assert outcome.summary.counters["unjudged"] == 12 - len(judge.requests) > 0
    else:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(run(options, backend=under, roles={"judge": judge}))
    (kept,) = tmp_path.glob("runs/*/*/*/*/judgements/*.jsonl")
    known, paid = len(kept.read_bytes().splitlines()), len(judge.requests)
    # A second press may end a judgement whose reply is stored.
    assert 0 < known <= paid < 12 and (presses == 2 or known == paid)
    again, under, rest = judged(tmp_path)
    assert again.summary.status == "complete" and not again.interrupted
    assert (len(under.requests), len(rest.requests)) == (0, 12 - paid)


def test_a_plan_takes_a_judge_to_be_readable(tmp_path: Path) -> None:
    roles: Any = {"judge": ("scripted", BackendOptions(model="judge"))}
    options = Options(
        ["none"], ["reviews"], backend="scripted", results=tmp_path, limit=3, roles=roles
    )
    (forecast,) = asyncio.run(plan(options))
    judge = Scripted(BackendOptions(model="judge"), answer=lambda request: "Alike.\nScore: 7")
    (outcome,) = asyncio.run(run(options, backend=Scripted(), roles={"judge": judge}))
    assert forecast.calls == {phase: spent.calls for phase, spent in outcome.summary.usage.items()}
    assert forecast.calls["judge"] == outcome.summary.n


def test_words_that_are_no_mark_leave_a_sample_unjudged(tmp_path: Path) -> None:
    outcome, _, judge = judged(tmp_path, "splendid")
    assert outcome.summary.counters["unjudged"] == 12 and outcome.summary.metrics == {}
    assert (outcome.folder / "scores.jsonl").read_text() == ""
    assert len(judged(tmp_path, "splendid")[2].requests) == 0 < len(judge.requests)


def test_a_judge_that_fails_is_asked_again_by_the_same_command(tmp_path: Path) -> None:
    def broken(request: Request) -> str:
        raise BackendError("no")

    under, judge = Scripted(), Scripted(BackendOptions(model="judge"), answer=broken)
    options = Options([f"{TOY}Plain"], [f"{TOY}Judged"], backend="scripted", results=tmp_path)
    (outcome,) = asyncio.run(run(options, backend=under, roles={"judge": judge}))
    assert outcome.summary.judge_errors == 12 and outcome.summary.status == "incomplete"
    assert judged(tmp_path)[0].summary.status == "complete"


def test_a_role_without_a_model_of_its_own_is_the_model_under_test_and_that_is_said(
    tmp_path: Path,
) -> None:
    options = Options([f"{TOY}Plain"], [f"{TOY}Judged"], backend="scripted", results=tmp_path)
    model = Scripted(answer=lambda request: "4")
    (outcome,) = asyncio.run(run(options, backend=model))
    assert outcome.summary.metrics["official"]["mark"] == 4.0 and len(model.requests) == 24
    (warning,) = outcome.summary.warnings
    assert "the judge is the model under test itself" in warning
    (board,) = boards([Run(outcome.summary, outcome.folder)])
    assert "Warning: the judge is the model under test itself: plain." in board.notes
    assert any(note.startswith("Judge: scripted") for note in board.notes)


def test_an_optional_judge_comes_only_when_named(tmp_path: Path) -> None:
    options = Options([f"{TOY}Plain"], [f"{TOY}Maybe"], backend="scripted", results=tmp_path)
    model = Scripted()
    (outcome,) = asyncio.run(run(options, backend=model))
    assert len(model.requests) == 12 and outcome.summary.metrics["official"].keys() == {"length"}
    named: Outcome = judged(tmp_path, task="Maybe")[0]
    assert named.summary.metrics["official"].keys() == {"length", "mark"}
