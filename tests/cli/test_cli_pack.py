"""A run describes itself, and a pack of runs is read on another machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command

from personabench.api import registry
from personabench.results import locate


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets a test go on as a new process does, which was given no file yet."""
    named_files: dict[object, object] = {}
    data: list[Path] = []
    monkeypatch.setattr(registry, "_given", named_files)
    monkeypatch.setattr(locate, "_given_data", data)

    def forget() -> None:
        named_files.clear()
        data.clear()

    return forget


@pytest.fixture
def own_run(personabench: Command, tmp_path: Path) -> str:
    """A run on own tables; returns its folder."""
    rows = [
        {"user": f"u{number}", "question": f"Question {number}?", "answer": f"Secret {number}"}
        for number in range(6)
    ]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    past = [{"user": f"u{number}", "text": f"u{number} likes tea"} for number in range(6)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in past))
    own = ("--data", "qa.jsonl", "--history", "chats.jsonl")
    ended = personabench("run", *own, "-m", "rag", "-b", "scripted", "--json", "--kind", "text")
    assert ended.code == 0, ended.err
    return str(ended.json[0]["folder"])


def test_a_run_says_its_allowance_command_commit_and_machine(personabench: Command) -> None:
    ended = personabench(
        "run", "-t", "lamp4", "-m", "summary", "-b", "scripted", "-n", "3", "--json"
    )
    (summary,) = ended.json
    assert summary["usage"]["predict"]["max_tokens"] == [32]
    assert summary["usage"]["profile"]["max_tokens"]
    assert summary["command"] == "personabench run -t lamp4 -m summary -b scripted -n 3 --json"
    assert summary["harness"]["version"]
    assert summary["machine"]["cores"] >= 1
    assert list(summary["durations"]) == ["predict"]
    shown = personabench("show", "last").out
    for heading in ("command ", "harness ", "machine ", "wall seconds", "max_tokens 32"):
        assert heading in shown
    # Rescored without a call: the durations of earlier attempts stay.
    (again,) = personabench(
        "run", "-t", "lamp4", "-m", "summary", "-b", "scripted", "-n", "3", "--json"
    ).json
    assert again["durations"] == summary["durations"]


def test_a_pack_with_inputs_is_read_elsewhere(
    personabench: Command, own_run: str, tmp_path: Path, forgetful: Callable[[], None]
) -> None:
    ended = personabench("pack", "-o", "packed", "--inputs", "include")
    assert ended.code == 0, ended.err
    assert personabench("pack", "--check", "packed").out == "packed: whole\n"

    elsewhere = tmp_path / "elsewhere"
    shutil.move("packed", elsewhere)
    for path in ("qa.jsonl", "chats.jsonl", "results"):
        shutil.move(path, f"gone-{path}")
    forgetful()
    words = ("export", "last", "--to", "csv", "-o", "run.csv", "--results", elsewhere)
    ended = personabench(*words)
    assert (ended.code, ended.err) == (0, "wrote run.csv: 6 samples\n")
    assert "Secret 3" in Path("run.csv").read_text()
    assert "u3 likes tea" in Path("run.csv").read_text(), "messages come from the packed cache"
    forgetful()
    report = personabench("report", "-o", "report.html", "--results", elsewhere)
    assert "left out" not in report.err

    with next(elsewhere.glob("runs/*/*/*/*/scores.jsonl")).open("a") as file:
        file.write("x")
    changed = personabench("pack", "--check", elsewhere)
    assert changed.code == 1
    assert "scores.jsonl was changed" in changed.err


def test_a_pack_of_hashes_holds_no_input_and_finds_a_copy(
    personabench: Command, own_run: str, tmp_path: Path, forgetful: Callable[[], None]
) -> None:
    ended = personabench("pack", "last", "-o", "packed")
    assert "not in it, only its hashes: qa.jsonl" in ended.err
    texts = [path.read_bytes() for path in Path("packed").rglob("*") if path.is_file()]
    assert not any(b"Secret 3" in text or b"likes tea" in text for text in texts)
    manifest = json.loads(Path("packed/pack.json").read_text())
    assert set(manifest["data"][0]["files"]) == {"qa.jsonl", "chats.jsonl"}

    Path("copy").mkdir()
    for name in ("qa.jsonl", "chats.jsonl"):
        shutil.move(name, f"copy/{name}")
    forgetful()
    words = ("export", "last", "--to", "csv", "-o", "run.csv", "--results", "packed")
    assert "the data is no longer" in personabench(*words).err
    forgetful()
    assert personabench(*words, "--data", "copy").code == 0
    assert "Secret 3" in Path("run.csv").read_text()


def test_packs_that_cannot_be_written_are_refused(
    refused: Callable[..., str], own_run: str, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "is not empty" in refused("pack", "-o", "full")
    assert "name the new folder" in refused("pack")
    Path("qa.jsonl").unlink()
    assert "has moved or changed" in refused("pack", "-o", "new", "--inputs", "include")


def test_files_that_have_changed_since_a_run_are_not_recorded_as_its_data(
    personabench: Command, own_run: str, tmp_path: Path, forgetful: Callable[[], None]
) -> None:
    chats = Path("chats.jsonl")
    chats.write_text(chats.read_text().replace("tea", "rain"))
    forgetful()
    own = ("--data", "qa.jsonl", "--history", "chats.jsonl", "--kind", "text")
    second = personabench("run", *own, "-m", "rag", "-b", "scripted", "--json").json[0]
    forgetful()
    ended = personabench("pack", "-o", "packed")
    manifest = json.loads(Path("packed/pack.json").read_text())
    files = {data["data_hash"]: set(data["files"]) for data in manifest["data"]}
    assert files.pop(second["data_hash"]) == {"qa.jsonl", "chats.jsonl"}
    ((older, names),) = files.items()
    assert names == set()
    assert f"warning: qa.jsonl (data hash {older[:8]}) has moved or changed" in ended.err


def test_the_files_of_a_moved_benchmark_are_hashed_where_they_are(
    personabench: Command, tmp_path: Path, forgetful: Callable[[], None]
) -> None:
    article = "Generate a headline for the following article: "
    questions = [
        {
            "id": f"{number}",
            "user_id": f"u{number}",
            "input": f"{article}Bridge {number} opens.",
            "profile": [{"id": f"{number}-1", "title": f"Old {number}", "text": f"Text {number}"}],
        }
        for number in range(6)
    ]
    golds = [{"id": f"{number}", "output": f"New Bridge {number}"} for number in range(6)]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "dev_questions.json").write_text(json.dumps(questions))
    (mine / "dev_outputs.json").write_text(json.dumps({"task": "LaMP_4", "golds": golds}))
    assert (
        personabench("run", "-t", "lamp4", "--data", mine, "-m", "rag", "-b", "scripted").code == 0
    )
    shutil.move(mine, tmp_path / "moved")
    forgetful()
    ended = personabench("pack", "-o", "packed", "--data", "moved")
    (data,) = json.loads(Path("packed/pack.json").read_text())["data"]
    assert set(data["files"]) == {"dev_questions.json", "dev_outputs.json"}
    assert "warning" not in ended.err


def test_runs_of_another_machine_are_listed_without_its_folders(
    personabench: Command, own_run: str, tmp_path: Path
) -> None:
    assert str(tmp_path / "qa.jsonl") in personabench("list", "runs").out
    assert personabench("pack", "-o", "packed").code == 0
    Path("qa.jsonl").unlink()
    listed = personabench("list", "runs", "--results", "packed").out
    assert "qa.jsonl" in listed and str(tmp_path) not in listed
