"""`run`, `leaderboard` and `score` as a new user types them, on scripted answers."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command

from personabench.api.registry import load_class
from personabench.errors import UsageError

SAMPLE = "example data, not LaMP"
RUN = ("run", "-b", "scripted", "-t", "lamp4", "-n", "4")


def test_run_ends_with_a_table_and_the_run_folder(personabench: Command) -> None:
    ended = personabench(*RUN, "-m", "none,rag")
    assert ended.code == 0
    assert SAMPLE in ended.out and SAMPLE in ended.err
    assert "rouge-1 ↑" in ended.out and "lamp4/user/dev · scripted" in ended.out
    folders = [
        Path(line.strip())
        for line in ended.out.splitlines()
        if line.startswith("  results/runs/lamp4/")
    ]
    assert [folder.parts[3] for folder in folders] == ["none", "rag"]
    assert all((folder / "summary.json").is_file() for folder in folders)


def test_run_json_is_a_summary_per_run(personabench: Command) -> None:
    ended = personabench(*RUN, "-m", "none,rag", "--set", "k=2", "--json")
    none, rag = ended.json
    assert (none["source"], none["sample"], none["status"]) == (SAMPLE, True, "complete")
    assert (none["method"], rag["changed"]) == ("none", {"k": 2})
    assert none["n"] >= 4 and set(none["metrics"]) == {"official", "lenient"}
    stored = json.loads((Path(rag["folder"]) / "summary.json").read_text())
    assert stored.pop("sha256")
    assert stored == {key: value for key, value in rag.items() if key != "folder"}


def test_the_same_command_again_calls_nothing(personabench: Command) -> None:
    first = personabench(*RUN, "-m", "summary", "--json").json[0]
    attempts = Path(first["folder"], "attempts")
    again = personabench(*RUN, "-m", "summary", "--json")
    assert again.json[0]["metrics"] == first["metrics"] and again.json[0]["usage"] == first["usage"]
    assert len(list(attempts.glob("*.log"))) == 2
    assert "summary on lamp4" not in again.err


def test_cache_only_answers_what_is_stored_and_fails_what_is_not(personabench: Command) -> None:
    personabench(*RUN, "-m", "none")
    allowed = load_class("task", "lamp4").max_tokens
    stored = personabench(*RUN, "-m", "none", "--cache", "only", "--max-tokens", allowed)
    assert stored.code == 0
    missing = personabench(*RUN, "-m", "none", "--cache", "only", "--max-tokens", 7)
    assert missing.code == 1
    assert (
        f"max_tokens: wanted 7, stored {allowed}" in missing.err
        and "repeat the command" in missing.err
    )


def test_several_tasks_and_methods_with_parameters_of_one(personabench: Command) -> None:
    ended = personabench(
        "run", "-b", "scripted", "-t", "lamp3,lamp4", "-m", "none,rag", "-n", 3, "--set", "rag.k=1"
    )
    assert ended.code == 0
    assert ended.out.count("rag (k=1) §  ") == 2
    assert "lamp3/user/dev" in ended.out and "MAE ↓" in ended.out


@pytest.mark.parametrize("history", ["none", "shuffled", "size=2"])
def test_controls_are_named_on_the_board(personabench: Command, history: str) -> None:
    assert f"rag (history={history})" in personabench(*RUN, "-m", "rag", "--history", history).out


def test_a_method_by_path_outside_the_repository(personabench: Command, tmp_path: Path) -> None:
    (tmp_path / "shout.py").write_text(
        "from personabench import Method\n\n\n"
        "class Shout(Method):\n"
        '    "Answer in capitals."\n'
        "    async def predict(self, sample, state, ctx):\n"
        "        return (await ctx.answer(sample)).upper()\n"
    )
    (summary,) = personabench(*RUN, "-m", "./shout.py", "--json").json
    assert (summary["method"], summary["status"]) == ("shout", "complete")


def test_plan_prices_what_is_owed_and_calls_nothing(personabench: Command, tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text('{"scripted": {"input": 1000000, "output": 0}}')
    (row,) = personabench(*RUN, "-m", "none", "--dry-run", "--prices", "prices.json", "--json").json
    assert row["calls"] == row["owed"] == row["to_pay"] + row["cached"]
    # Tokens are estimated, and printed as whole numbers.
    assert row["price"] == pytest.approx(row["input_tokens"], abs=1) and row["price"] > 0
    assert not (tmp_path / "results").exists()
    plain = personabench(*RUN, "-m", "none", "--dry-run").out
    assert "Plan: no model has been called" in plain and "the longest" not in plain
    ranged = personabench(
        "run", "-b", "scripted", "-t", "lamp2m", "-n", "6", "-m", "rpm", "--dry-run"
    ).out
    assert re.search(r"rpm +\d+ +(\d+)–(\d+) ", ranged) and "requested again" in ranged
    personabench(*RUN, "-m", "none")
    (row,) = personabench(*RUN, "-m", "none", "--dry-run", "--json").json
    assert (row["owed"], row["calls"]) == (0, 0)


def test_every_form_of_the_leaderboard_names_the_example_data(
    personabench: Command, tmp_path: Path
) -> None:
    personabench(*RUN, "-m", "none,rag")
    assert SAMPLE in personabench("leaderboard").out
    assert SAMPLE in personabench("leaderboard", "-f", "md").out
    rows = personabench("leaderboard", "-f", "json").json
    assert rows == personabench("leaderboard", "--json").json
    assert {row["source"] for row in rows} == {SAMPLE}
    table = list(csv.DictReader(personabench("leaderboard", "-f", "csv").out.splitlines()))
    assert {row["source"] for row in table} == {SAMPLE}
    assert [float(row["rouge-1"]) for row in table] == [row["rouge-1"] for row in rows]
    for name, form in (
        ("board.txt", "table"),
        ("board.md", "md"),
        ("board.csv", "csv"),
        ("board.json", "json"),
    ):
        assert personabench("leaderboard", "-f", form, "-o", name).out == ""
        assert SAMPLE in (tmp_path / name).read_text()


def test_score_reads_what_a_run_submits(personabench: Command, tmp_path: Path) -> None:
    from personabench.tasks.lamp.records import SAMPLES

    (summary,) = personabench("run", "-b", "scripted", "-t", "lamp4", "-m", "none", "--json").json
    files = (
        "--predictions",
        f"{summary['folder']}/predictions.json",
        "--references",
        SAMPLES / "lamp4/dev_outputs.json",
    )
    flat = personabench("score", "-t", "lamp4", *files, "--json")
    official = summary["metrics"]["official"]
    assert {name: flat.json[name] for name in official} == pytest.approx(official, abs=1e-12)
    assert "n=60 (all ids)" in flat.err
    assert "parse failures 0, null outputs 0" in flat.err
    ended = personabench("score", "-t", "lamp4", *files)
    assert "official scorer, n=60 (all ids)" in ended.out and "rouge-1" in ended.out


def test_a_metric_that_cannot_be_had_does_not_hide_the_table(
    personabench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(script: str) -> None:
        raise UsageError(f"the metric '{script}' cannot be loaded")

    monkeypatch.setattr("personabench.metrics.external._load_metric", missing)
    ended = personabench(
        "run",
        "-b",
        "scripted",
        "-t",
        "lamp4",
        "-m",
        "none,rag",
        "-n",
        "3",
        "--metric",
        "evaluate:no",
    )
    assert ended.code == 1
    assert "rouge-1" in ended.out and ended.out.count("results/runs/lamp4/") == 2
    assert ended.err.count("error: the metric 'no' cannot be loaded") == 1


def test_a_failed_sample_ends_with_exit_1_and_names_the_sample(
    personabench: Command, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(
        "from personabench import Method\n\n\nclass Broken(Method):\n"
        "    async def predict(self, sample, state, ctx):\n        raise ValueError('no idea')\n"
    )
    ended = personabench(*RUN, "-m", "broken.py")
    assert ended.code == 1
    assert "ValueError: no idea" in ended.err and "Traceback" not in ended.err


def test_the_failure_named_is_of_the_run_that_failed_and_still_holds(
    personabench: Command, tmp_path: Path
) -> None:
    (tmp_path / "moody.py").write_text(
        "from pathlib import Path\n\nfrom personabench import Method\n\n\nclass Moody(Method):\n"
        "    async def predict(self, sample, state, ctx):\n"
        "        raise ValueError(Path('mood').read_text())\n"
    )
    for mood in ("early", "late"):
        (tmp_path / "mood").write_text(mood)
        ended = personabench(*RUN, "-m", "none,moody.py")
        assert ended.code == 1 and f"ValueError: {mood}" in ended.err


def test_users_are_chosen_whole_and_extend_a_run(
    personabench: Command, refused: Callable[..., str]
) -> None:
    words = ("run", "-b", "scripted", "-t", "lamp4", "-m", "none")
    (two,) = personabench(*words, "--users", 2, "--json").json
    (eight,) = personabench(*words, "--users", 8, "--json").json
    assert (two["users"], eight["users"]) == (2, 8)
    assert two["folder"] == eight["folder"] and eight["n"] > two["n"]
    ended = personabench(*words, "--users", 99)
    assert re.search(r"users  n=\d+, \d+ users; the data has no more", ended.err)
    assert "--limit 3" in refused(*words, "--users", 2, "--limit", 3)


def test_users_with_the_longest_histories_are_a_choice_of_their_own(
    personabench: Command, tmp_path: Path
) -> None:
    words = ("run", "-b", "scripted", "-t", "lamp4", "-m", "none")
    ended = personabench(*words, "--users", "longest:7")
    assert re.search(r"users  n=\d+, 7 users with the longest histories", ended.err)
    assert "Users: those with the longest histories of the split" in ended.out
    (again,) = personabench(*words, "--users", "longest:8", "--save", "saved.toml", "--json").json
    assert again["users"] == 8 and "the users with the longest" in personabench("show", "last").out
    assert 'users = "longest:8"' in (tmp_path / "saved.toml").read_text()
    assert personabench("run", "saved.toml", "--json").json[0]["folder"] == again["folder"]


@pytest.mark.parametrize("users", ["0", "-1", "longest", "longest:", "longest:0", "most:3", "3.5"])
@pytest.mark.parametrize("verb", [("run", "-m", "none"), ("train", "oppu", "--model", "x")])
def test_a_wrong_choice_of_users_is_named(
    personabench: Command, verb: tuple[str, ...], users: str
) -> None:
    ended = personabench(*verb, "-t", "lamp4", f"--users={users}")
    assert ended.code == 2
    assert f"--users': '{users}': write a number of users from 1" in ended.err


def test_quiet_prints_the_table_and_errors_only(personabench: Command) -> None:
    ended = personabench(*RUN, "-m", "none,rag", "--quiet")
    assert ended.err == "" and ended.code == 0
    assert " a  " in ended.out and "run folder" not in ended.out
    (summary,) = personabench(*RUN, "-m", "none", "-q", "--json").json
    assert summary["status"] == "complete"


def test_a_plan_says_how_long_it_takes_once_calls_are_measured(
    personabench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run", "-b", "scripted", "-t", "lamp4", "-m", "summary")
    assert "No time: no run here has called scripted yet" in personabench(*words, "--dry-run").out
    personabench(*words, "--users", 2)
    (row,) = personabench(*words, "--dry-run", "--json").json
    assert 0 < row["seconds"] <= row["seconds_at_most"]
    monkeypatch.setenv("COLUMNS", "45")
    ended = personabench(*words, "--dry-run").out
    assert "Time: " in ended and "Columns of tokens hidden" in ended
    assert max(map(len, ended.splitlines())) <= 45
