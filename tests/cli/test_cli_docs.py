"""The tables of docs/files.md name the fields that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Command

DOCS = Path(__file__).parents[2] / "docs"


def documented(section: str) -> set[str]:
    """The names in the first column of a section's table in docs/files.md."""
    text = (DOCS / "files.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}


@pytest.fixture
def folder(personabench: Command) -> Path:
    (summary,) = personabench(
        "run", "-b", "scripted", "-t", "lamp4", "-m", "summary", "-n", "3", "--json"
    ).json
    return Path(summary["folder"])


def test_every_field_of_a_run_folder_is_documented_and_there(folder: Path) -> None:
    def first(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folder / name).read_text().splitlines()[0])
        return found

    for name in (
        "spec.json",
        "predictions.jsonl",
        "scores.jsonl",
        "summary.json",
        "artifacts/profiles.jsonl",
    ):
        assert set(first(name)) == documented(name), name


def test_the_submission_is_lamps_own(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    submission = json.loads((folder / "predictions.json").read_text())
    assert submission["task"] == "LaMP_4"
    by_id = {line["sample_id"]: line["output"] for line in lines}
    assert {gold["id"]: gold["output"] for gold in submission["golds"]} == by_id


def test_every_column_of_the_machine_readable_leaderboard_is_documented(
    folder: Path, personabench: Command
) -> None:
    text = (DOCS / "files.md").read_text().partition("## leaderboard")[2].partition("\n## ")[0]
    (row,) = personabench("leaderboard", "--json").json
    metrics = {name for name in row if name.startswith("rouge-")}
    interval = ("", "/low", "/high", "/n")
    ends = ["/lenient"]
    ends += [f"{column}{end}" for column in ("", "/gain") for end in interval]
    common = {f"{metric}/common{end}" for metric in ("rouge-1", "rouge-L") for end in interval}
    expected = {f"{metric}{end}" for metric in ("rouge-1", "rouge-L") for end in ends}
    assert metrics - common == expected
    documented_ends = [end for end in ends if end not in ("", "/lenient")]
    assert all(f"`<metric>{end}`" in text for end in [*documented_ends, "/common"])
    assert not [name for name in row.keys() - metrics if f"`{name}`" not in text]


def test_every_column_of_an_export_is_documented(
    folder: Path, personabench: Command, tmp_path: Path
) -> None:
    import csv

    assert personabench("export", folder, "--to", "csv", "-o", tmp_path / "run.csv").code == 0
    with (tmp_path / "run.csv").open(newline="") as file:
        columns = set(next(csv.reader(file)))
    metrics = {name for name in columns if name.startswith("rouge-")}
    assert columns - metrics <= documented("export")
