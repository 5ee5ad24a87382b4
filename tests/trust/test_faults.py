"""A server that fails in mixed ways: every answer arrives, with the scores of a good server."""

from __future__ import annotations

import json
import random
import socket
import sqlite3
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from engine_fixtures import headlines, options
from loopback import JsonHandler, LoopbackServer, serving

from personabench.hashing import digest
from personabench.models.backends.base import BackendOptions
from personabench.results.run_folder import RunFolder
from personabench.run import runner

Case = Callable[[str], AbstractContextManager[None]]
SUITE = "faults of a server, by call"

ERROR = json.dumps({"error": {"message": "overloaded, try again", "type": "server_error"}}).encode()
STATUSES = (408, 409, 429, 500, 502, 503, 504, 529)
FAULTS = (*STATUSES, "reset", "closed", "cut", "no JSON", "no choices", "error in 200", "page")


class FaultyServer:
    """Answers each request well after up to two faults, which its text and a seed decide.

    Attributes:
        asked: requests by their text; faults: faults by kind.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self.asked: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.lock = threading.Lock()
        outer = self

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                self.send_models("tiny")

            def do_POST(self) -> None:
                body = self.read_json()
                name = digest(body["messages"])
                fault = None
                if "tests the connection" not in json.dumps(body):
                    fault = outer.next_fault(name)
                if fault is None:
                    self.send(200, completion(name))
                else:
                    self.fail(fault, completion(name))

            def fail(self, fault: int | str, good: bytes) -> None:
                if isinstance(fault, int):
                    self.send(fault, ERROR)
                elif fault == "reset":
                    # Lingering for no time makes closing a reset.
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.close_connection = True
                elif fault == "closed":
                    self.close_connection = True
                elif fault == "cut":
                    self.send(200, good[: len(good) // 2], length=len(good))
                    self.close_connection = True
                elif fault == "no JSON":
                    self.send(200, good[:-20])
                elif fault == "no choices":
                    self.send(200, b'{"id": "1", "choices": []}')
                elif fault == "error in 200":
                    self.send(
                        200, json.dumps({"error": {"message": "overloaded", "code": 503}}).encode()
                    )
                else:
                    self.send(502, b"<html>" + b"x" * 50_000)

            def send(self, status: int, content: bytes, length: int | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content) if length is None else length))
                if status in (429, 503):
                    self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(content)

        self.http = LoopbackServer(Handler)
        self.url = f"{self.http.url}/v1"

    def next_fault(self, name: str) -> int | str | None:
        """The fault of the next attempt at a request; None if it is answered well."""
        with self.lock:
            attempt = self.asked[name]
            self.asked[name] += 1
            if self.seed is None:
                return None
            rng = random.Random(f"{self.seed} {name}")
            faults = rng.sample(FAULTS, rng.choice((0, 0, 1, 1, 2)))
            if attempt >= len(faults):
                return None
            self.faults[str(faults[attempt])] += 1
            return faults[attempt]


def completion(name: str) -> bytes:
    message = {"role": "assistant", "content": f"harbour lantern gravel {name[:6]}"}
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"id": "1", "model": "tiny", "choices": [choice], "usage": usage}).encode()


@contextmanager
def faulty_server(seed: int | None) -> Iterator[FaultyServer]:
    server = FaultyServer(seed)
    with serving(server.http):
        yield server


async def run_against(
    seed: int | None, folder: Path, backend: str, users: int
) -> tuple[FaultyServer, runner.Outcome]:
    with faulty_server(seed) as server:
        chosen = options(
            folder,
            "summary",
            data=headlines(folder.parent / "data", users, each=2),
            backend=backend,
            backend_options=BackendOptions(base_url=server.url, model="tiny"),
            concurrency=16,
        )
        (outcome,) = await runner.run(chosen)
    return server, outcome


async def check_faults(folder: Path, backend: str, seed: int, users: int, case: Case) -> None:
    """Compare a run against a faulty server with one against a good server."""
    good, whole = await run_against(None, folder / "good", backend, users)
    server, outcome = await run_against(seed, folder / "bad", backend, users)
    assert outcome.summary.owed == 0 and outcome.summary.metrics == whole.summary.metrics
    scores = [RunFolder(run.folder).scores_path.read_bytes() for run in (outcome, whole)]
    assert scores[0] == scores[1]
    assert outcome.summary.counters["request_errors"] == 0

    # Only good replies are stored, and no request is made once more than it failed.
    with sqlite3.connect(folder / "bad" / "cache.sqlite") as cache:
        replies = [reply for (reply,) in cache.execute("SELECT response FROM responses")]
    assert all("harbour lantern gravel" in reply for reply in replies)
    assert len(replies) == len(good.asked) == len(server.asked)
    for name, attempts in server.asked.items():
        rng = random.Random(f"{seed} {name}")
        with case(SUITE):
            assert attempts == 1 + len(rng.sample(FAULTS, rng.choice((0, 0, 1, 1, 2))))
    assert server.faults.total() == (server.asked - good.asked).total()


@pytest.mark.parametrize("backend", ["openai", "vllm"])
async def test_a_few_faults(
    tmp_path: Path, backend: str, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    await check_faults(tmp_path, backend, 0, 3, case)


@pytest.mark.trust
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("backend", ["openai", "vllm"])
async def test_mixed_faults(
    tmp_path: Path, backend: str, seed: int, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    await check_faults(tmp_path, backend, seed, 30, case)
