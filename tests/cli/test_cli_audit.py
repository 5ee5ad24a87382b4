"""`personabench audit` and the line that runs keep of it."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Command
from engine_fixtures import headlines


def contaminate(folder: Path) -> Path:
    """LaMP data whose golds stand in their own user's profile."""
    data = headlines(folder, 8)
    questions = json.loads((data / "dev_questions.json").read_text())
    golds = json.loads((data / "dev_outputs.json").read_text())["golds"]
    for question, gold in zip(questions, golds, strict=True):
        gold["output"] = f"{gold['output']} of {gold['id']} at sea"
        question["profile"][0]["title"] = gold["output"]
    (data / "dev_questions.json").write_text(json.dumps(questions))
    (data / "dev_outputs.json").write_text(json.dumps({"task": "LaMP_4", "golds": golds}))
    return data


def test_the_audit_prints_counts_and_examples(personabench: Command, tmp_path: Path) -> None:
    data = contaminate(tmp_path / "d")
    ended = personabench("audit", "lamp4", "--data", data)
    assert ended.code == 0 and "FOUND  8 of 8 questions have their gold in their own history" in (
        ended.out
    )
    assert "sample q00000-0, user u00000, record 000, text " in ended.out
    assert "and 3 more" in ended.out and "no question has a time" in ended.out

    audited = personabench("audit", "lamp4", "--data", data, "--json").json
    (leak,) = (defect for defect in audited["defects"] if defect["name"] == "gold_in_history")
    assert (leak["count"], leak["of"], len(leak["examples"])) == (8, 8, 5)
    assert audited["source"].endswith("dev_questions.json") and audited["leaks"]


def test_options_of_the_task_choose_what_is_looked_at(personabench: Command) -> None:
    plain, rotated = (
        personabench("audit", "personamem_v2", "--json", *options).json["samples"]
        for options in ((), ("--set", "task.rotations=4"))
    )
    assert rotated == 4 * plain
    missing = personabench("check", "task", "personabench_qa", "--set", "task.noise=0.7")
    assert missing.code == 2 and "has no noise 0.7; it has: 0.0" in missing.err


def test_a_run_warns_and_readers_show_what_the_audit_found(
    personabench: Command, tmp_path: Path
) -> None:
    data = contaminate(tmp_path / "d")
    ended = personabench(
        "run", "-m", "copy_nearest", "-t", "lamp4", "-b", "scripted", "--data", data
    )
    line = "audit of all 8 questions: 8 of 8 questions have their gold in their own history"
    assert line in " ".join(ended.err.split())
    assert "0.8750" in ended.out
    for words in (("show", "last"), ("leaderboard",)):
        assert line in " ".join(personabench(*words).out.split())

    quiet = personabench(
        "run", "-m", "none", "-t", "lamp4", "-b", "scripted", "--data", headlines(tmp_path / "c", 4)
    )
    assert "audit" not in quiet.err
    assert "audit of all 4 questions: nothing found" in " ".join(quiet.out.split())


def test_check_task_names_what_a_run_would_warn_of(personabench: Command, tmp_path: Path) -> None:
    data = headlines(tmp_path / "d", 4)
    path = data / "dev_questions.json"
    questions = json.loads(path.read_text())
    for question in questions:
        question["input"] = question["input"].partition(": ")[2]
    path.write_text(json.dumps(questions))
    ended = personabench("check", "task", "lamp4", "--data", data)
    assert ended.code == 0, "the data runs"
    assert "inputs lack the official wording" in " ".join(ended.out.split())
    ran = personabench("run", "-m", "none", "-t", "lamp4", "-b", "scripted", "--data", data)
    assert "inputs lack the official wording" in " ".join(ran.err.split())
