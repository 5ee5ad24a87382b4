"""The package mem0ai through the run's endpoint: its calls, its dates, its sources."""

from __future__ import annotations

import asyncio
import datetime
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from toy_memories import SENTINEL, conversation, ran

from personabench.api import registry
from personabench.errors import UsageError
from personabench.models.backends.scripted import Scripted
from personabench.results.run_folder import RunFolder
from personabench.types import Request

installed = pytest.mark.skipif(find_spec("mem0") is None, reason="needs the extra mem0")


def answer(request: Request) -> str:
    """The replies that the package requests: facts, then what becomes of them."""
    text = request.messages[-1].content
    if text.startswith("Input:"):
        return json.dumps({"facts": [text.splitlines()[1][:60]]})
    if "retrieved facts" in text:
        facts = text.rpartition("```")[0].rpartition("```")[2].strip()
        memories = [{"id": "0", "text": str(facts), "event": "ADD"}]
        return json.dumps({"memory": memories})
    return "3 lamps"


@pytest.mark.variants
@installed
def test_the_package_runs_with_our_model_dates_and_sources(tmp_path: Path) -> None:
    data = conversation(tmp_path / "data", sessions=2, turns=2, questions=2)
    model = Scripted(answer=answer)
    outcome, _ = asyncio.run(ran(tmp_path, "mem0", data, model))
    assert outcome.summary.status == "complete"
    # An extraction and a decision for each of two exchanges.
    usage = outcome.summary.usage
    assert (usage["profile"].calls, usage["predict"].calls) == (4, 2)
    assert outcome.summary.counters["memory_state_items"] == 2
    assert outcome.summary.metrics["official"]["evidence-recall"] == 1.0
    (profile,) = RunFolder(outcome.folder).profiles().values()
    assert profile.state["memory"]["packages"][0].startswith("mem0ai==")

    texts = ["\n".join(message.content for message in r.messages) for r in model.requests]
    assert "Today's date is 2001-03-02." in texts[0]
    assert "Today's date is 2001-03-03." in texts[2]
    assert all(datetime.date.today().isoformat() not in text for text in texts)
    assert all(SENTINEL not in text for text in texts[:4])
    assert "[2 March 2001, 09:05] " in texts[-1]


@pytest.mark.variants
@installed
def test_replies_that_the_package_cannot_read_are_counted(tmp_path: Path) -> None:
    data = conversation(tmp_path / "data", sessions=1, turns=2, questions=1)
    model = Scripted(answer=lambda request: "no json")
    outcome, _ = asyncio.run(ran(tmp_path, "mem0", data, model))
    assert outcome.summary.status == "complete"
    assert outcome.summary.counters["memory_bad_json"] == 1
    assert outcome.summary.counters["memory_state_items"] == 0


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = registry.load_class("method", "mem0")
    monkeypatch.setattr(cls, "packages", ("no-such-package",))
    with pytest.raises(UsageError, match=r"personabench-harness\[mem0\]"):
        cls()
