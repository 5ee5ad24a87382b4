"""A profiler beside the model under test: which calls it gets, and how they are kept and booked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import model_server, options

from personabench.api import registry
from personabench.api.method import Method
from personabench.errors import UsageError
from personabench.leaderboard import BoardOptions, boards
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted, reply
from personabench.results.index import read_run
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.types import Request

PROFILER = BackendOptions(model="big", role="profile")
METHODS = {
    entry.name: registry.load_class("method", entry.name)
    for entry in registry.list_entries("method").values()
    if entry.origin == "built-in" and not entry.facts.get("external")
}
USERS_OF_PROFILER = sorted(
    name for name, cls in METHODS.items() if cls.uses_profiler or cls.profile is not Method.profile
)
# Their drafts are the model's under test, and they infer nothing.
USERS_OF_PROFILER = [name for name in USERS_OF_PROFILER if not name.endswith("_edit")]
# Its store is made without a model.
USERS_OF_PROFILER.remove("k_lamp")


def run(chosen: runner.Options, **backends: Any) -> runner.Outcome:
    (outcome,) = asyncio.run(runner.run(chosen, **backends))
    return outcome


def with_profiler(results: Path, method: str, **changes: Any) -> runner.Options:
    return options(results, method, roles={"profiler": ("scripted", PROFILER)}, **changes)


def run_folder(results: Path) -> RunFolder:
    (path,) = results.glob("runs/*/*/*/*")
    return RunFolder(path)


@pytest.mark.parametrize("method", USERS_OF_PROFILER)
def test_a_profiler_gets_the_profiling_work_and_nothing_else(tmp_path: Path, method: str) -> None:
    changes: Any = {}
    if method == "cicl":
        changes = {"assignments": ["two_step=true"], "tasks": "lamp3"}
    elif "safety" in METHODS[method].needs:
        changes = {"tasks": "usafebench"}
    model, big = Scripted(), Scripted(PROFILER)
    chosen = with_profiler(tmp_path, method, limit=3, **changes)
    summary = run(chosen, backend=model, roles={"profiler": big}).summary

    # Every question is answered by the model under test, and described by the profiler.
    assert summary.usage["predict"].calls >= summary.n
    assert sum(phase.calls for phase in summary.profiler_usage.values()) == len(big.requests) > 0
    paid = sum(phase.calls - phase.cached for phase in summary.usage.values())
    assert paid == len(model.requests)
    assert summary.roles["profiler"].model == "big"
    named = run_folder(tmp_path).spec().profiler
    assert named and big.identity.items() <= named.items()


def test_other_models_under_test_reuse_the_profiles(tmp_path: Path) -> None:
    big = Scripted(PROFILER)
    first = run(with_profiler(tmp_path, "summary", limit=4), roles={"profiler": big})
    made = len(big.requests)
    small = with_profiler(
        tmp_path, "summary", limit=4, backend_options=BackendOptions(model="small")
    )
    second = run(small, roles={"profiler": big})
    assert len(big.requests) == made > 0
    usage = second.summary.profiler_usage["profile"]
    assert (usage.calls, usage.cached) == (made, made)
    assert first.summary.fingerprint != second.summary.fingerprint

    alone = run(options(tmp_path, "summary", limit=4)).summary
    assert alone.fingerprint != first.summary.fingerprint and not alone.profiler_usage


def test_rows_with_and_without_a_profiler_are_compared(tmp_path: Path) -> None:
    outcomes = [
        run(options(tmp_path, "none", limit=6)),
        run(options(tmp_path, "summary", limit=6)),
        run(with_profiler(tmp_path, "summary", limit=6)),
    ]
    prices = {
        "scripted": {"input": 1.0, "output": 1.0},
        "big": {"input": 100.0, "output": 100.0},
    }
    runs = [read_run(outcome.folder) for outcome in outcomes]
    (board,) = boards(runs, options=BoardOptions(results=tmp_path, prices=prices))
    rows = {row.label: row for row in board.rows}
    assert rows.keys() == {"none", "summary", "summary (profiler=big)"}
    assert len({row.setting for row in board.rows}) == 1

    beside, alone = rows["summary (profiler=big)"].costs, rows["summary"].costs
    assert beside.profiler_tokens == beside.offline_tokens * rows["summary"].users > 0
    assert alone.profiler_tokens == 0 < alone.offline_tokens
    assert beside.offline_price == pytest.approx(beside.offline_tokens * 100 / 1e6)
    assert beside.online_price == pytest.approx(beside.online_tokens / 1e6)


def test_a_profiler_without_work_is_no_part_of_a_run(tmp_path: Path) -> None:
    plain = run(options(tmp_path, "none", limit=2)).summary
    both = asyncio.run(runner.run(with_profiler(tmp_path, "none,summary", limit=2)))
    assert both[0].summary.fingerprint == plain.fingerprint and not both[0].summary.roles
    with pytest.raises(UsageError, match="--profile-model: none of the methods none, rag uses"):
        run(with_profiler(tmp_path, "none,rag", limit=2))


def test_undeclared_work_for_a_profiler_is_a_fault_of_the_method(tmp_path: Path) -> None:
    path = tmp_path / "undeclared.py"
    path.write_text(
        "from personabench import Method\n\n\nclass Undeclared(Method):\n"
        "    async def predict(self, sample, state, ctx):\n"
        "        return await ctx.profiling().answer(sample)\n"
    )
    outcome = run(options(tmp_path / "results", str(path), limit=1))
    errors = [line.error for line in RunFolder(outcome.folder).iter_predictions()]
    assert all(error and "uses_profiler = True" in error for error in errors)


def test_prompts_are_fitted_to_the_model_that_reads_them(tmp_path: Path) -> None:
    sizes: dict[str, list[int]] = {"model": [], "big": []}

    def noting(name: str) -> Any:
        def answer(request: Request) -> str:
            sizes[name].append(sum(len(message.content) for message in request.messages))
            return reply(request)

        return answer

    model = Scripted(BackendOptions(window=600), noting("model"))
    big = Scripted(PROFILER, noting("big"))
    assignments = ["summary_budget_tokens=0", "summary_max_tokens=64"]
    chosen = with_profiler(
        tmp_path,
        "summary",
        limit=4,
        assignments=assignments,
        backend_options=BackendOptions(window=600),
    )
    run(chosen, backend=model, roles={"profiler": big})
    assert max(sizes["model"]) < 3 * 600 < max(sizes["big"])


@pytest.mark.model
@pytest.mark.parametrize(
    "generator", ["served", pytest.param("packaged", marks=pytest.mark.variants)]
)
def test_two_real_models_share_the_work(tmp_path: Path, generator: str) -> None:
    """The packaged model and a server on loopback: either writes the profiles of the other."""
    with model_server(latency=0.0) as server:
        served = BackendOptions(model="tiny", base_url=server.url)
        packaged = BackendOptions()
        models = {"packaged": ("local", packaged), "served": ("openai", served)}
        backend, under = models.pop(generator)
        ((kind, beside),) = models.values()
        chosen = runner.Options(
            ["summary"],
            ["lamp4"],
            backend=backend,
            backend_options=under,
            roles={"profiler": (kind, beside)},
            limit=1,
            results=tmp_path,
            assignments=["summary_max_tokens=24", "summary_budget_tokens=300", "k=2"],
        )
        summary = run(chosen).summary
        served_usage = summary.profiler_usage if generator == "packaged" else summary.usage
        assert sum(phase.calls for phase in served_usage.values()) == server.asked.total() > 0
    assert set(summary.profiler_usage) == {"profile"} and set(summary.usage) == {"predict"}
    spec = json.loads((run_folder(tmp_path).path / "spec.json").read_text())
    name = "tiny" if generator == "packaged" else "SmolLM2-135M-Instruct"
    assert name in spec["profiler"]["name"]
    # Texts for the server are whole, those for the packaged model short.
    assert ("prompts" in spec["profiler"]) == (generator == "packaged")
    assert ("prompts" in spec) == (generator == "served")
