"""The books of a run: every call once, artifacts offline, whatever happened on the way."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import CLI, model_server, options

from personabench.leaderboard.costs import costs
from personabench.leaderboard.rows import collect_entries
from personabench.models.backends.scripted import Scripted
from personabench.results.index import read_run
from personabench.results.summary import Summary
from personabench.run import runner
from personabench.run.ledger import Ledger
from personabench.types import Call

SHARING = ("dpl", "drp", "cipher", "continual", "icl_edit", "cicl")
"""Methods whose questions share work on records."""


def run(chosen: runner.Options, **backends: Any) -> Summary:
    (outcome,) = asyncio.run(runner.run(chosen, **backends))
    return outcome.summary


def count_tokens(model: Scripted) -> int:
    """The tokens of all requests that the model answered, and of its replies."""
    total = 0
    for request in model.requests:
        total += sum(model.tokens.count(message.content) for message in request.messages)
        total += model.tokens.count(model.answer(request))
    return total


def booked_tokens(summary: Summary) -> int:
    return sum(int(phase.input_tokens + phase.output_tokens) for phase in summary.usage.values())


@pytest.mark.parametrize("limit", [6, pytest.param(None, marks=pytest.mark.variants)])
@pytest.mark.parametrize("method", SHARING)
def test_a_run_books_what_the_model_has_answered(
    tmp_path: Path, method: str, limit: int | None
) -> None:
    model = Scripted()
    summary = run(options(tmp_path, method, limit=limit), backend=model)
    assert sum(phase.calls for phase in summary.usage.values()) == len(model.requests)
    assert booked_tokens(summary) == count_tokens(model)
    assert not any(phase.cached for phase in summary.usage.values())
    assert summary.usage["profile"].calls > 0 < summary.usage["profile"].repeated

    alone = options(tmp_path / "again", method, limit=limit, concurrency=1)
    again = run(alone, backend=Scripted())
    assert {phase: amounts.calls for phase, amounts in again.usage.items()} == {
        phase: amounts.calls for phase, amounts in summary.usage.items()
    }


def test_a_query_costs_as_much_as_the_query_that_it_repeats(tmp_path: Path) -> None:
    (outcome,) = asyncio.run(runner.run(options(tmp_path, "none", "personalllm")))
    (entry,) = collect_entries([read_run(outcome.folder)])
    usage = outcome.summary.usage["predict"]
    assert usage.calls + usage.repeated == outcome.summary.n and usage.repeated > 0
    spent = costs(entry, {}, None)
    assert (spent.calls, spent.online_calls) == (usage.calls, 1.0)


def call(key: str, phase: Any = "predict", cached: bool = False) -> Call:
    return Call(key, phase, cached, 10, 3, 0.25)


def test_a_payment_is_booked_wherever_its_line_stands() -> None:
    # The line of the question that came first is not the one that paid.
    ledger = Ledger()
    ledger.add([call("draft", "profile", cached=True), call("one")])
    ledger.add([call("draft", "profile"), call("two")])
    ledger.add([call("old", "profile", cached=True), call("three"), call("three", cached=True)])
    usage = ledger.usage()
    assert (usage["profile"].calls, usage["profile"].cached) == (2, 1)
    assert (usage["predict"].calls, usage["profile"].repeated) == (3, 1)
    assert usage["predict"].repeated == 0, "a sample that repeats itself is one query"


@pytest.mark.parametrize("policy", ["off", "use"])
def test_without_a_cache_every_payment_is_booked(tmp_path: Path, policy: Any) -> None:
    model = Scripted()
    chosen = options(tmp_path, "cipher", limit=8, cache=policy, concurrency=1)
    summary = run(chosen, backend=model)
    assert sum(phase.calls for phase in summary.usage.values()) == len(model.requests)
    assert booked_tokens(summary) == count_tokens(model)


@pytest.mark.variants
def test_the_books_of_a_killed_run_are_those_of_a_whole_one(tmp_path: Path) -> None:
    def words(results: Path, url: str) -> list[str]:
        command = "run -t lamp4 -m icl_edit -n 12 -b openai --model tiny -j 4 --json"
        return [*CLI, *command.split(), "--base-url", url, "--results", str(results)]

    with model_server(latency=0.03) as server:
        whole = subprocess.run(
            words(tmp_path / "whole", server.url), capture_output=True, text=True, check=True
        )
        paid = server.asked.total()
        killed = subprocess.Popen(
            words(tmp_path / "killed", server.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        server.wait_for(paid + paid // 2, killed)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        subprocess.run(
            words(tmp_path / "killed", server.url), capture_output=True, text=True, check=True
        )
        # Calls in flight at the kill are paid and lost with it; no other is paid twice.
        assert server.asked.total() <= 2 * paid + 4
    assert whole.stdout
    first, second = (
        read_run(path.parent).summary.usage
        for name in ("whole", "killed")
        for path in (tmp_path / name).glob("runs/*/*/*/*/summary.json")
    )
    for phase, amounts in first.items():
        again = second[phase]
        assert (again.calls, again.input_tokens, again.output_tokens) == (
            amounts.calls,
            amounts.input_tokens,
            amounts.output_tokens,
        )
