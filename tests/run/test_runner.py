"""From options to finished runs: fingerprints, resume, plans, and a command that is killed or
interrupted."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import CLI, Jittery, ModelServer, headlines, model_server, options

from personabench.errors import BackendDown, BackendError, RunError, UsageError
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.results.run_folder import RunFolder
from personabench.results.summary import to_dict
from personabench.run import runner
from personabench.types import Request, Response, Sampling

METHODS = "none,rag,summary,dpl"


def run(
    chosen: runner.Options, backend: Backend | None = None, **more: Any
) -> list[runner.Outcome]:
    return asyncio.run(runner.run(chosen, backend=backend, **more))


def lines(folder: Path) -> dict[str, Any]:
    return {line.sample_id: line for line in RunFolder(folder).iter_predictions()}


# What a run is


def fingerprint(chosen: runner.Options, backend: Backend | None = None) -> str:
    (job,) = runner.resolve(chosen, backend or Scripted(chosen.backend_options))
    return job.spec.fingerprint


def test_place_size_and_pace_do_not_change_the_fingerprint(tmp_path: Path) -> None:
    base = fingerprint(options(tmp_path))
    assert fingerprint(options(tmp_path / "elsewhere")) == base
    changes: list[dict[str, Any]] = [
        {"limit": 5},
        {"concurrency": 3},
        {"cache": "refresh"},
        {"backend_options": BackendOptions(base_url="http://127.0.0.1:1/v1")},
        {"backend_options": BackendOptions(timeout=3.0)},
        {"split": "user/dev"},
        {"assignments": ["task.template=chat"]},
    ]
    for change in changes:
        assert fingerprint(options(tmp_path, **change)) == base, change


def test_whatever_can_change_a_prediction_changes_the_fingerprint(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"methods": "rag"},
        {"methods": "rag", "assignments": ["k=2"]},
        {"tasks": "lamp3"},
        {"assignments": ["task.template=lamp-official"]},
        {"seed": 1},
        {"sampling": Sampling(temperature=0.5)},
        {"sampling": Sampling(max_tokens=9)},
        {"history": "shuffled"},
        {"split": "time/dev"},
        {"data": headlines(tmp_path / "one", 4)},
        {"data": headlines(tmp_path / "two", 5)},
        {"backend_options": BackendOptions(model="other")},
        {"backend_options": BackendOptions(window=4096)},
    ]
    assert len({fingerprint(options(tmp_path, **change)) for change in changes}) == len(changes)


def test_a_copy_of_the_data_is_the_same_run(tmp_path: Path) -> None:
    one, two = (
        fingerprint(options(tmp_path, data=headlines(tmp_path / name, 4)))
        for name in ("one", "two")
    )
    assert one == two


def test_two_methods_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        text = "from personabench.methods.rag import Rag\n\n\nclass Own(Rag):\n    name = 'own'\n"
        (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(UsageError, match=r"one\.py and .*two\.py are both called 'own'"):
        runner.resolve(
            options(tmp_path, methods=f"{tmp_path}/one.py,{tmp_path}/two.py"), Scripted()
        )


def test_a_task_parameter_goes_to_the_tasks_that_have_it(tmp_path: Path) -> None:
    asked = options(tmp_path, tasks="lamp4,prefdisco", assignments=["task.max_turns=3"])
    lamp, prefdisco = runner.resolve(asked, Scripted())
    assert "max_turns" not in lamp.spec.task_params
    assert prefdisco.spec.task_params["max_turns"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": "nune"}, "no method named 'nune'; did you mean none"),
        ({"limit": 0}, "--limit 0: at least 1"),
        ({"assignments": ["k=3"]}, "method none has no parameter 'k'"),
        (
            {"methods": "none,rag", "assignments": ["kk=3"]},
            "--set kk: none of the methods none, rag",
        ),
        (
            {"assignments": ["task.lenght=3"]},
            "task lamp4 has no parameter 'lenght'; did you mean length",
        ),
        (
            {"tasks": "lamp4,reviews", "assignments": ["task.rounds=3"]},
            "none of the tasks lamp4, reviews has",
        ),
        ({"methods": "rag", "assignments": ["summary.k=3"]}, "'summary' is not part of this run"),
        ({"history": "borrowed"}, "choose own, none, shuffled or size=N"),
        ({"methods": "rag", "assignments": ["k=-1"]}, "method rag: k is -1"),
        (
            {"methods": "rag", "assignments": ["retriever=ranked"]},
            "ranked retrieval has no ranking for question",
        ),
    ],
)
def test_what_cannot_work_is_refused_and_the_model_let_go(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    class Closing(Scripted):
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    backend = Closing()
    with pytest.raises(UsageError) as caught:
        run(options(tmp_path / "results", **change), backend)
    assert message in str(caught.value) and backend.closed
    assert not (tmp_path / "results").exists()


def test_a_shared_parameter_goes_to_the_methods_that_have_it(tmp_path: Path) -> None:
    jobs = runner.resolve(
        options(tmp_path, "none,rag,recency", assignments=["k=2", "rag.k=7"]), Scripted()
    )
    assert [job.spec.params.get("k") for job in jobs] == [None, 7, 2]


def test_a_question_without_a_ranking_is_named_before_anything_runs(tmp_path: Path) -> None:
    data = headlines(tmp_path / "data", 3)
    names = [entry["id"] for entry in json.loads((data / "dev_questions.json").read_text())]
    (tmp_path / "ranking.json").write_text(json.dumps({name: [] for name in names[:2]}))
    chosen = options(
        tmp_path / "results",
        "rag",
        data=data,
        assignments=["retriever=ranked", f"ranking={tmp_path}/ranking.json"],
    )
    with pytest.raises(UsageError, match=f"no ranking for question {names[2]}"):
        run(chosen, Scripted())
    assert not (tmp_path / "results").exists()
    (outcome,) = run(dataclasses.replace(chosen, history="none"), Scripted())
    assert outcome.summary.n == 3


# Running, repeating, extending


def test_the_same_command_again_makes_no_call_and_no_other_scores(tmp_path: Path) -> None:
    chosen = options(tmp_path, METHODS, limit=8)
    first = run(chosen, Jittery())
    kept = [(out.folder / "scores.jsonl").read_bytes() for out in first]

    class Untouchable(Jittery):
        async def open(self, log: Path | None = None) -> None:
            raise AssertionError("the model was loaded for nothing")

    again = run(chosen, Untouchable())
    assert [(out.folder / "scores.jsonl").read_bytes() for out in again] == kept
    for one, two in zip(first, again, strict=True):
        before, after = to_dict(one.summary), to_dict(two.summary)
        changed = {name for name, value in before.items() if after[name] != value}
        assert changed <= {"time"} and one.summary.status == "complete"


@pytest.mark.parametrize("task", ["lamp3", "lamp4"])
def test_concurrency_1_and_256_give_the_same_predictions(tmp_path: Path, task: str) -> None:
    seen = []
    for concurrency in (1, 256):
        place = tmp_path / str(concurrency)
        outcomes = run(options(place, METHODS, task, concurrency=concurrency, limit=12), Jittery())
        seen.append(
            [
                (
                    (out.folder / "scores.jsonl").read_bytes(),
                    {
                        name: (line.parsed, line.flags, line.usage)
                        for name, line in lines(out.folder).items()
                    },
                )
                for out in outcomes
            ]
        )
    assert seen[0] == seen[1]


def test_a_larger_limit_goes_on_and_a_smaller_one_takes_nothing_away(tmp_path: Path) -> None:
    data = headlines(tmp_path / "data", 30, each=2)
    ns = []
    for limit in (5, 20, 5):
        backend = Jittery()
        (out,) = run(options(tmp_path / "results", data=data, limit=limit), backend)
        ns.append((out.summary.n, backend.asked.total()))
        assert out.summary.status == "complete" and out.summary.users * 2 == out.summary.n
    assert ns == [(6, 6), (20, 14), (20, 0)]


def test_failed_samples_are_counted_and_owed_again(tmp_path: Path) -> None:
    class Picky(Jittery):
        async def complete(self, request: Request, group: str) -> Response:
            if "q00003-0" in request.messages[-1].content:
                raise BackendError("400: not this one")
            return await super().complete(request, group)

    chosen = options(tmp_path / "results", data=headlines(tmp_path / "data", 8))
    (out,) = run(chosen, Picky())
    assert (out.summary.status, out.summary.n, out.summary.owed) == ("incomplete", 7, 1)
    assert out.summary.counters["request_errors"] == 1
    assert len((out.folder / "scores.jsonl").read_text().splitlines()) == 7
    backend = Jittery()
    (out,) = run(chosen, backend)
    assert (out.summary.status, out.summary.n, backend.asked.total()) == ("complete", 8, 1)
    assert lines(out.folder)["q00003-0"].attempts == 2


def test_a_model_that_goes_down_ends_the_run_with_what_is_done(tmp_path: Path) -> None:
    class Falling(Jittery):
        async def complete(self, request: Request, group: str) -> Response:
            if self.asked.total() >= 9:
                raise BackendDown("503; given up after 300 s of retries")
            return await super().complete(request, group)

    chosen = options(tmp_path / "results", data=headlines(tmp_path / "data", 30), concurrency=4)
    with pytest.raises(
        RunError, match=r"503; given up .*\n9 of 30 samples are done and kept in .*results"
    ):
        run(chosen, Falling())
    backend = Jittery()
    (out,) = run(chosen, backend)
    assert out.summary.n == 30 and backend.asked.total() == 21


def test_cache_only_fails_what_is_not_stored_and_pays_nothing(tmp_path: Path) -> None:
    data = headlines(tmp_path / "data", 12)
    run(options(tmp_path, data=data, limit=5), Jittery())
    for folder in (tmp_path / "runs").rglob("predictions.jsonl"):
        folder.unlink()
    backend = Jittery()
    (out,) = run(options(tmp_path, data=data, cache="only"), backend)
    assert not backend.asked and (out.summary.n, out.summary.owed) == (5, 7)
    assert out.summary.usage["predict"].cached == 5


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"seconds": "many"}'])
def test_a_damaged_summary_is_made_anew(tmp_path: Path, damage: str) -> None:
    chosen = options(tmp_path, data=headlines(tmp_path / "data", 3))
    (first,) = run(chosen, Scripted())
    (first.folder / "summary.json").write_text(damage)
    backend = Jittery()
    (again,) = run(chosen, backend)
    assert backend.asked.total() == 0 and again.summary.metrics == first.summary.metrics
    assert RunFolder(first.folder).summary().n == 3


def test_seconds_add_up_over_attempts(tmp_path: Path) -> None:
    data = headlines(tmp_path / "data", 6)
    seconds = [
        run(options(tmp_path, data=data, limit=limit), Scripted(latency=0.03))[0].summary.seconds
        for limit in (2, 4, 6, 6)
    ]
    assert seconds[0] >= 0.03 and seconds[0] + 0.06 <= seconds[2] == seconds[3]


def test_attempts_have_their_own_logs(tmp_path: Path) -> None:
    class Logging(Scripted):
        async def open(self, log: Path | None = None) -> None:
            self.log = log

    backend = Logging()
    (out,) = run(options(tmp_path, "rag", history="size=0", limit=1), backend)
    assert backend.log == out.folder / "attempts" / "001.log" and backend.log.exists()


def test_a_lamp_run_leaves_predictions_in_the_official_form(tmp_path: Path) -> None:
    (out,) = run(options(tmp_path, data=headlines(tmp_path / "data", 5)), Jittery())
    written = json.loads((out.folder / "predictions.json").read_text())
    assert written["task"] == "LaMP_4"
    assert {gold["id"]: gold["output"] for gold in written["golds"]} == {
        name: line.output for name, line in lines(out.folder).items()
    }


# A command that is killed, interrupted, doubled, or runs out of disk


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    data = headlines(tmp_path / "data", 24, each=3)

    def start(server: ModelServer, method: str) -> subprocess.Popen[str]:
        args = [
            "run",
            "--method",
            method,
            "--task",
            "lamp4",
            "--data",
            str(data),
            "--backend",
            "openai",
        ]
        args += [
            "--base-url",
            server.url,
            "--results",
            str(tmp_path / "results"),
            "--concurrency",
            "6",
        ]
        environment = {**os.environ, "OPENAI_API_KEY": "none", "COLUMNS": "200"}
        return subprocess.Popen([*CLI, *args], stdout=-1, stderr=-1, text=True, env=environment)

    return start


def only_run(results: Path) -> Path:
    (found,) = (results / "runs").rglob("spec.json")
    return found.parent


def test_after_kill_9_the_same_command_gives_the_same_scores_and_pays_nothing_twice(
    tmp_path: Path, command: Callable[..., subprocess.Popen[str]]
) -> None:
    with model_server(latency=0.03) as server:
        process = command(server, "summary")
        server.wait_for(40, process)
        process.kill()
        process.wait()
        folder = only_run(tmp_path / "results")
        with (folder / "predictions.jsonl").open("ab") as file:
            file.write(b'{"sample_id":"q000')
        with sqlite3.connect(tmp_path / "results" / "cache.sqlite") as stored:
            finished = stored.execute("SELECT count(*) FROM responses").fetchone()[0]
        before = server.asked.copy()
        assert 20 <= finished < 96 and before.total() - finished <= 6

        _, err = command(server, "summary").communicate()
        resumed = server.asked - before
        assert resumed.total() == 96 - finished, err
        assert all(count == 1 for count in resumed.values())
        assert sum(count == 2 for count in server.asked.values()) == before.total() - finished
        kept = (folder / "scores.jsonl").read_bytes()
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["status"] == "complete" and summary["n"] == 72
        assert (
            summary["usage"]["profile"]["calls"] == 24
            and summary["usage"]["predict"]["calls"] == 72
        )

        whole = options(
            tmp_path / "whole",
            "summary",
            data=tmp_path / "data",
            backend="openai",
            backend_options=BackendOptions(base_url=server.url),
            concurrency=16,
        )
        (uninterrupted,) = run(whole)
        assert (uninterrupted.folder / "scores.jsonl").read_bytes() == kept
        assert uninterrupted.folder.name == folder.name
        assert uninterrupted.summary.metrics == summary["metrics"]


def test_ctrl_c_finishes_what_is_in_flight_and_says_how_to_go_on(
    tmp_path: Path, command: Callable[..., subprocess.Popen[str]]
) -> None:
    with model_server(latency=0.15) as server:
        process = command(server, "none")
        server.wait_for(15, process)
        same = options(
            tmp_path / "results",
            data=tmp_path / "data",
            backend="openai",
            backend_options=BackendOptions(base_url=server.url),
        )
        with pytest.raises(
            UsageError, match=r"another process is writing to .*; wait for it or stop it"
        ):
            run(same)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        folder = only_run(tmp_path / "results")
        done = len(lines(folder))
        assert process.returncode == 130 and "Traceback" not in err, err
        assert done == server.asked.total() < 72
        assert f"{72 - done} samples are owed. Go on with the same command:" in err
        assert "--concurrency 6" in err.splitlines()[-1]
        assert json.loads((folder / "summary.json").read_text())["owed"] == 72 - done

        (resumed,) = run(same)
        assert resumed.folder == folder and resumed.summary.n == 72
        assert server.asked.total() == 72 and set(server.asked.values()) == {1}


def test_a_disk_that_fills_up_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    data = headlines(tmp_path / "data", 120)
    args = [
        "run",
        "--method",
        "none",
        "--task",
        "lamp4",
        "--data",
        str(data),
        "--backend",
        "scripted",
    ]
    args += ["--results", str(tmp_path / "results"), "--cache", "off", "--concurrency", "4"]
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_011, 20_011))\n"
        "from personabench.cli.app import main; main()"
    )
    full = subprocess.run(
        [sys.executable, "-B", "-c", limited, *args], capture_output=True, text=True, check=False
    )
    assert (
        full.returncode == 1
        and "Traceback" not in full.stderr
        and "never retrieved" not in full.stderr
    )
    assert (
        "predictions.jsonl cannot be written" in full.stderr
        and "then repeat the command" in full.stderr
    )
    folder = only_run(tmp_path / "results")
    done = lines(folder)
    assert 10 < len(done) < 120 and not any(line.error for line in done.values())
    assert (folder / "predictions.jsonl").read_bytes().endswith(b"}\n")

    chosen = options(tmp_path / "results", data=data, cache="off")
    backend = Jittery()
    (out,) = run(dataclasses.replace(chosen, concurrency=4), backend)
    assert out.folder == folder and out.summary.n == 120
    assert backend.asked.total() == 120 - len(done)
