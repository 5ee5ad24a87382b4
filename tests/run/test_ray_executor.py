"""Shards on Ray: a local cluster, a folder and a URL, shards that fail, and an interrupt."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from engine_fixtures import CLI, headlines, model_server, options
from test_shards import content

from personabench.errors import RunError, UsageError
from personabench.models.backends.base import BackendOptions
from personabench.run import ray_executor, runner
from personabench.run.ray_executor import RayExecutor
from personabench.run.shards import Shard

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray of this machine, given time to come up."""
    ray = pytest.importorskip("ray", reason="Ray is the extra [ray]")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
    os.environ.setdefault("RAY_agent_register_timeout_ms", "300000")
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield ray
    ray.shutdown()


def unsplit(place: Path, **asked: Any) -> dict[str, dict[str, Any]]:
    """What the same command writes without shards, by run."""
    import asyncio

    outcomes = asyncio.run(runner.run(options(place, concurrency=1, **asked)))
    return {str(outcome.folder.relative_to(place)): content(outcome.folder) for outcome in outcomes}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_run_on_ray_is_the_run_that_was_never_split(
    cluster: Any, tmp_path: Path, scheme: str
) -> None:
    asked: dict[str, Any] = {
        "methods": "rag,summary",
        "data": headlines(tmp_path / "data", 7, each=2),
        "limit": 10,
    }
    said: list[str] = []
    spread = RayExecutor(3, f"{scheme}{tmp_path}/split")
    outcomes = spread.run([options(spread.local_results, concurrency=1, **asked)], said.append)
    whole = unsplit(tmp_path / "whole", **asked)
    places = [spread.locate(outcome.folder) for outcome in outcomes]
    assert [place.partition("/split/")[2] for place in places] == list(whole)
    for place, wanted in zip(places, whole.values(), strict=True):
        assert place.startswith(scheme) and content(Path(place.removeprefix("file://"))) == wanted
    assert sorted(line.partition(",")[0] for line in said) == [
        "shard 1/3",
        "shard 2/3",
        "shard 3/3",
    ]
    assert (tmp_path / "split/cache.sqlite").exists() and (
        tmp_path / "split/shards/3-of-3/cache.sqlite"
    ).exists()

    larger = {**asked, "limit": None}
    again = RayExecutor(3, spread.results)
    outcomes = again.run([options(again.local_results, concurrency=1, **larger)], said.append)
    assert [outcome.summary.n for outcome in outcomes] == [14, 14]
    assert [line.attempts for line in runner.RunFolder(outcomes[0].folder).iter_predictions()] == [
        1
    ] * 14
    logs = [path.name for path in (tmp_path / "split/shards/1-of-3").rglob("attempts/*.log")]
    assert sorted(logs) == ["001.log", "001.log", "002.log", "002.log"], (
        "the second command went on with the first's"
    )


@pytest.mark.slow
def test_what_is_wrong_on_the_workers_is_said_here(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"shard 1/2, 2/2: no method named 'nobody'"):
        RayExecutor(2, str(tmp_path)).run([options(tmp_path, "nobody")], print)
    with pytest.raises(UsageError, match=r"--ray-options: .*num_gpuss"):
        RayExecutor(2, str(tmp_path), {"num_gpuss": 1}).run([options(tmp_path)], print)
    down = BackendOptions("tiny", "http://127.0.0.1:9/v1")
    with pytest.raises((RunError, UsageError), match="repeat the command to go on"):
        RayExecutor(2, str(tmp_path)).run(
            [options(tmp_path, backend="openai", backend_options=down)], print
        )


@pytest.mark.slow
def test_a_worker_that_dies_is_started_again_and_nothing_is_lost(
    cluster: Any, tmp_path: Path
) -> None:
    (tmp_path / "dying.py").write_text(
        "import os, pathlib\n"
        "from personabench import Method\n"
        "class Dying(Method):\n"
        "    name = 'dying'\n"
        "    async def predict(self, sample, state, ctx):\n"
        f"        mark = pathlib.Path({str(tmp_path)!r}, 'died')\n"
        "        if sample.id == 'q00003-0' and not mark.exists():\n"
        "            mark.touch()\n"
        "            os._exit(9)\n"
        "        return await ctx.answer(sample)\n"
    )
    data = headlines(tmp_path / "data", 6)
    asked = options(tmp_path / "split", f"{tmp_path}/dying.py", data=data, concurrency=1)
    (outcome,) = RayExecutor(2, str(tmp_path / "split")).run([asked], print)
    assert (
        (tmp_path / "died").exists()
        and outcome.summary.n == 6
        and outcome.summary.status == "complete"
    )


@pytest.mark.slow
def test_an_interrupt_lets_shards_finish_what_is_in_flight(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is the extra [ray]")
    data = headlines(tmp_path / "data", 400)
    with model_server(latency=0.3) as server:
        words = [
            "run",
            "-m",
            "none",
            "-t",
            "lamp4",
            "--data",
            data,
            "--backend",
            "openai",
            "--base-url",
            server.url,
        ]
        words += ["--model", "tiny", "-j", "2", "--executor", "ray", "--shards", "2", "--json"]
        environment = {**os.environ, "OPENAI_API_KEY": "k", "RAY_raylet_start_wait_time_s": "300"}
        process = subprocess.Popen(
            [*CLI, *map(str, words)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3000):
            if server.asked.total() >= 12:
                break
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
        paid = server.asked.total()
    assert (process.returncode, out) == (130, ""), err
    assert "the same command continues" in err and "Traceback" not in err
    lines = [
        json.loads(line)
        for path in (tmp_path / "results/shards").rglob("predictions.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert 12 <= paid < 400 and len(lines) == paid, "every call that was paid is kept"


def test_paths_mean_the_same_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.gguf").touch()
    asked = options(Path("results"), "none,mine.py:Mine", "own.py", data=Path("data"))
    asked = dataclasses.replace(asked, backend_options=BackendOptions("m.gguf"))
    # Only a worker on another machine shows the paths.
    there = ray_executor._with_absolute_paths(asked)  # noqa: SLF001
    assert there.methods == ["none", f"{tmp_path}/mine.py:Mine"] and there.tasks == [
        f"{tmp_path}/own.py"
    ]
    assert (there.data, there.backend_options.model) == (tmp_path / "data", f"{tmp_path}/m.gguf")


@pytest.mark.parametrize("failing", [False, True])
def test_a_shard_at_a_url_works_on_a_copy_that_goes_back(tmp_path: Path, failing: bool) -> None:
    asked = options(
        Path("unused"),
        "nobody" if failing else "none",
        data=headlines(tmp_path / "data", 4),
        limit=2,
    )
    url = "memory://bucket/results"
    system = fsspec.filesystem("memory")
    try:
        report = ray_executor.run_shard([asked], Shard(1, 2), url)
        assert (report.exit_code, report.done) == ((2, 0) if failing else (0, 1))
        report = ray_executor.run_shard([dataclasses.replace(asked, limit=None)], Shard(1, 2), url)
        assert (report.exit_code, report.done, report.pending) == (
            (2, 0, 0) if failing else (0, 2, 0)
        )
        if not failing:
            (run,) = report.runs
            there = system.cat(f"/bucket/results/shards/1-of-2/{run}/predictions.jsonl")
            assert len(there.splitlines()) == 2 and [
                json.loads(line)["attempts"] for line in there.splitlines()
            ] == [
                1,
                1,
            ]
    finally:
        system.store.clear()
    with pytest.raises(UsageError, match="--results nothing://at/all: "):
        RayExecutor(1, "nothing://at/all")


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'personabench-harness\[ray\]'"):
        RayExecutor(2, str(tmp_path)).run([options(tmp_path)], print)
