"""The built-in memories in runs: resumed, planned, robust, without questions and clocks."""

from __future__ import annotations

import asyncio
import datetime
import time
from pathlib import Path
from typing import Any

import pytest
from toy_memories import SENTINEL, conversation, ran

from personabench.errors import BackendError
from personabench.models.backends.scripted import Scripted, reply
from personabench.results.memory_view import read_memory
from personabench.results.run_folder import RunFolder
from personabench.run.options import Options
from personabench.run.plan import plan
from personabench.run.runner import Outcome
from personabench.types import Request, Response, to_json

MEMORIES = ("mem0_like", "amem_like", "memorybank_like", "memoryos_like")
EVERY_MODE = (
    "mem0_like",
    *(pytest.param(name, marks=pytest.mark.variants) for name in MEMORIES[1:]),
    pytest.param("mem0_like:additive", marks=pytest.mark.variants),
)
SMALL = ["mem0_like.retriever=bm25", "amem_like.retriever=bm25", "memoryos_like.queue=2"]


def run(
    results: Path, name: str, data: Path, backend: Scripted | None = None, **changes: Any
) -> tuple[Outcome, Scripted]:
    method, _, mode = name.partition(":")
    settings = [setting for setting in SMALL if setting.startswith(f"{method}.")]
    settings += [f"{method}.mode={mode}"] if mode else []
    return asyncio.run(ran(results, method, data, backend, assignments=settings, **changes))


def state_of(outcome: Outcome) -> str:
    (profile,) = RunFolder(outcome.folder).profiles().values()
    return to_json(profile.state)


class Breaking(Scripted):
    """A model that fails for good after some calls."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    async def complete(self, request: Request, group: str) -> Response:
        if len(self.requests) >= self.calls:
            raise BackendError("the model is gone")
        return await super().complete(request, group)


@pytest.mark.parametrize("name", EVERY_MODE)
def test_a_killed_ingestion_ends_in_the_same_bytes(tmp_path: Path, name: str) -> None:
    """Acceptance 2: in one run, with a kill, and continued from a prefix."""
    data = conversation(tmp_path / "data", sessions=5, turns=2, questions=1)
    whole, model = run(tmp_path / "a", name, data)
    calls = len(model.requests)

    broken, _ = run(tmp_path / "b", name, data, backend=Breaking(calls // 2), cache="off")
    assert [line.error for line in RunFolder(broken.folder).iter_predictions()] != [None]
    resumed, _ = run(tmp_path / "b", name, data, cache="off")
    assert state_of(resumed) == state_of(whole)

    short = conversation(tmp_path / "short", sessions=3, turns=2, questions=1)
    run(tmp_path / "c", name, short)
    longer, model = run(tmp_path / "c", name, data)
    assert state_of(longer) == state_of(whole)
    assert len(model.requests) < calls


@pytest.mark.parametrize("name", EVERY_MODE)
def test_no_request_knows_the_questions_or_the_day(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acceptance 4 and 5."""
    data = conversation(tmp_path / "data", sessions=4, questions=2)
    outcome, model = run(tmp_path / "a", name, data, concurrency=1)
    today = datetime.date.today()
    texts = ["\n".join(message.content for message in r.messages) for r in model.requests]
    for text in texts:
        assert today.isoformat() not in text
        assert f"{today.day} {today:%B %Y}" not in text
    ingestion = outcome.summary.usage["profile"].calls
    assert all(SENTINEL not in text for text in texts[:ingestion])
    assert any(SENTINEL in text for text in texts[ingestion:])

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 4e9)
    later_outcome, later = run(tmp_path / "b", name, data, concurrency=1)
    assert list(map(str, later.requests)) == list(map(str, model.requests))
    assert state_of(later_outcome) == state_of(outcome)


@pytest.mark.parametrize("name", EVERY_MODE)
def test_malformed_replies_are_counted_and_end_no_run(tmp_path: Path, name: str) -> None:
    """Acceptance 12: every fifth reply is no JSON."""
    count = 0

    def answer(request: Request) -> str:
        nonlocal count
        count += 1
        return '{"facts": ["torn' if count % 5 == 0 else reply(request)

    data = conversation(tmp_path / "data", sessions=6, questions=3)
    outcome, _ = run(tmp_path, name, data, backend=Scripted(answer=answer), concurrency=1)
    assert outcome.summary.status == "complete"
    if name != "memorybank_like":
        # Its replies are prose.
        assert outcome.summary.counters["memory_bad_json"] > 0


@pytest.mark.parametrize("name", EVERY_MODE)
def test_every_item_names_its_records(tmp_path: Path, name: str) -> None:
    """Acceptance 6."""
    data = conversation(tmp_path / "data", sessions=4, questions=1)
    outcome, _ = run(tmp_path, name, data)
    view = read_memory(RunFolder(outcome.folder), "conv-0")
    assert view.items
    assert all(item.record_ids for item in view.items if item.path != "profile")
    (line,) = RunFolder(outcome.folder).iter_predictions()
    # Facts of filler are too far from the question for the additive mode.
    assert line.shown or name == "mem0_like:additive"
    assert line.interaction["method"]["memory"]["tokens"] <= 2000


@pytest.mark.parametrize("name", EVERY_MODE)
def test_the_plan_expects_the_calls_of_ingestion(tmp_path: Path, name: str) -> None:
    """Acceptance 10: within 5 % of the calls that follow."""
    data = conversation(tmp_path / "data", sessions=6, questions=2)
    method, _, mode = name.partition(":")
    settings = [setting for setting in SMALL if setting.startswith(f"{method}.")]
    settings += [f"{method}.mode={mode}"] if mode else []
    options = Options(
        [method],
        ["locomo"],
        data=data,
        backend="scripted",
        results=tmp_path / "none",
        assignments=settings,
    )
    (forecast,) = asyncio.run(plan(options))
    outcome, _ = run(tmp_path, name, data)
    calls = outcome.summary.usage["profile"].calls
    assert abs(forecast.calls["profile"] - calls) <= 0.05 * calls
    row = forecast.as_dict({})
    assert row["calls_expected"]["profile"] == forecast.calls["profile"]
    assert row["calls"] <= forecast.total <= row["calls_at_most"]
