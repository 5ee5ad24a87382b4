"""Ingestion: states after every batch, continued, frozen, within a budget, with sources."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from toy_memories import SENTINEL, TOY, Verbatim, conversation, ran
from toy_methods import Daily

from personabench.cli import inspect
from personabench.errors import BackendError, UsageError
from personabench.leaderboard import BoardOptions, boards
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.models.roles import RoleName
from personabench.results.index import Run
from personabench.results.memory_journal import MemoryJournal
from personabench.results.memory_view import read_memory
from personabench.results.run_folder import Profile, RunFolder
from personabench.run import runner
from personabench.run.options import Options
from personabench.run.plan import plan
from personabench.run.runner import Outcome
from personabench.testing import trial
from personabench.types import Prediction, Request, Response, Sampling, to_json


def run(*args: Any, **changes: Any) -> tuple[Outcome, Scripted]:
    return asyncio.run(ran(*args, **changes))


def profile_of(outcome: Outcome) -> Profile:
    (profile,) = RunFolder(outcome.folder).profiles().values()
    return profile


def lines_of(outcome: Outcome) -> list[Prediction]:
    return list(RunFolder(outcome.folder).iter_predictions())


def ingested(model: Scripted) -> list[Request]:
    return [r for r in model.requests if r.messages[-1].content.startswith("Digest:")]


class Breaking(Scripted):
    """A model that fails for good after some calls."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    async def complete(self, request: Request, group: str) -> Response:
        if len(self.requests) >= self.calls:
            raise BackendError("the model is gone")
        return await super().complete(request, group)


def test_a_second_run_with_another_k_ingests_nothing(tmp_path: Path) -> None:
    data = conversation(tmp_path / "data")
    first, model = run(tmp_path, f"{TOY}Digest", data)
    assert len(ingested(model)) == 3
    second, model = run(tmp_path, f"{TOY}Digest", data, assignments=["k=1", "memory_tokens=50"])
    assert ingested(model) == []
    assert first.folder != second.folder
    assert profile_of(second).reused
    assert to_json(profile_of(first).state) == to_json(profile_of(second).state)


def test_a_longer_history_pays_for_its_own_batches(tmp_path: Path) -> None:
    """Acceptance 2: continued from a prefix, and whole: the same state to the byte."""
    data = conversation(tmp_path / "short", sessions=3)
    run(tmp_path / "a", f"{TOY}Digest", data)
    data = conversation(tmp_path / "long", sessions=5)
    continued, model = run(tmp_path / "a", f"{TOY}Digest", data)
    assert len(ingested(model)) == 2
    whole, _ = run(tmp_path / "b", f"{TOY}Digest", data)
    states = {to_json(profile_of(outcome).state) for outcome in (continued, whole)}
    assert len(states) == 1
    # The books have the calls of all batches.
    assert len(profile_of(continued).calls) == len(profile_of(whole).calls) == 5
    assert profile_of(continued).flags == profile_of(whole).flags


@pytest.mark.parametrize("policy", ["use", "off"])
def test_a_killed_ingestion_resumes_at_its_batch(tmp_path: Path, policy: str) -> None:
    """Acceptance 2: the resumed run makes the calls that were missing, and ends in equal bytes."""
    data = conversation(tmp_path / "data", sessions=6)
    broken, model = run(
        tmp_path / "a", f"{TOY}Digest", data, backend=Breaking(4), limit=1, cache=policy
    )
    assert lines_of(broken)[-1].error
    journal = MemoryJournal(MemoryJournal.path_of(broken.folder, "conv-0"))
    with journal.path.open("ab") as file:
        file.write(b'{"key": "torn')
    resumed, model = run(tmp_path / "a", f"{TOY}Digest", data, limit=1, cache=policy)
    assert resumed.folder == broken.folder
    assert len(ingested(model)) == 2
    whole, _ = run(tmp_path / "b", f"{TOY}Digest", data, limit=1)
    assert to_json(profile_of(resumed).state) == to_json(profile_of(whole).state)
    assert len(profile_of(resumed).calls) == 6
    assert not any(call.cached for call in profile_of(resumed).calls)


def test_a_refresh_ingests_again(tmp_path: Path) -> None:
    data = conversation(tmp_path / "data")
    run(tmp_path, f"{TOY}Digest", data)
    _, model = run(tmp_path, f"{TOY}Digest", data, cache="refresh")
    assert len(ingested(model)) == 3


def test_questions_leave_the_state_and_one_another_as_they_are(tmp_path: Path) -> None:
    """Acceptance 3: 100 questions in two orders have the same predictions."""
    data = conversation(tmp_path / "data", questions=100)
    answers = []
    for name, concurrency in (("a", 1), ("b", 64)):
        outcome, _ = run(tmp_path / name, f"{TOY}Digest", data, concurrency=concurrency)
        lines = lines_of(outcome)
        assert len(lines) == 100
        # Three sessions are ingested once for all questions.
        assert outcome.summary.usage["profile"].calls == 3
        answers.append({line.sample_id: line.output for line in lines})
    assert answers[0] == answers[1]


def test_a_memory_that_writes_while_it_retrieves_fails_with_its_name(tmp_path: Path) -> None:
    data = conversation(tmp_path / "data", questions=1)
    outcome, _ = run(tmp_path, f"{TOY}Counting", data)
    (line,) = lines_of(outcome)
    assert line.error is not None
    assert "Counting.retrieve" in line.error
    assert "changed the state" in line.error


def test_ingestion_sees_no_question_and_no_request_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acceptance 4 and 5: a clock of another century changes no request."""
    data = conversation(tmp_path / "data")
    _, model = run(tmp_path / "a", f"{TOY}Digest", data)
    for request in ingested(model):
        assert SENTINEL not in str(request)
    today = datetime.date.today()
    for request in model.requests:
        assert today.isoformat() not in str(request)
        assert f"{today.day} {today:%B %Y}" not in str(request)

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 4e9)
    _, later = run(tmp_path / "b", f"{TOY}Digest", data)
    assert sorted(map(str, later.requests)) == sorted(map(str, model.requests))


def test_items_show_the_dates_of_their_records(tmp_path: Path) -> None:
    data = conversation(tmp_path / "data", questions=1)
    _, model = run(tmp_path, f"{TOY}Verbatim", data)
    prompt = "\n".join(message.content for message in model.requests[-1].messages)
    assert "[2001-03-02T09:05] Bo: In week 1 I bought 1 lamps" in prompt
    assert "Today is Sunday, 4 March 2001, 09:05." in prompt


def metrics_of(outcome: Outcome) -> dict[str, Any]:
    return dict(outcome.summary.metrics["official"])


def test_evidence_is_that_of_the_items_shown(tmp_path: Path) -> None:
    """Acceptance 6: everything shown recalls all evidence, nothing shown none."""
    data = conversation(tmp_path / "data")
    outcome, _ = run(tmp_path, f"{TOY}Verbatim", data)
    assert metrics_of(outcome)["evidence-recall"] == 1.0
    assert metrics_of(outcome)["records-shown"] == 12
    outcome, _ = run(tmp_path, "none", data)
    assert metrics_of(outcome)["evidence-recall"] == 0.0
    outcome, _ = run(tmp_path, f"{TOY}Digest", data)
    assert metrics_of(outcome)["evidence-recall"] == 1.0

    outcome, _ = run(tmp_path, f"{TOY}Unsourced", data)
    assert "evidence-recall" not in metrics_of(outcome)
    assert outcome.summary.counters["shown_unknown"] == 4
    assert {line.shown for line in lines_of(outcome)} == {None}


@pytest.mark.parametrize("budget", [10, 50, 200])
def test_the_budget_cuts_between_items(tmp_path: Path, budget: int) -> None:
    """Acceptance 7: whole items, best first, and the row has the count."""
    data = conversation(tmp_path / "data", questions=1)
    outcome, model = run(tmp_path, f"{TOY}Verbatim", data, assignments=[f"memory_tokens={budget}"])
    (line,) = lines_of(outcome)
    note = line.interaction["method"]["memory"]
    prompt = model.requests[-1].messages[-1].content
    items = [text for text in prompt.splitlines() if text.startswith("[2001")]
    counted = model.tokens.count("\n".join(items)) if items else 0
    assert note["tokens"] == counted <= budget
    assert note["items"] == len(items) == {10: 0, 50: 2, 200: 9}[budget]
    newest = [
        f"In week {week} I bought {turn} lamps" for week in (3, 2, 1) for turn in (4, 3, 2, 1)
    ]
    for text, item in zip(newest, items, strict=False):
        assert text in item
    assert line.flags["memory_over_budget"] == 12 - len(items)
    assert outcome.summary.counters["memory_tokens"] == counted


def test_items_are_dropped_until_the_request_fits_the_window(tmp_path: Path) -> None:
    data = conversation(tmp_path / "data", questions=1)
    outcome, _ = run(tmp_path, f"{TOY}Verbatim", data, backend=Scripted(window=350))
    (line,) = lines_of(outcome)
    assert line.error is None
    assert 0 < line.interaction["method"]["memory"]["items"] < 12
    assert line.shown is not None
    assert len(line.shown) == line.interaction["method"]["memory"]["items"]


def test_ingestion_is_booked_apart_from_questions(tmp_path: Path) -> None:
    """Acceptance 10: the tokens of both add up to those of the run."""
    data = conversation(tmp_path / "data")
    outcome, model = run(tmp_path, f"{TOY}Digest", data)
    usage = outcome.summary.usage
    assert (usage["profile"].calls, usage["predict"].calls) == (3, 4)
    everything = sum(
        model.tokens.count(message.content) for r in model.requests for message in r.messages
    )
    assert usage["profile"].input_tokens + usage["predict"].input_tokens == everything
    counters = outcome.summary.counters
    assert counters["memory_state_items"] == 3
    assert counters["history_tokens"] > 0
    assert counters["memory_state_bytes"] == len(to_json(profile_of(outcome).state["memory"]))
    assert counters["digested"] == 3

    finished = [Run(outcome.summary, outcome.folder)]
    (board,) = boards(finished, options=BoardOptions(results=tmp_path))
    (row,) = board.rows
    assert row.costs.history_tokens == counters["history_tokens"]
    assert row.costs.memory_tokens == counters["memory_tokens"] / 4
    (note,) = [note for note in board.notes if note.startswith("Memory of digest")]
    assert "ingestion 3 calls" in note
    assert "at the end 3 items" in note


@pytest.mark.parametrize(
    "sessions", [50, pytest.param(500, marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.parametrize("name", ["Verbatim", "Digest", "Rewriting"])
def test_checkpoints_take_at_most_three_times_the_state(
    tmp_path: Path, name: str, sessions: int
) -> None:
    """Acceptance 13: the journal and the stored state of a long history."""
    data = conversation(tmp_path / "data", sessions=sessions, turns=2, questions=1)
    tracemalloc.start()
    outcome, _ = run(tmp_path, f"{TOY}{name}", data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500e6
    profile = profile_of(outcome)
    state = len(to_json(profile.state))
    path = MemoryJournal.path_of(outcome.folder, "conv-0")
    stored = sum(
        len(to_json(part))
        for line in map(json.loads, path.read_text().splitlines())
        for name, part in line.items()
        if name in ("state", "change")
    )
    # Beside the journal, the store of all runs has the last state.
    assert stored + state <= 3 * state
    last = list(MemoryJournal(path).replay())[-1][1]
    assert to_json(last) == to_json(profile.state)


def test_an_engine_owned_method_is_refused() -> None:
    with pytest.raises(UsageError, match="memory Greedy defines `predict`"):

        class Greedy(Verbatim):
            async def predict(self, *args: Any) -> str:
                return "I know better."


def test_a_wrong_item_is_the_memorys_fault(tmp_path: Path) -> None:
    data = conversation(tmp_path / "data", questions=1)
    outcome, _ = run(tmp_path, f"{TOY}Worded", data)
    (line,) = lines_of(outcome)
    assert line.error is not None
    assert "Worded.retrieve" in line.error
    assert "it contains str" in line.error


def test_the_plan_counts_the_calls_of_ingestion(tmp_path: Path) -> None:
    """Acceptance 10: from the units of the history, before any call."""
    data = conversation(tmp_path / "data", sessions=5)
    options = Options(
        [f"{TOY}Digest"], ["locomo"], data=data, backend="scripted", results=tmp_path / "none"
    )
    (forecast,) = asyncio.run(plan(options))
    outcome, _ = run(tmp_path, f"{TOY}Digest", data)
    usage = outcome.summary.usage
    assert forecast.calls == {phase: usage[phase].calls for phase in ("profile", "predict")}


def test_inspect_prints_items_with_sources_and_the_log_of_edits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = conversation(tmp_path / "data", sessions=2)
    outcome, _ = run(tmp_path, f"{TOY}Digest", data)
    view = read_memory(RunFolder(outcome.folder), "conv-0")
    assert [item.record_ids for item in view.items] == [
        [f"D{week}:{turn}" for turn in range(1, 5)] for week in (1, 2)
    ]
    assert [[change[:2] for change in edit.changes] for edit in view.log] == [
        [("+", "0")],
        [("+", "1")],
    ]
    inspect.memory(str(outcome.folder), "conv-0", log=True, results=tmp_path, json=False)
    text = capsys.readouterr().out
    assert "items    2" in text
    assert "← D2:1, D2:2, D2:3, D2:4" in text
    assert "batch 2: D2:1, D2:2, D2:3, D2:4 (1 calls, digested 1)" in text

    inspect.memory(str(outcome.folder), "conv-0", log=True, results=tmp_path, json=True)
    assert len(json.loads(capsys.readouterr().out)["log"]) == 2
    with pytest.raises(UsageError, match="no memory of user 'nobody'; it has: conv-0"):
        read_memory(RunFolder(outcome.folder), "nobody")


def test_rounds_of_an_online_task_are_ingested() -> None:
    """The interaction after feedback is a further batch of the same contract."""
    memory = Verbatim()
    result = trial(memory, Daily(), roles={"simulator": lambda request: "longer"})
    assert {line.error for line in result.predictions} == {None}
    later = [r for r in result.requests if "Say something for day a3" in str(r)]
    assert "[3] " in later[-1].messages[-1].content
    last = [line for line in result.predictions if line.sample_id == "a3"]
    assert last[0].flags["memory_items"] == 3


@pytest.mark.parametrize("budget", [40, 120])
def test_one_budget_holds_for_every_method(tmp_path: Path, budget: int) -> None:
    """Rows of one table: records, notes and items alike; unset, the identity is what it was."""
    data = conversation(tmp_path / "data", questions=1)
    sampling = Sampling(memory_tokens=budget)
    used = {}
    for method in ("none", "rag", "recency", "summary", f"{TOY}Verbatim"):
        settings = ["k=1000"] if method != "none" else []
        outcome, _ = run(tmp_path, method, data, sampling=sampling, assignments=settings, limit=1)
        (line,) = lines_of(outcome)
        assert line.error is None
        used[method] = line.flags["memory_tokens"]
        assert used[method] <= budget
    assert used["none"] == 0
    assert min(amount for method, amount in used.items() if method != "none") > budget / 3
    assert "memory_tokens" not in to_json(Sampling())


def test_another_reader_shares_what_the_profiler_ingested(tmp_path: Path) -> None:
    data = conversation(tmp_path / "data")
    profiler = BackendOptions(model="writer", role="profile")
    profilers = []
    for reader in ("small", "large"):
        model = Scripted(BackendOptions(model=reader))
        profilers.append(Scripted(profiler))
        options = Options(
            [f"{TOY}Digest"],
            ["locomo"],
            data=data,
            backend="scripted",
            results=tmp_path,
            roles={"profiler": ("scripted", profiler)},
        )
        roles: dict[RoleName, Backend] = {"profiler": profilers[-1]}
        (outcome,) = asyncio.run(runner.run(options, backend=model, roles=roles))
        assert ingested(model) == []
        assert outcome.summary.status == "complete"
    assert [len(ingested(model)) for model in profilers] == [3, 0]
