"""The reading and making verbs: show, list, cache, check, new, doctor, and every verb's help."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Command

from personabench.api import registry
from personabench.metrics import meteor

METHODS = ("dpl", "none", "rag", "random", "recency", "summary")
ONE_OF_A_KIND = ("lamp4", "personamem", "prelude_summ")
TASKS = (
    *("aloe", "bespoke", "community_alignment"),
    *(f"lamp{n}" for n in ("1", "2m", "2n", "3", "4", "5", "6", "7")),
    *("lampqa", "locomo", "longlamp_abstract", "longlamp_email", "longlamp_review"),
    *("longlamp_topic", "longmemeval", "penguin", "personabench_qa", "personafeedback"),
    *("personafeedback_gen", "personalized_rewardbench", "personalllm", "personalllm_gen"),
    *("personamem", "personamem_v2", "personamem_v2_gen", "plume_email", "plume_summ"),
    *("prefdisco", "prefdisco_warm"),
    *("prefeval", "prefeval_gen", "prelude_email", "prelude_summ", "prism", "psoups"),
    *("restraint", "reviews", "usafebench"),
)
RUN = ("run", "-b", "scripted", "-t", "lamp4", "-n", "4")
DRY_TASKS = [
    pytest.param(name, marks=pytest.mark.variants if name in ONE_OF_A_KIND else pytest.mark.slow)
    for name in TASKS
]


@pytest.fixture
def run(personabench: Command) -> dict[str, Any]:
    """A finished run of `summary` on the example data."""
    found: dict[str, Any] = personabench(*RUN, "-m", "summary", "--json").json[0]
    return found


def test_show_names_a_run_by_folder_by_fingerprint_and_as_the_last(
    personabench: Command, run: dict[str, Any]
) -> None:
    for name in (run["folder"], run["fingerprint"][:8], run["fingerprint"], "last"):
        assert personabench("show", name, "--json").json == run
    text = personabench("show", "last").out
    assert (
        "example data, not LaMP" in text and run["fingerprint"] in text and "profile calls" in text
    )


def test_show_sample_tells_messages_answer_references_scores_and_calls(
    personabench: Command, run: dict[str, Any]
) -> None:
    line = Path(run["folder"], "predictions.jsonl").read_text().splitlines()[0]
    sample_id = line.partition('"sample_id":"')[2].partition('"')[0]
    facts = personabench("show", "last", sample_id, "--json").json
    assert facts["sample_id"] == sample_id
    assert [call["phase"] for call in facts["calls"]] == ["profile", "predict"]
    assert facts["calls"][-1]["reply"] == facts["output"]
    assert facts["profile"] in facts["calls"][-1]["messages"][0]["content"]
    assert len(facts["references"]) == 1 and set(facts["values"]) == {"official", "lenient"}
    text = personabench("show", "last", sample_id).out
    assert facts["references"][0] in text and "profile call" in text and facts["output"] in text


def test_the_last_run_is_one_that_was_scored(personabench: Command) -> None:
    none = personabench("show", "last")
    assert none.code == 2 and "no runs under results/runs" in none.err
    (summary,) = personabench(*RUN, "-m", "none", "--json").json
    folder = personabench(*RUN, "-m", "rag", "--json").json[0]["folder"]
    Path(folder, "summary.json").unlink()
    assert personabench("show", "last", "--json").json == summary
    unscored = personabench("show", folder)
    assert unscored.code == 2 and "the run did not get that far; repeat its command" in unscored.err


def test_show_sample_tells_the_state_its_own_answer_was_made_with(
    personabench: Command, tmp_path: Path
) -> None:
    from personabench.tasks.lamp.records import SAMPLES

    (tmp_path / "data").mkdir()
    questions = json.loads((SAMPLES / "lamp4" / "dev_questions.json").read_bytes())[:2]
    for number, question in enumerate(questions):
        question |= {"user_id": "ann", "profile": question["profile"][: number + 2]}
    golds = [{"id": question["id"], "output": "A Headline"} for question in questions]
    (tmp_path / "data" / "dev_questions.json").write_text(json.dumps(questions))
    (tmp_path / "data" / "dev_outputs.json").write_text(
        json.dumps({"task": "LaMP_4", "golds": golds})
    )
    personabench("run", "-b", "scripted", "-t", "lamp4", "-m", "summary", "--data", "data")
    shown = [personabench("show", "last", question["id"], "--json").json for question in questions]
    for facts in shown:
        assert facts["profile"] in facts["calls"][-1]["messages"][0]["content"]
    assert shown[0]["profile"] != shown[1]["profile"]


def test_show_dry_prints_what_the_run_then_sends(personabench: Command) -> None:
    words = ("-m", "rag", "-t", "lamp4", "--set", "k=2", "--wording", "full")
    dry = personabench("show", "--dry-run", *words, "--sample", "310", "--json").json
    assert not Path("results").exists()
    personabench("run", "-b", "scripted", *words)
    sent = personabench("show", "last", "310", "--json").json
    assert [call["messages"] for call in dry["calls"]] == [
        call["messages"] for call in sent["calls"]
    ]
    assert dry["source"] == "example data, not LaMP"
    text = personabench("show", "--dry-run", *words, "--sample", "310").out
    assert dry["calls"][0]["messages"][-1]["content"] in text and "1 call(s), none made" in text


def test_show_dry_says_where_a_reply_would_be_quoted(personabench: Command) -> None:
    text = personabench("show", "--dry-run", "-m", "summary", "-t", "lamp4", "--sample", "310").out
    assert "2 call(s)" in text and "stands for an earlier reply" in text


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(
            name, marks=pytest.mark.variants if name in ONE_OF_A_KIND else pytest.mark.slow
        )
        for name in TASKS
    ],
)
def test_show_dry_prints_the_prompts_of_every_method_that_runs(
    personabench: Command, task: str
) -> None:
    """A method that asks a model asks it the question, and nothing is left behind."""
    chosen = registry.load_class("task", task)()
    first = next(iter(chosen.open(chosen.default_split, None).samples()))
    question = (first.stimulus or first.input).strip()[:60]
    methods = registry.list_entries("method")
    for row in personabench("list", "matrix", "--task", task, "--json").json:
        # It needs a server or a package of the user's.
        if methods[row["method"]].facts.get("external"):
            continue
        ended = personabench(
            "show", "--dry-run", "-m", row["method"], "-t", task, "--sample", first.id, "--json"
        )
        if row["fit"] == "refused":
            assert (ended.code, row["reason"] in ended.err) == (2, True), row
            continue
        assert ended.code == 0, (row, ended.err)
        prompts = [
            message["content"] for call in ended.json["calls"] for message in call["messages"]
        ]
        assert not prompts or any(question in prompt for prompt in prompts), row
    assert not Path("results").exists()


def test_list_offers_what_is_built_in(personabench: Command) -> None:
    assert [row["name"] for row in personabench("list", "tasks", "--json").json] == list(TASKS)
    assert {row["name"] for row in personabench("list", "methods", "--json").json} >= set(METHODS)
    assert [row["name"] for row in personabench("list", "backends", "--json").json][:2] == [
        "local",
        "openai",
    ]
    metrics = personabench("list", "metrics", "--json").json
    assert {"task": "lamp3", "metric": "MAE", "better": "lower", "primary": True} in metrics
    lines = personabench("list", "tasks").out.splitlines()
    assert lines[0].split() == ["name", "kind", "origin", "title"] and len(lines) == 1 + len(TASKS)


def test_list_runs(personabench: Command, run: dict[str, Any]) -> None:
    (row,) = personabench("list", "runs", "--json").json
    assert (row["run"], row["rouge-1"]) == (
        run["fingerprint"][:8],
        run["metrics"]["official"]["rouge-1"],
    )
    assert (row["folder"], row["data"]) == (run["folder"], "example data, not LaMP")
    text = personabench("list", "runs").out
    assert (
        f"{run['fingerprint'][:8]}  lamp4/user/dev  summary" in text
        and "example data, not LaMP" in text
    )
    assert personabench("list", "runs", "--results", "elsewhere", "--json").json == []
    assert (
        "no runs under elsewhere/runs" in personabench("list", "runs", "--results", "elsewhere").out
    )


def test_cache_counts_explains_and_forgets(personabench: Command, run: dict[str, Any]) -> None:
    stats = personabench("cache", "stats", "--json").json
    assert (
        stats["responses"] == sum(stats["models"].values()) > 0
        and stats["artifacts"] == run["users"]
    )
    assert f"{stats['responses']} responses" in personabench("cache", "stats").out
    line = Path(run["folder"], "predictions.jsonl").read_text().splitlines()[0]
    sample_id = line.partition('"sample_id":"')[2].partition('"')[0]
    why = ("cache", "why", "-m", "summary", "-t", "lamp4", "-b", "scripted", sample_id)
    assert all(call["stored"] for call in personabench(*why, "--json").json)
    other = personabench(*why, "--temperature", "0.5").out
    assert "missing; nearest differs in temperature: wanted 0.5, stored 0.0" in other
    assert personabench("cache", "prune", "--model", "another").out == "0 responses deleted\n"
    assert (
        personabench("cache", "prune", "--older-than", "0").out
        == f"{stats['responses']} responses deleted\n"
    )
    assert personabench("cache", "stats", "--json").json["responses"] == 0


@pytest.mark.variants
@pytest.mark.parametrize("task", TASKS)
def test_every_task_checks_out(personabench: Command, task: str) -> None:
    ended = personabench("check", "task", task, "--json")
    assert ended.code == 0, [each for each in ended.json if not each["holds"]]


@pytest.mark.variants
@pytest.mark.parametrize("method", METHODS)
def test_every_method_checks_out(personabench: Command, method: str) -> None:
    ended = personabench("check", "method", method, "--json")
    assert ended.code == 0, [each for each in ended.json if not each["holds"]]


@pytest.mark.parametrize("task", ["lamp1", "lamp3"])
def test_a_method_can_be_checked_on_labels_and_ratings(personabench: Command, task: str) -> None:
    assert personabench("check", "method", "rag", "--task", task).code == 0


def test_check_fails_a_method_that_fails(personabench: Command, tmp_path: Path) -> None:
    (tmp_path / "dead.py").write_text(
        "from personabench import Method\n\n\nclass Dead(Method):\n"
        "    async def predict(self, sample, state, ctx):\n        return None\n"
    )
    ended = personabench("check", "method", "dead.py")
    assert ended.code == 1 and "FAIL  every sample gets an answer" in ended.out


def test_a_new_method_passes_its_check_and_runs(personabench: Command) -> None:
    # Its test is run in test_cli_new.
    ended = personabench("new", "method", "my_own", "--folder", "mine")
    assert (
        ended.code == 0
        and "personabench run --method none,mine/my_own.py --task lamp4" in ended.out
    )
    assert personabench("check", "method", "mine/my_own.py").code == 0
    assert "my_own" in personabench(*RUN, "-m", "mine/my_own.py").out


def test_doctor_looks_at_packages_model_and_results(personabench: Command, tmp_path: Path) -> None:
    rows = {
        row["what"]: row["state"] for row in personabench("doctor", "--skip-model", "--json").json
    }
    assert (rows["python"], rows["results folder"]) == ("ok", "ok")
    (tmp_path / "taken").write_text("a file")
    ended = personabench("doctor", "--skip-model", "--results", "taken")
    assert ended.code == 1 and "broken   results folder" in ended.out


def test_doctor_tells_what_each_task_lacks(
    personabench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meteor, "describe_missing_data", lambda: "METEOR is left out; get WordNet")
    rows = {row["what"]: row for row in personabench("doctor", "--skip-model", "--json").json}
    assert {f"task {name}" for name in TASKS} <= rows.keys()
    assert rows["task lamp4"]["state"] == "ok" and "60 samples" in rows["task lamp4"]["detail"]
    assert rows["task reviews"]["state"] == "partly"
    assert "get WordNet" in rows["task reviews"]["detail"]
    monkeypatch.setattr(meteor, "describe_missing_data", lambda: None)
    rows = {row["what"]: row for row in personabench("doctor", "--skip-model", "--json").json}
    assert rows["task reviews"]["state"] == "ok"


@pytest.mark.model
@pytest.mark.variants
def test_doctor_times_calls_of_the_local_model(personabench: Command) -> None:
    rows = {row["what"]: row for row in personabench("doctor", "--json").json}
    detail = rows["local model"]["detail"]
    short, long = map(float, re.findall(r"([\d.]+) s", detail))
    # Other work on the machine may slow either of the two calls down.
    assert rows["local model"]["state"] == "ok" and min(short, long) > 0, detail


def test_doctor_tells_which_keys_are_set_but_no_key(
    personabench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "sk-secret")
    monkeypatch.delenv("SIMULATOR_API_KEY", raising=False)
    ended = personabench("doctor", "--skip-model", "--json")
    details = {row["what"]: row["detail"] for row in ended.json}
    assert details["JUDGE_API_KEY"] == "set" and "sk-secret" not in ended.out
    assert details["SIMULATOR_API_KEY"] == "not set; for a simulator on a server of its own"
    assert {"OPENAI_API_KEY", "EMBEDDER_API_KEY"} <= details.keys()


@pytest.mark.parametrize(
    "verb",
    [
        *(
            "",
            "run",
            "score",
            "leaderboard",
            "compare",
            "publish",
            "show",
            "download",
            "doctor",
            "list",
            "check",
        ),
        *("generate", "merge", "judge", "judge-report"),
        *("cache", "new", "report", "export", "list matrix"),
        *(
            "list methods",
            "list wrappers",
            "list tasks",
            "list backends",
            "list metrics",
            "list runs",
            "check task",
            "check method",
            "check published",
            "init",
        ),
        *("cache stats", "cache why", "cache prune", "new method", "inspect memory"),
    ],
)
def test_every_verb_has_help_that_fits_its_line(
    personabench: Command, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = personabench(*verb.split(), "--help")
    assert ended.code == 0
    assert "..." not in re.sub(r"(\[\w+\]|\{\w+\}|\b(runs|files))\.\.\.", "", ended.out)


def test_the_version(personabench: Command) -> None:
    from personabench import __version__

    assert personabench("--version").out == f"personabench {__version__}\n"


def test_output_into_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    command = (
        f"{sys.executable} -c 'from personabench.cli.app import main; main()' list tasks | true"
    )
    shell = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert "Traceback" not in shell.stderr and "Exception" not in shell.stderr
