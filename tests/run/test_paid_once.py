"""A run that is killed pays for no reply twice, not even for those that could not be parsed."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import options
from loopback import JsonHandler, LoopbackServer, serving

from personabench.hashing import digest
from personabench.models.backends.base import BackendOptions
from personabench.run import runner

# Forks of a process without threads start in milliseconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "personabench.run.runner",
        "personabench.models.backends.openai",
        "personabench.tasks.lamp",
        "personabench.tasks.reviews",
        "personabench.methods.rpm",
        "rouge_score.rouge_scorer",
        "sklearn.cluster",
        "wordllama",
    ]
)
READABLE = "ribbon lantern"


class RefusingServer:
    """A loopback server whose replies no reader can parse, which kills its client on demand.

    Attributes:
        calls: requests by content.
        kill_at: the number of the request that kills the client instead of being answered.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.url = ""
        self.kill_at = 0
        self.client = 0
        self.lock = threading.Lock()

    @property
    def total(self) -> int:
        return self.calls.total()

    def count(self, body: Mapping[str, Any]) -> None:
        # The probe of a new server is no call of a run.
        if "tests the connection" in json.dumps(body["messages"]):
            return
        with self.lock:
            self.calls[digest([body["messages"], body.get("seed")])] += 1
            if self.total == self.kill_at:
                os.kill(self.client, signal.SIGKILL)

    def run(self, *, dies_scoring: bool = False, **changes: Any) -> int:
        """Run in a process of its own; returns its exit code."""
        process = PROCESSES.Process(target=execute, args=(self.url, changes, dies_scoring))
        process.start()
        self.client = process.pid or 0
        process.join()
        return process.exitcode or 0


@contextmanager
def refusing_server() -> Iterator[RefusingServer]:
    state = RefusingServer()

    class Handler(JsonHandler):
        def do_POST(self) -> None:
            body = self.read_json()
            state.count(body)
            self.send_answer(READABLE)

    with serving(LoopbackServer(Handler)) as server:
        state.url = f"{server.url}/v1"
        yield state


def execute(url: str, changes: Mapping[str, Any], dies_scoring: bool) -> None:
    """Run a method with the server as all models, one call at a time."""
    os.environ |= {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": url}
    if dies_scoring:
        runner.score_run = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore
    model = BackendOptions(model="tiny")
    chosen = options(backend="openai", backend_options=model, concurrency=1, **changes)
    asyncio.run(runner.run(chosen))


JUDGE = ("openai", BackendOptions(model="judge"))
RUNS: Mapping[str, Mapping[str, Any]] = {
    "profile": {"methods": "rpm", "tasks": "lamp4", "limit": 1},
    "judge": {"methods": "none", "tasks": "reviews", "limit": 1, "roles": {"judge": JUDGE}},
    "criteria": {"methods": "none", "tasks": "prefdisco_warm", "limit": 1},
    "rounds": {"methods": "cipher", "tasks": "prelude_summ", "limit": 1},
    "dialogue": {"methods": "none", "tasks": "prefdisco", "limit": 1},
}


def scores(results: Path) -> bytes:
    (path,) = (results / "runs").rglob("scores.jsonl")
    return path.read_bytes()


def kill_points(total: int, count: int) -> list[int]:
    """Calls at which to kill a run, spread over all of them."""
    if total <= count:
        return list(range(1, total + 1))
    return [total * part // (count + 1) for part in range(1, count + 1)]


def check(tmp_path: Path, name: str, cache: str, points: int) -> None:
    """Kill a run at some of its calls, and count the calls until it is complete."""
    changes = dict(RUNS[name], cache=cache)
    with refusing_server() as server:
        assert server.run(results=tmp_path / "whole", **changes) == 0
        total = server.total
        expected = scores(tmp_path / "whole")

        for point in kill_points(total, points):
            results = tmp_path / f"{point}"
            server.calls.clear()
            server.kill_at = point
            assert server.run(results=results, **changes) == -signal.SIGKILL
            assert server.total == point

            server.kill_at = 0
            assert server.run(results=results, **changes) == 0
            # Only the call in flight is repeated.
            assert server.total == total + 1, f"killed at call {point} of {total}"
            assert scores(results) == expected


@pytest.mark.variants
@pytest.mark.parametrize(("name", "cache", "points"), [("profile", "use", 1), ("judge", "use", 2)])
def test_a_killed_run_pays_again_for_the_call_in_flight_alone(
    tmp_path: Path, name: str, cache: str, points: int
) -> None:
    check(tmp_path, name, cache, points)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("cache", ["use", "refresh"])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_anywhere_pays_again_for_the_call_in_flight_alone(
    tmp_path: Path, name: str, cache: str
) -> None:
    check(tmp_path, name, cache, points=12)


@pytest.mark.variants
def test_a_refresh_killed_while_scoring_is_continued_by_the_same_command(tmp_path: Path) -> None:
    changes = dict(RUNS["judge"], cache="refresh", results=tmp_path)
    with refusing_server() as server:
        assert server.run(**changes) == 0
        total = server.total
        assert server.run(dies_scoring=True, **changes) == -signal.SIGKILL
        assert server.total == 2 * total
        assert server.run(**changes) == 0
        assert server.total == 2 * total
        # The refresh is complete, so the next one begins anew.
        assert server.run(**changes) == 0
        assert server.total == 3 * total
