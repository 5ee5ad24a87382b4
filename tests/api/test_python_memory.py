"""Providers as memories: plain classes whose model is the loopback endpoint of the run."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_memories import SENTINEL, conversation, ran

from personabench.api import registry
from personabench.errors import BackendError, PluginError, UsageError
from personabench.models.backends.scripted import Scripted
from personabench.results.run_folder import RunFolder
from personabench.run.runner import Outcome
from personabench.types import Request, Response

PROVIDER = '''
import json
import urllib.request


class Notebook:
    """Keeps a model's words on every batch."""

    name = "notebook"
    unit = "session"
    packages = ("msgspec",)

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.notes = {}

    def post(self, path, body):
        request = urllib.request.Request(
            f"{self.endpoint.url}/{path}",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.endpoint.api_key}"},
        )
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    def start(self, user):
        self.notes[user] = []

    def ingest(self, user, batch):
        text = " ".join(message["content"] for message in batch)
        body = {"messages": [{"role": "user", "content": f"Digest: {text}"}], "max_tokens": 40}
        note = self.post("chat/completions", body)["choices"][0]["message"]["content"]
        vector = self.post("embeddings", {"input": [note]})["data"][0]["embedding"]
        ids = [message["id"] for message in batch]
        self.notes[user].append((note, ids, batch[-1]["time"], len(vector)))

    def retrieve(self, user, query, now, k, tokens):
        return [
            {"text": note, "record_ids": ids, "time": time}
            for note, ids, time, _ in self.notes[user][-k:][::-1]
        ]

    def size(self, user):
        return {"items": len(self.notes[user])}


class Patient(Notebook):
    """The same, asynchronous where it may be."""

    name = "patient"

    async def retrieve(self, user, query, now, k, tokens):
        return "\\n".join(note for note, *_ in self.notes[user])
'''


@pytest.fixture
def provider(tmp_path: Path) -> Path:
    path = tmp_path / "notebook_provider.py"
    path.write_text(PROVIDER)
    return path


def run(
    results: Path, method: str, data: Path, backend: Scripted | None = None, **changes: Any
) -> tuple[Outcome, Scripted]:
    return asyncio.run(ran(results, method, data, backend, **changes))


def test_calls_of_a_provider_are_counted_cached_and_booked_offline(
    provider: Path, tmp_path: Path
) -> None:
    data = conversation(tmp_path / "data")
    outcome, model = run(tmp_path, f"{provider}:Notebook", data)
    usage = outcome.summary.usage
    assert (usage["profile"].calls, usage["predict"].calls) == (3, 4)
    assert len(model.requests) == 7
    assert outcome.summary.method == "notebook"
    assert outcome.summary.metrics["official"]["evidence-recall"] == 1.0
    assert outcome.summary.counters["memory_state_items"] == 3
    (profile,) = RunFolder(outcome.folder).profiles().values()
    assert profile.state["memory"]["packages"][0].startswith("msgspec==")
    assert all(SENTINEL not in str(request) for request in model.requests[:3])

    # The state is gone with the process, but its calls are stored.
    again, model = run(tmp_path, f"{provider}:Notebook", data, assignments=["k=2"])
    assert again.folder != outcome.folder
    assert not any(r.messages[0].content.startswith("Digest:") for r in model.requests)
    assert again.summary.usage["profile"].cached == 3


def test_a_text_and_an_async_method_serve_as_well(provider: Path, tmp_path: Path) -> None:
    data = conversation(tmp_path / "data", questions=1)
    outcome, _ = run(tmp_path, f"{provider}:Patient", data)
    assert outcome.summary.status == "complete"
    assert outcome.summary.counters["shown_unknown"] == 1


def test_a_class_of_a_module_is_named_by_both(
    provider: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    data = conversation(tmp_path / "data", questions=1)
    try:
        by_path = registry.source_hash(registry.load_class("method", f"{provider}:Notebook"))
        cls = registry.load_class("method", "notebook_provider:Notebook")
        assert registry.source_hash(cls) == by_path
        outcome, _ = run(tmp_path, "notebook_provider:Notebook", data)
        assert outcome.summary.method == "notebook"
        with pytest.raises(UsageError, match="notebook_provider has no class Missing"):
            registry.load_class("method", "notebook_provider:Missing")
    finally:
        sys.modules.pop("notebook_provider", None)
    with pytest.raises(UsageError, match="there is no module no_such_module"):
        registry.load_class("method", "no_such_module:Memory")
    with pytest.raises(PluginError, match="expected a subclass of personabench"):
        registry.load_class("method", "json:JSONDecoder")


def test_a_missing_package_is_named(provider: Path) -> None:
    provider.write_text(PROVIDER.replace('("msgspec",)', '("no-such-package",)'))
    with pytest.raises(UsageError, match="the package no-such-package is not installed"):
        registry.load_class("method", f"{provider}:Notebook")


class Gone(Scripted):
    """A model that cannot be reached."""

    async def complete(self, request: Request, group: str) -> Response:
        raise BackendError("the model is gone")


def test_a_failed_call_is_the_models_not_the_packages(provider: Path, tmp_path: Path) -> None:
    data = conversation(tmp_path / "data", questions=1)
    outcome, _ = run(tmp_path, f"{provider}:Notebook", data, backend=Gone())
    (line,) = RunFolder(outcome.folder).iter_predictions()
    assert line.error == "the model is gone"


def test_requests_of_strangers_are_refused(provider: Path, tmp_path: Path) -> None:
    provider.write_text(PROVIDER.replace("Bearer {self.endpoint.api_key}", "Bearer other"))
    data = conversation(tmp_path / "data", questions=1)
    outcome, model = run(tmp_path, f"{provider}:Notebook", data)
    (line,) = RunFolder(outcome.folder).iter_predictions()
    assert line.error is not None
    assert "HTTP Error 401" in line.error
    assert model.requests == []
