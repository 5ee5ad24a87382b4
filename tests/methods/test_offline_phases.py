"""Work that is done once per user: what it sees, that a second run repeats none, and its usage."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from baseline_fixtures import ScriptedTask, prepared, question, tales, text
from engine_fixtures import options

from personabench import Request
from personabench.api import registry
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted, echo, fill_schema
from personabench.results.run_folder import RunFolder
from personabench.run import runner

PROFILER = BackendOptions(model="big", role="profile")
# From a method to settings that keep its search short and reach all of its stages.
SETTINGS = {
    "hyperalign": ("hyperalign.select=validate",),
    "fermi": ("fermi.rounds=2", "fermi.n_prompts=2"),
    "k_lamp": (),
    "eragent": ("eragent.pool_questions=2",),
}


def answer(request: Request) -> str:
    """Replies in every form, each prompt of an optimizer another."""
    if request.schema is not None and "prompts" in request.schema["properties"]:
        mark = str(request.repeat)
        return json.dumps({"prompts": [{"prompt": f"p{mark}a"}, {"prompt": f"p{mark}b"}]})
    if "You form hypotheses" in request.messages[0].content:
        return '["Is terse.", "Is dry."]'
    return echo(request) if request.schema is None else fill_schema(request.schema)


def run(results: Path, method: str, **backends: Any) -> tuple[runner.Outcome, Scripted]:
    model = Scripted(answer=answer)
    roles = {"profiler": ("scripted", PROFILER)} if backends else {}
    chosen = options(results, method, limit=3, assignments=list(SETTINGS[method]), roles=roles)
    (outcome,) = asyncio.run(runner.run(chosen, backend=model, roles=backends))
    return outcome, model


@pytest.mark.parametrize("name", SETTINGS)
async def test_offline_work_never_reads_the_question(tmp_path: Path, name: str) -> None:
    users = [tales(12)]
    setup = ScriptedTask(tmp_path, users, answer=answer)
    cls = registry.load_class("method", name)
    method = await prepared(setup, cls())
    sample = question(users, "A singular zeppelin")
    _, _, requests = await setup.ask(method, sample)
    other = question(users, "Of quite another quarry")
    _, _, again = await setup.ask(method, other)

    # Those that the second question shares with the first, and all but its own.
    offline = [request for request in requests if "zeppelin" not in text([request])]
    assert "GOLD" not in text(requests)
    own = 6 if name == "eragent" else 0
    assert len(requests) - len(offline) == own + 1 == len(again)
    assert all("quarry" in text([request]) for request in again)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_second_run_makes_no_offline_call(tmp_path: Path, name: str) -> None:
    first, model = run(tmp_path, name)
    assert len(model.requests) > first.summary.n - 1
    shutil.rmtree(tmp_path / "runs")
    second, model = run(tmp_path, name)
    assert model.requests == []
    for phase, usage in second.summary.usage.items():
        assert usage.cached == usage.calls == first.summary.usage[phase].calls
    assert second.summary.metrics == first.summary.metrics


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("has_profiler", [False, True])
def test_token_totals_of_each_role_add_up(tmp_path: Path, name: str, has_profiler: bool) -> None:
    big = Scripted(PROFILER, answer)
    backends = {"profiler": big} if has_profiler else {}
    outcome, model = run(tmp_path, name, **backends)
    summary = outcome.summary
    folder = RunFolder(outcome.folder)
    calls = [call for line in folder.iter_predictions() for call in line.calls]
    calls += [call for profile in folder.profiles().values() for call in profile.calls]

    for backend, usage in ((model, summary.usage), (big, summary.profiler_usage)):
        tokens = sum(
            backend.tokens.count(message.content)
            for request in backend.requests
            for message in request.messages
        )
        phases = usage.values()
        assert sum(phase.calls - phase.cached for phase in phases) == len(backend.requests)
        assert sum(phase.input_tokens for phase in phases) == tokens
        own = [call for call in calls if (call.profiler is True) == (backend is big)]
        for phase, amounts in usage.items():
            # Samples that share work name the same call.
            keys = {call.key: call.input_tokens for call in own if call.phase == phase}
            assert (amounts.calls, amounts.input_tokens) == (len(keys), sum(keys.values()))
