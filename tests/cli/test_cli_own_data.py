"""A CSV and chats become runs, boards and reports, without a class."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command

from personabench.api import registry
from personabench.results import locate

MAP = "user=customer,question=text,answer=reply,time=date"


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
def tables(tmp_path: Path) -> Path:
    """Questions of eight customers, and what they wrote before."""
    customers = [f"c{number}" for number in range(8)]
    with (tmp_path / "qa.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["customer", "text", "reply", "date"])
        for customer in customers:
            for day in (10, 11):
                question = f"How does {customer} reset device {day}?"
                writer.writerow(
                    [customer, question, f"Dear {customer}, hold it.", f"2024-05-{day}"]
                )
    with (tmp_path / "chats.jsonl").open("w") as file:
        for customer in customers:
            for month in (1, 2, 3):
                message = f"{customer} asked about button {month}"
                row = {"customer": customer, "message": message, "date": f"2024-0{month}-01"}
                file.write(json.dumps(row) + "\n")
    return tmp_path


def test_tables_run_and_their_task_file_runs_again(
    personabench: Command, tables: Path, forgetful: Callable[[], None]
) -> None:
    own = ("--data", "qa.csv", "--history", "chats.jsonl", "--map", MAP)
    ended = personabench(
        "run", *own, "-m", "none,rag", "-b", "scripted", "--save-task", "mine.toml"
    )
    assert ended.code == 0, ended.err
    assert ended.out.startswith("your data: mine · scripted · n=16, 8 users")
    assert "16 questions (16 with an answer) of 8 users, who have 3 records each" in ended.err
    assert "kind of answer: text" in ended.err

    forgetful()
    again = personabench("run", "-t", "mine.toml", "-m", "rag", "-b", "scripted", "--json")
    assert again.json[0]["usage"]["predict"]["cached"] == 0, "the same run is only scored again"
    shuffled = personabench(
        "run", "-t", "mine.toml", "-m", "rag", "-b", "scripted", "--history", "shuffled", "--json"
    )
    assert shuffled.json[0]["history"] == "shuffled"


def test_unused_columns_and_missing_answers_are_named(personabench: Command, tables: Path) -> None:
    # `reply` is no usual name of an answer.
    ended = personabench(
        *("run", "--data", "qa.csv", "--history", "chats.jsonl", "--map", "question=text"),
        *("-m", "none", "-b", "scripted"),
    )
    assert ended.code == 0, ended.err
    assert "your data: columns that are not used: reply\n" in ended.err
    assert "no column holds the answers, so that nothing is scored; --map answer=" in ended.err
    own = ("--data", "qa.csv", "--history", "chats.jsonl", "--map", MAP)
    complete = personabench("run", *own, "-m", "none", "-b", "scripted").err
    assert "not used" not in complete and "no column holds" not in complete


def test_readers_know_the_task_and_find_moved_tables(
    personabench: Command, tables: Path, forgetful: Callable[[], None]
) -> None:
    own = ("--data", "qa.csv", "--history", "chats.jsonl", "--map", MAP)
    assert personabench("run", *own, "-m", "none,rag", "-b", "scripted").code == 0
    forgetful()
    ended = personabench("export", "last", "--to", "csv", "-o", "run.csv")
    assert (ended.code, ended.err) == (0, "wrote run.csv: 16 samples\n")
    assert "Dear c3, hold it." in Path("run.csv").read_text()
    assert personabench("list", "runs").out.count("your data: qa") == 2

    Path("moved").mkdir()
    shutil.move("qa.csv", "moved/qa.csv")
    forgetful()
    lost = personabench("export", "last", "--to", "csv", "-o", "run.csv")
    assert "the data is no longer in" in lost.err
    assert "name its place with --data" in lost.err
    for words in (
        ("export", "last", "--to", "csv", "-o", "run.csv", "--data", "moved"),
        ("report", "-o", "report.html", "--data", "moved"),
    ):
        forgetful()
        ended = personabench(*words)
        assert ended.code == 0
        assert "left out" not in ended.err, ended.err


def test_a_copy_of_a_benchmark_is_not_called_by_its_name(
    personabench: Command, tmp_path: Path
) -> None:
    import personabench as package

    sample = Path(package.__file__).parents[1] / "tasks/lamp/sample/lamp4"
    shutil.copytree(sample, tmp_path / "mine")
    ended = personabench("run", "-t", "lamp4", "-m", "none", "-b", "scripted", "--data", "mine")
    assert ended.out.startswith("your data: mine (user/dev, read as lamp4) · scripted")


def test_options_that_exclude_each_other_are_refused(
    refused: Callable[..., str], tables: Path
) -> None:
    run = ("run", "-m", "none", "-b", "scripted")
    assert "name a task with --task" in refused(*run)
    assert "leave out --task lamp4" in refused(*run, "-t", "lamp4", "--map", "user=customer")
    message = refused(*run, "--data", "qa.csv", "--history", "none", "--history", "shuffled")
    assert "at most one control" in message
    assert "write ROLE=COLUMN" in refused(*run, "--data", "qa.csv", "--map", "user")


@pytest.mark.variants
@pytest.mark.model
def test_the_packaged_model_answers_own_questions(personabench: Command, tables: Path) -> None:
    own = ("--data", "qa.csv", "--history", "chats.jsonl", "--map", MAP)
    ended = personabench("run", *own, "-m", "rag", "-n", "2", "--json")
    assert ended.code == 0, ended.err
    (summary,) = ended.json
    assert summary["n"] == 2
    assert summary["counters"]["empty_output"] == 0


def test_a_control_without_another_users_records_is_named_and_measures_nothing(
    personabench: Command, tables: Path, forgetful: Callable[[], None]
) -> None:
    # Any two users share one of three messages, and nobody has all of them.
    messages = ("Be kind.", "Be brief.", "Be bold.")
    with (tables / "chats.jsonl").open("a") as file:
        for number in range(8):
            for message in messages[: number % 3] + messages[number % 3 + 1 :]:
                row = {"customer": f"c{number}", "message": message, "date": "2024-04-01"}
                file.write(json.dumps(row) + "\n")
    own = ("--data", "qa.csv", "--history", "chats.jsonl", "--map", MAP, "--save-task", "mine.toml")
    assert personabench("run", *own, "-m", "none,rag", "-b", "scripted").code == 0
    forgetful()
    control = ("run", "-t", "mine.toml", "-m", "rag", "-b", "scripted", "--history", "shuffled")
    ended = personabench(*control)
    missing = sum(
        row["counters"].get("no_donor", 0) for row in personabench(*control, "--json").json
    )
    assert missing == 16
    assert "16 samples of --history shuffled got no records" in ended.err
    note = "16 of 16 samples got no other user's records"
    assert note in " ".join(ended.out.split())
    rows = personabench("leaderboard", "--json").json
    rag = next(row for row in rows if row["label"] == "rag")
    assert rag["shuffled_gain"] is None
    assert "no gain is measured against it" in " ".join(personabench("leaderboard").out.split())
