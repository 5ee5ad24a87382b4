"""Columns of trained methods: from a run's artifacts, and only where there are any."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from synthetic_scores import draw_scores, list_rows, make_board, write_run

from personabench.cli.board_layout import Layout
from personabench.leaderboard import Board, as_csv, as_markdown
from personabench.leaderboard.training_figures import TRAINING
from personabench.report import write
from personabench.report.board import board_page

FACTS = {
    "users": 20,
    "without_adapter": 2,
    "seconds_mean": 9.4,
    "seconds_p95": 20.0,
    "parameters": 460_800,
    "bytes": 1_865_019,
    "records": 24.5,
    "corpus_samples": 30,
    "corpus_users": 10,
}


def write_trained(results: Path, method: str, facts: dict[str, Any], seed: int = 0) -> None:
    told = {"provenance": {"training": facts}}
    write_run(results, method, draw_scores(0.1, seed=len(method)), told=told, seed=seed)


def board(results: Path) -> Board:
    write_run(results, "none", draw_scores(seed=1))
    return make_board(results, thorough=True)


def columns_of(board: Board) -> dict[str, dict[str, Any]]:
    return {
        row["method"]: {name: row[name] for name in TRAINING if name in row}
        for row in list_rows(board)
    }


def described_groups(page: Path) -> list[dict[str, Any]]:
    """The groups of rows that a report holds."""
    block = re.search(r'<script type="[a-z/]+" id="report">(.*?)</script>', page.read_text(), re.S)
    assert block
    groups: list[dict[str, Any]] = json.loads(block[1])["groups"]
    return groups


def test_a_trained_row_has_the_figures_of_its_artifacts_in_every_format(tmp_path: Path) -> None:
    write_trained(tmp_path, "oppu", FACTS)
    trained = board(tmp_path)
    assert columns_of(trained) == {
        "none": {},
        "oppu": {
            "trained_on": "both",
            "train_parameters": 460_800,
            "train_seconds": 9.4,
            "train_seconds_p95": 20.0,
            "train_bytes": 1_865_019,
            "train_records": 24.5,
        },
    }
    cells = ("both", "460,800", "9.4", "20.0", "1,865,019", "24.5")
    markdown = as_markdown([trained], wide=True)
    (oppu,) = [line for line in markdown.splitlines() if line.startswith("| a | oppu")]
    assert " | ".join(cells) in oppu
    assert " | ".join(TRAINING.values()) in markdown
    page = board_page([trained], wide=True)
    assert all(f"<td>{cell}</td>" in page for cell in cells[1:])
    assert ">trained on</th>" in page and "<td class=word>both</td>" in page
    lines = [line.plain for line in Layout(trained, 200, wide=True).lines()]
    assert any("460,800" in line for line in lines)
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(as_csv([trained])))}
    assert rows["oppu"]["train_bytes"] == "1865019.0" and not rows["none"]["train_bytes"]

    write(tmp_path, tmp_path / "report.html")
    (group,) = described_groups(tmp_path / "report.html")
    figures = {row["method"]: row["training"] for row in group["rows"]}
    assert figures["none"] is None
    expected = columns_of(trained)["oppu"]
    assert figures["oppu"].pop("trained_on") == expected.pop("trained_on")
    assert figures["oppu"] == pytest.approx(expected, rel=1e-5)

    # The plain table has no room for them.
    assert not any(heading in as_markdown([trained]) for heading in TRAINING.values())


def test_a_board_without_a_trained_row_has_none_of_the_columns(tmp_path: Path) -> None:
    write_run(tmp_path, "rag", draw_scores(0.1, seed=3))
    plain = board(tmp_path)
    assert not any(columns_of(plain).values())
    assert not TRAINING.keys() & plain.all_columns.keys()


def test_sources_of_training_are_told_apart(tmp_path: Path) -> None:
    write_trained(tmp_path, "own", {**FACTS, "corpus_samples": 0, "corpus_users": 0})
    write_trained(tmp_path, "stage1", {**FACTS, "users": 0, "without_adapter": 0})
    write_trained(
        tmp_path, "idle", {**FACTS, "users": 3, "without_adapter": 3, "corpus_samples": 0}
    )
    for method, source in (("imported:x", "history"), ("imported:y", "none")):
        card = {"method": method, "model": "tiny", "trained_on": source}
        write_run(tmp_path, method, draw_scores(seed=5), told={"provenance": {"card": card}})
    columns = columns_of(board(tmp_path))
    assert {name: row.get("trained_on") for name, row in columns.items()} == {
        "own": "history",
        "stage1": "train",
        "idle": "none",
        "imported:x": "history",
        "imported:y": None,
        "none": None,
    }
    # Nothing of a user was trained, so that there is nothing to average.
    for method in ("stage1", "idle", "imported:x"):
        assert all(value is None for value in list(columns[method].values())[1:])


def test_figures_are_means_over_seeds(tmp_path: Path) -> None:
    write_trained(tmp_path, "oppu", FACTS)
    write_trained(tmp_path, "oppu", {**FACTS, "seconds_mean": 10.4}, seed=1)
    for seed in (0, 1):
        write_run(tmp_path, "none", draw_scores(seed=1), seed=seed)
    rows = list_rows(make_board(tmp_path, thorough=True))
    (oppu,) = [row for row in rows if row["method"] == "oppu"]
    assert oppu["seeds"] == [0, 1]
    assert round(oppu["train_seconds"], 6) == 9.9
