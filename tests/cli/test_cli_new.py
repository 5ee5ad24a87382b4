"""`personabench new`: a task and a method that pass their tests and every check as written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command


def run_pytest(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_new_task_and_a_new_method_pass_at_once(personabench: Command, tmp_path: Path) -> None:
    said = personabench("new", "task", "tastes", "--folder", "mine")
    assert said.code == 0
    assert said.out.startswith("wrote mine/tastes.py, mine/tastes.jsonl and mine/test_tastes.py")
    assert personabench("new", "method", "newest", "--folder", "mine").code == 0

    tests = run_pytest(tmp_path / "mine")
    assert tests.returncode == 0, tests.stdout
    assert "5 passed" in tests.stdout
    checked = personabench("check", "task", "mine/tastes.py")
    assert checked.code == 0 and "FAIL" not in checked.out


@pytest.mark.variants
def test_the_tests_of_a_new_task_find_faults(personabench: Command, tmp_path: Path) -> None:
    personabench("new", "task", "tastes")
    path = tmp_path / "tastes.py"
    path.write_text(path.read_text().replace("references=(row[", "hidden={}, attributes=(row["))
    tests = run_pytest(tmp_path)
    assert tests.returncode == 1
    assert "attributes is ('4',) (tuple), expected a dictionary of texts" in tests.stdout


@pytest.mark.variants
def test_a_new_task_runs_on_the_packaged_model(personabench: Command, tmp_path: Path) -> None:
    personabench("new", "task", "tastes")
    ended = personabench("run", "--task", "tastes.py", "--method", "rag", "-n", "2", "--json")
    assert ended.code == 0, ended.err
    (summary,) = ended.json
    assert (summary["n"], summary["users"]) == (2, 1)
    assert summary["counters"]["parse_failures"] == 0, "examples show the form of the answer"
    assert 0 <= summary["metrics"]["official"]["MAE"] <= 4


def test_data_may_be_a_file_or_a_folder_of_splits(
    personabench: Command, refused: Callable[..., str], tmp_path: Path
) -> None:
    personabench("new", "task", "tastes")
    rows = (tmp_path / "tastes.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "more.jsonl").write_text("".join(rows[:4]))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/dev.jsonl").write_text("".join(rows[:6]))
    words = ["run", "--task", "tastes.py", "--method", "none", "--backend", "scripted", "--json"]

    def count(*more: object) -> int:
        ended = personabench(*words, *more)
        assert ended.code == 0, ended.err
        return int(ended.json[0]["n"])

    assert [count(), count("--data", "more.jsonl"), count("--data", "folder")] == [12, 4, 6]
    sample_id = json.loads(next(tmp_path.rglob("predictions.jsonl")).read_text().splitlines()[0])
    shown = personabench("show", "last", sample_id["sample_id"], "--task", "tastes.py", "--json")
    assert shown.json["references"], "the file is opened again"

    assert "tastes has no split 'test'" in refused(*words, "--split", "test")
    assert "lamp4 reads a folder of files" in refused(
        "run", "-t", "lamp4", "-m", "none", "-b", "scripted", "--data", "more.jsonl"
    )
    assert "does not exist" in refused(*words, "--data", "none.jsonl")


def test_shards_of_a_task_with_a_data_file_are_merged(
    personabench: Command, tmp_path: Path
) -> None:
    personabench("new", "task", "tastes")
    (tmp_path / "tastes.jsonl").rename(tmp_path / "more.jsonl")
    words = ["run", "--task", "tastes.py", "--method", "none", "--backend", "scripted"]
    for part in ("1/2", "2/2"):
        assert personabench(*words, "--data", "more.jsonl", "--shard", part).code == 0
    merged = personabench("merge", "--task", "tastes.py", "--json")
    assert merged.code == 0, merged.err
    assert merged.json[0]["n"] == 12


@pytest.mark.parametrize("kind", ["method", "task"])
def test_names_and_files_that_are_taken_are_refused(
    kind: str, personabench: Command, refused: Callable[..., str]
) -> None:
    taken = {"method": "rag", "task": "lamp4"}[kind]
    hidden = {"method": "context", "task": "record"}[kind]
    assert "'My-Plugin'" in refused("new", kind, "My-Plugin")
    for word in ("none", "true", "class", "import"):
        assert f"'{word}' is a Python keyword" in refused("new", kind, word)
    assert "json.py would hide Python's module 'json'" in refused("new", kind, "json")
    assert f"class {hidden.capitalize()} would hide" in refused("new", kind, hidden)
    assert f"a {kind} '{taken}' exists already" in refused("new", kind, taken)
    assert personabench("new", kind, "mine").code == 0
    assert "mine.py exists" in refused("new", kind, "mine")
