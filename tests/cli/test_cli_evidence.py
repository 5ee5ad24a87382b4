"""Records shown and evidence: from a task's marks to metrics, tables, exports and pages."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Command

from personabench.api import registry

TASK = """
from personabench import Dataset, Message, Metric, Record, Rendered, Sample, Task, Vocabulary

TOPICS = ("violin", "harbour", "garden", "kettle", "train")


class Talks(Dataset):
    separation, split, sample, hash, source = "user", "dev", True, "talks", "own talks"

    def index(self):
        return [(f"{user}-{topic}", user) for user in "abcdefgh" for topic in TOPICS]

    def load(self, position):
        name, user = self.index()[position]
        topic = name.split("-")[1]
        # The ids are the same for all users, as turns of a conversation often are.
        history = tuple(
            Record(f"D{number}", None, f"{user} says: my {word}, number {number}, is a joy to me.")
            for number, word in enumerate(TOPICS * 2)
        )
        first = TOPICS.index(topic)
        evidence = () if topic == "train" else (f"D{first}", f"D{first + 5}")
        return Sample(
            name, user, f"What about the {topic.upper()}?", history=history,
            references=("a joy",), evidence=evidence,
        )


class Talking(Task):
    name = "talking"
    metrics = (Metric("length"),)
    scorers = ("official",)
    max_tokens = 8
    words = Vocabulary("speaker", "turn", "turn", "What do they like?", (), "Answer.")
    TOKENIZER

    def open(self, split, data):
        return Talks()

    def render(self, sample, records, notes, tokens):
        listed = "\\n".join(record.response for record in records)
        return Rendered((Message("user", f"{notes}\\n{listed}\\n{sample.input}"),), tuple(records))

    def parse(self, output, sample, scorer):
        return output

    def measure(self, parsed, sample):
        return {"length": len(parsed or "")}

    RETRIEVAL
"""


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_given", {})


def write(path: Path, tokenizer: str = "", retrieval: str = "") -> Path:
    path.write_text(TASK.replace("TOKENIZER", tokenizer).replace("RETRIEVAL", retrieval))
    return path


def run(personabench: Command, task: Path, *words: object, method: str = "rag") -> dict[str, Any]:
    options = ("-m", method, "-t", task, "-b", "scripted", *words, "--json")
    ended = personabench("run", *options)
    assert ended.code == 0, ended.err
    (summary,) = ended.json
    return summary  # type: ignore[no-any-return]


def predictions(summary: dict[str, Any]) -> list[dict[str, Any]]:
    lines = (Path(summary["folder"]) / "predictions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def evidence(summary: dict[str, Any]) -> dict[str, float]:
    metrics = summary["metrics"]["official"]
    return {name: value for name, value in metrics.items() if name != "length"}


def test_recall_and_precision_of_the_evidence(personabench: Command, tmp_path: Path) -> None:
    task = write(tmp_path / "talking.py")
    rag = run(personabench, task, "--set", "k=4")
    assert evidence(rag) == {
        "evidence-recall": 1.0, "evidence-precision": 0.5, "records-shown": 4.0,
    }  # fmt: skip
    assert rag["higher_is_better"]["records-shown"] is False

    full = evidence(run(personabench, task, method="full"))
    assert full == {"evidence-recall": 1.0, "evidence-precision": 0.2, "records-shown": 10.0}
    # Nothing shown has a recall but no precision.
    none = evidence(run(personabench, task, method="none"))
    assert none == {"evidence-recall": 0.0, "records-shown": 0.0}

    shown = {line["sample_id"]: line["shown"] for line in predictions(rag)}
    assert set(shown["a-violin"]) >= {"D0", "D5"}
    scores = (Path(rag["folder"]) / "scores.jsonl").read_text().splitlines()
    without_marks = [json.loads(line) for line in scores if "-train" in line]
    assert len(without_marks) == 8
    assert all(set(line["values"]["official"]) == {"length"} for line in without_marks)


@pytest.mark.model
@pytest.mark.variants
def test_a_real_model_answers_with_the_records_in_sight(
    personabench: Command, tmp_path: Path
) -> None:
    task = write(tmp_path / "talking.py")
    options = ("-m", "rag", "-t", task, "--limit", 1, "--set", "k=2", "--json")
    ended = personabench("run", *options)
    assert ended.code == 0, ended.err
    (summary,) = ended.json
    assert evidence(summary) == {
        "evidence-recall": 1.0, "evidence-precision": 1.0, "records-shown": 2.0,
    }  # fmt: skip
    table = personabench("leaderboard", "--task", task).out
    assert "evidence-recall" in table and "records-shown" in table


def test_the_tokenizer_is_part_of_a_run(personabench: Command, tmp_path: Path) -> None:
    words = run(personabench, write(tmp_path / "words.py"), "--set", "k=2")
    assert evidence(words)["evidence-recall"] == 1.0
    assert "bm25_no_match" not in words["counters"]
    spec = json.loads((Path(words["folder"]) / "spec.json").read_text())
    assert spec["tokenizer"] == "words"

    # "VIOLIN?" occurs nowhere, and no other word of the question does.
    task = write(tmp_path / "blanks.py", tokenizer='tokenizer = "whitespace"')
    blanks = run(personabench, task, "--set", "k=2", "--results", tmp_path / "other")
    assert evidence(blanks)["evidence-recall"] < 0.5
    assert blanks["counters"]["bm25_no_match"] == 40
    spec = json.loads((Path(blanks["folder"]) / "spec.json").read_text())
    assert "tokenizer" not in spec


def test_an_unknown_tokenizer_is_refused_before_any_call(
    personabench: Command, refused: Callable[..., str], tmp_path: Path
) -> None:
    task = write(tmp_path / "talking.py", tokenizer='tokenizer = "stems"')
    message = refused("run", "-m", "rag", "-t", task, "-b", "scripted")
    assert "Talking (" in message and "talking.py, line" in message
    assert "unknown tokenizer 'stems', expected one of words, whitespace" in message


@pytest.mark.parametrize(
    ("retrieval", "message"),
    [
        ("return {'recall': 1.0}", "it returned a value of 'recall', which is none of its metrics"),
        ("return shown", "expected a finite number for each metric of retrieval, by name"),
        ("return {'evidence-recall': None}", "the value of 'evidence-recall' is"),
    ],
)
def test_faulty_measures_of_retrieval_are_named(
    personabench: Command, tmp_path: Path, retrieval: str, message: str
) -> None:
    own = f"\n    def measure_retrieval(self, sample, shown):\n        {retrieval}\n"
    task = write(tmp_path / "talking.py", retrieval=own)
    ended = personabench("run", "-m", "rag", "-t", task, "-b", "scripted")
    assert ended.code != 0 and "Traceback" not in ended.err
    assert "Talking.measure_retrieval" in ended.err and message in ended.err


def test_marks_that_are_no_list_are_named(personabench: Command, tmp_path: Path) -> None:
    task = write(tmp_path / "talking.py")
    task.write_text(task.read_text().replace("evidence=evidence", "evidence=topic"))
    ended = personabench("run", "-m", "rag", "-t", task, "-b", "scripted")
    assert ended.code != 0 and "Traceback" not in ended.err
    assert "`evidence` of sample" in ended.err and "not a tuple" in ended.err


def test_check_task_finds_marks_of_no_record(personabench: Command, tmp_path: Path) -> None:
    task = write(tmp_path / "talking.py")
    assert "ok    evidence marks name records" in personabench("check", "task", task).out
    task.write_text(task.read_text().replace('f"D{first + 5}"', '"D99"'))
    ended = personabench("check", "task", task)
    assert ended.code == 1
    assert "evidence marks name records of the history (D99 of a-violin" in ended.out


def test_records_of_another_user_are_no_evidence(personabench: Command, tmp_path: Path) -> None:
    shuffled = run(personabench, write(tmp_path / "talking.py"), "--history", "shuffled")
    assert evidence(shuffled)["evidence-recall"] == 0
    assert evidence(shuffled)["records-shown"] == 8
    shown = personabench("show", shuffled["folder"], "a-violin", "--task", "talking.py").out
    assert re.search(r"^shown +8 records of another user: D\d", shown, re.MULTILINE)
    assert re.search(r"^evidence +D0, D5; not shown: D0, D5$", shown, re.MULTILINE)


def test_a_task_may_measure_retrieval_itself(personabench: Command, tmp_path: Path) -> None:
    own = """
    metrics = (Metric("length"), Metric("all-found"))

    def measure_retrieval(self, sample, shown):
        return {"all-found": float(set(sample.evidence) <= set(shown))}
"""
    summary = run(personabench, write(tmp_path / "talking.py", retrieval=own), "--set", "k=1")
    assert evidence(summary) == {"all-found": 0.2}


def test_lines_of_earlier_versions_are_scored_without_evidence(
    personabench: Command, tmp_path: Path
) -> None:
    task = write(tmp_path / "talking.py")
    summary = run(personabench, task)
    path = Path(summary["folder"]) / "predictions.jsonl"
    lines = predictions(summary)
    for line in lines[:-1]:
        del line["shown"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = run(personabench, task)
    assert again["n"] == 40
    # The last line, of a question without marks, is the only one that says what it showed.
    assert evidence(again) == {}
    assert again["counters"]["shown_unknown"] == 32
    shown = personabench("show", again["folder"], "a-violin", "--task", task)
    assert "shown       –" in shown.out


def test_a_reused_profile_keeps_its_records(personabench: Command, tmp_path: Path) -> None:
    task = write(tmp_path / "talking.py")

    def profiles() -> list[dict[str, Any]]:
        summary = run(personabench, task, method="summary")
        folder = Path(summary["folder"])
        lines = (folder / "artifacts" / "profiles.jsonl").read_text().splitlines()
        shutil.rmtree(folder)
        return [json.loads(line) for line in lines]

    first, second = profiles(), profiles()
    assert [line["reused"] for line in second] == [True] * 8
    assert [line["shown"] for line in second] == [line["shown"] for line in first]
    assert all(set(line["shown"]) == {f"D{number}" for number in range(10)} for line in first)


def test_shards_keep_the_records(personabench: Command, tmp_path: Path) -> None:
    task = write(tmp_path / "talking.py")
    for shard in ("1/2", "2/2"):
        ended = personabench("run", "-m", "rag", "-t", task, "-b", "scripted", "--shard", shard)
        assert ended.code == 0, ended.err
    (merged,) = personabench("merge", "--json").json
    whole = run(personabench, task, "--results", tmp_path / "whole")
    assert evidence(merged) == evidence(whole) and evidence(whole)["evidence-recall"] == 1.0
    assert [line["shown"] for line in predictions(merged)] == [
        line["shown"] for line in predictions(whole)
    ]


def test_show_export_and_report_have_them(personabench: Command, tmp_path: Path) -> None:
    task = write(tmp_path / "talking.py")
    summary = run(personabench, task, "--set", "k=1")
    run(personabench, task, method="none")
    folder = summary["folder"]

    shown = personabench("show", folder, "a-violin", "--task", task).out
    assert re.search(r"^shown +1 record: D[05]$", shown, re.MULTILINE)
    assert re.search(r"^evidence +D0, D5; not shown: D[05]$", shown, re.MULTILINE)
    facts = personabench("show", folder, "a-violin", "--task", task, "--json").json
    assert facts["evidence"] == ["D0", "D5"] and len(facts["shown"]) == 1

    target = tmp_path / "run.csv"
    exported = personabench("export", folder, "--to", "csv", "--task", task, "--output", target)
    assert exported.code == 0, exported.err
    with target.open(newline="") as file:
        rows = {row["sample_id"]: row for row in csv.DictReader(file)}
    row = rows["a-violin"]
    assert json.loads(row["shown"]) == facts["shown"]
    assert json.loads(row["evidence"]) == ["D0", "D5"]
    assert row["evidence-recall"] == "0.5" and rows["a-train"]["evidence-recall"] == ""

    page = tmp_path / "report.html"
    assert personabench("report", "--task", task, "-o", page).code == 0
    records = report_records(page.read_text(), "pack-0-0")
    marks = {record["evidence"]: record["rows"] for record in records}
    assert set(marks) == {True} and sorted(len(record["rows"]) for record in records) == [0, 1]


def report_records(page: str, name: str) -> list[dict[str, Any]]:
    """The records of the first sample of a pack."""
    (text,) = re.findall(rf'<script[^>]*id="{name}"[^>]*>(.*?)</script>', page, re.DOTALL)
    pack = json.loads(gzip.decompress(base64.b64decode(text)))
    return pack["samples"][0]["records"]  # type: ignore[no-any-return]
