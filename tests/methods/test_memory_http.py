"""memory_http against a loopback server: namespaces, repetitions, items and their sources."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from loopback import JsonHandler, LoopbackServer, serving
from toy_memories import SENTINEL, conversation, ran

from personabench.errors import UsageError
from personabench.results.run_folder import RunFolder
from personabench.run.runner import Outcome


class MemoryServer:
    """A memory of messages, word for word.

    Attributes:
        honours: it ignores a batch number that it has seen.
        has_sources: its items name their records.
        failures: statuses of the next replies to /ingest, after the batch was stored.
    """

    def __init__(self) -> None:
        self.honours = True
        self.has_sources = True
        self.text_alone = False
        self.failures: list[int] = []
        self.users: dict[str, list[dict[str, Any]]] = {}
        self.numbers: dict[str, set[int]] = {}
        self.requests: list[tuple[str, Any]] = []
        self.deleted: list[str] = []
        outer = self

        class Handler(JsonHandler):
            def do_POST(self) -> None:
                body = self.read_json()
                outer.requests.append((self.path, body))
                status, value = outer.answer(self.path, body)
                self.send_json(value, status)

            def do_DELETE(self) -> None:
                outer.deleted.append(self.path.rpartition("/")[2])
                self.send_response(204)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self.http = LoopbackServer(Handler)
        self.url = self.http.url

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        user = body["user"]
        if path == "/start":
            self.users[user], self.numbers[user] = [], set()
            return 200, {"honours_batch_numbers": self.honours, "system": "toy 1"}
        if path == "/ingest":
            if not (self.honours and body["number"] in self.numbers[user]):
                self.users[user] += body["batch"]
            self.numbers[user].add(body["number"])
            return (self.failures.pop(0), {}) if self.failures else (200, {})
        if path == "/size":
            return 200, {"items": len(self.users[user]), "unknown": "many"}
        items = [
            {"text": message["content"], "time": message["time"], "record_ids": [message["id"]]}
            for message in reversed(self.users[user])
        ]
        if self.text_alone:
            return 200, {"text": "\n".join(item["text"] for item in items)}
        if not self.has_sources:
            for item in items:
                del item["record_ids"]
        return 200, {"items": items}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryServer]:
    with running() as memory_server:
        monkeypatch.setenv("PERSONABENCH_MEMORY_URL", memory_server.url)
        yield memory_server


@contextmanager
def running() -> Iterator[MemoryServer]:
    memory_server = MemoryServer()
    with serving(memory_server.http):
        yield memory_server


def run(results: Path, data: Path, **changes: Any) -> Outcome:
    outcome, _ = asyncio.run(ran(results, "memory_http", data, **changes))
    return outcome


def metrics_of(outcome: Outcome) -> dict[str, Any]:
    return dict(outcome.summary.metrics["official"])


def test_namespaces_differ_between_runs_and_are_deleted(
    server: MemoryServer, tmp_path: Path
) -> None:
    """Acceptance 11."""
    data = conversation(tmp_path / "data", users=2)
    outcome = run(tmp_path / "a", data)
    assert outcome.summary.status == "complete"
    assert metrics_of(outcome)["evidence-recall"] == 1.0
    assert outcome.summary.counters["memory_state_items"] == 24
    first = set(server.users)
    run(tmp_path / "b", data)
    assert len(first) == 2
    assert len(set(server.users)) == 4
    assert set(server.deleted) == set(server.users)


def test_the_messages_have_dates_and_no_question(server: MemoryServer, tmp_path: Path) -> None:
    run(tmp_path, conversation(tmp_path / "data", questions=1))
    ingested = [body for path, body in server.requests if path == "/ingest"]
    # Two turns are an exchange.
    assert [body["number"] for body in ingested] == list(range(6))
    assert ingested[0]["batch"][0] == {
        "id": "D1:1",
        "role": "Bo",
        "content": "Bo: In week 1 I bought 1 lamps for house 0.",
        "time": "2001-03-02T09:05",
        "session": "D1",
    }
    assert SENTINEL not in json.dumps(ingested)
    (query,) = [body for path, body in server.requests if path == "/retrieve"]
    assert query["now"] == "2001-03-04T09:05"
    assert (query["k"], query["tokens"]) == (10, 2000)


@pytest.mark.parametrize("honours", [True, False])
def test_a_failure_after_storing_doubles_no_batch(
    server: MemoryServer, tmp_path: Path, honours: bool
) -> None:
    """Acceptance 11: 500, then success; without batch numbers the history is ingested again."""
    server.honours = honours
    server.failures = [500]
    outcome = run(tmp_path, conversation(tmp_path / "data"))
    last = list(server.users)[-1]
    ids = [message["id"] for message in server.users[last]]
    assert len(ids) == len(set(ids)) == 12
    assert outcome.summary.status == "complete"
    assert outcome.summary.counters.get("memory_ingested_again", 0) == (not honours)


def test_items_without_sources_have_no_recall(server: MemoryServer, tmp_path: Path) -> None:
    """Acceptance 11: not available, rather than 0."""
    server.has_sources = False
    outcome = run(tmp_path, conversation(tmp_path / "data"))
    assert "evidence-recall" not in metrics_of(outcome)
    assert outcome.summary.counters["shown_unknown"] == 4


def test_a_long_text_is_cut_between_its_lines(server: MemoryServer, tmp_path: Path) -> None:
    server.text_alone = True
    data = conversation(tmp_path / "data", questions=1)
    outcome = run(tmp_path, data, assignments=["memory_http.memory_tokens=50"])
    (line,) = RunFolder(outcome.folder).iter_predictions()
    assert 0 < line.interaction["method"]["memory"]["tokens"] <= 50
    assert line.flags["memory_over_budget"] > 0


def test_a_resumed_run_ingests_again(server: MemoryServer, tmp_path: Path) -> None:
    """The state lives on the server, so that it cannot be continued."""
    data = conversation(tmp_path / "data", questions=2)
    run(tmp_path, data, limit=1)
    before = len(server.requests)
    conversation(tmp_path / "data", questions=2)
    outcome = run(tmp_path, data, cache="refresh")
    assert outcome.summary.status == "complete"
    assert [path for path, _ in server.requests[before:]].count("/ingest") == 6


def test_wrong_systems_and_missing_servers_are_explained(
    server: MemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = conversation(tmp_path / "data", questions=1)
    with pytest.raises(UsageError, match=r"is 'toy 1', not 'toy 2'"):
        run(tmp_path / "a", data, assignments=["memory_http.system=toy 2"])
    monkeypatch.delenv("PERSONABENCH_MEMORY_URL")
    with pytest.raises(UsageError, match="set PERSONABENCH_MEMORY_URL"):
        run(tmp_path / "b", data)
    monkeypatch.setenv("PERSONABENCH_MEMORY_URL", "http://127.0.0.1:9")
    outcome = run(tmp_path / "c", data)
    (line,) = RunFolder(outcome.folder).iter_predictions()
    assert line.error is not None
    assert "is the memory server running?" in line.error
