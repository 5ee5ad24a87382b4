"""Boards: what shares a table, how rows rank, what is noted, and that every form says the same."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pandas
import pytest
from synthetic_scores import list_rows

from personabench.errors import DataError
from personabench.leaderboard import as_csv, as_json, as_markdown, boards, cell, table
from personabench.leaderboard.formats import headed
from personabench.leaderboard.formats import text as cell_text
from personabench.leaderboard.notes import _shorten_paths
from personabench.report.board import board_page
from personabench.results.index import Run, label, read_runs
from personabench.results.spec import RunSpec
from personabench.results.summary import Summary
from personabench.types import to_json


def full_spec(summary: dict[str, Any], changes: dict[str, Any]) -> RunSpec:
    fields = {name: summary[name] for name in RunSpec.__struct_fields__ if name in summary}
    fields |= {"model": {"name": summary["model"]}, "task_version": 1, "method_hash": ""}
    return msgspec.convert(fields | changes, RunSpec)


def run(
    method: str = "none",
    rouge: float | None = 0.1,
    spec: dict[str, Any] | None = None,
    **changes: Any,
) -> Run:
    """A run with a summary as scoring writes it."""
    metrics = (
        {}
        if rouge is None
        else {s: {"rouge-1": rouge, "rouge-L": rouge / 2} for s in ("lenient", "official")}
    )
    phase = {"calls": 10, "cached": 4, "input_tokens": 900, "output_tokens": 80, "seconds": 1.0}
    summary = {
        **{
            "task": "lamp4",
            "separation": "user",
            "split": "dev",
            "source": "some/dev_questions.json",
            "sample": False,
        },
        **{
            "data_hash": "d" * 64,
            "method": method,
            "params": {"k": 4},
            "changed": {},
            "history": "own",
            "seed": 0,
        },
        **{
            "model": "tiny",
            "sampling": {"temperature": 0.0, "top_p": 1.0, "max_tokens": None},
            "status": "complete",
        },
        **{
            "fingerprint": f"{method:0<64}",
            "n": 10,
            "users": 5,
            "owed": 0,
            "primary": "rouge-1",
            "metrics": metrics,
        },
        **{
            "higher_is_better": {"rouge-1": True, "rouge-L": True},
            "counters": {"parse_failures": 1},
            "seconds": 2.5,
        },
        **{"usage": {"profile": dict(phase), "predict": phase}},
    }
    fields = summary | changes
    return Run(
        msgspec.convert(fields, Summary),
        Path(f"runs/{method}"),
        published_spec=full_spec(fields, spec) if spec else None,
    )


def test_rows_rank_by_the_primary_metric_in_its_own_direction() -> None:
    (board,) = boards([run("a", 0.1), run("b", 0.3), run("c", None), run("d", 0.2)])
    assert [row["label"] for row in list_rows(board)] == ["b", "d", "a", "c"]
    rated = {"primary": "MAE", "higher_is_better": {"MAE": False}}
    scored = [
        run(name, **rated, metrics={"official": {"MAE": mae}})
        for name, mae in (("a", 1.2), ("b", 0.4))
    ]
    assert [row["label"] for row in list_rows(boards(scored)[0])] == ["b", "a"]


def test_only_runs_of_the_same_task_split_and_data_share_a_board() -> None:
    runs = [
        run(),
        run(split="test"),
        run(separation="time"),
        run(data_hash="e" * 64),
        run(task="lamp5"),
    ]
    assert len(boards(runs)) == 5
    assert [board.title for board in boards(runs, "lamp5")] == ["lamp5/user/dev"]


def test_a_row_adds_up_phases_and_keeps_every_scorer() -> None:
    row = list_rows(boards([run(rouge=0.25)])[0])[0]
    assert (row["calls"], row["cached"], row["input_tokens"], row["output_tokens"]) == (
        20,
        8,
        1800,
        160,
    )
    assert (row["rouge-1"], row["rouge-L/lenient"], row["parse_failures"]) == (0.25, 0.125, 1)
    assert (row["run"], row["folder"], row["params"]) == ("none0000", "runs/none", {"k": 4})


def test_a_table_says_the_task_settings_that_all_its_rows_share() -> None:
    specs = [{"task_params": {"h": size, "form": "statements", "writer": ""}} for size in (3, 5)]
    (board,) = boards([run(spec=specs[1])])
    assert "Task: h=5, form=statements." in board.notes
    (board,) = boards([run("a", spec=specs[0], task_changed={"h": 3}), run("b", spec=specs[1])])
    assert "Task: form=statements." in board.notes
    assert [row["label"] for row in list_rows(board)] == ["a (task.h=3)", "b"]


def test_task_settings_common_to_a_table_are_left_to_its_notes() -> None:
    longer = {
        "spec": {"task_params": {"h": 3, "form": "records"}},
        "task_changed": {"h": 3, "form": "records"},
    }
    shorter = {"spec": {"task_params": {"h": 3, "form": "statements"}}, "task_changed": {"h": 3}}
    (board,) = boards([run("a", **longer), run("b", **shorter)])
    assert [row["label"] for row in list_rows(board)] == ["a (task.form=records)", "b"]
    assert "Task: h=3." in board.notes


def test_the_lenient_column_is_shown_only_where_it_differs() -> None:
    assert "rouge-1/lenient" not in boards([run()])[0].columns
    metrics = {
        "official": {"rouge-1": 0.1, "rouge-L": 0.1},
        "lenient": {"rouge-1": 0.4, "rouge-L": 0.1},
    }
    columns = boards([run(), run("b", metrics=metrics)])[0].columns
    assert columns["rouge-1/lenient"] == "rouge-1 (lenient)" and "rouge-L/lenient" not in columns


def test_of_runs_of_the_same_name_the_newest_counts_and_the_others_are_told() -> None:
    (board,) = boards([run(rouge=0.1), run(rouge=0.2), run(model="big", rouge=0.3)])
    assert [(row["model"], row["rouge-1"]) for row in list_rows(board)] == [
        ("big", 0.3),
        ("tiny", 0.2),
    ]
    assert any("1 older run(s)" in note for note in board.notes)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "rag"),
        ({"changed": {"k": 2}}, "rag (k=2)"),
        ({"history": "shuffled", "seed": 7}, "rag (history=shuffled, seed=7)"),
        (
            {"sampling": {"temperature": 0.7, "top_p": 1.0, "max_tokens": 9}},
            "rag (temperature=0.7, max_tokens=9)",
        ),
        ({"task_changed": {"template": "lamp-official"}}, "rag (task.template=lamp-official)"),
    ],
)
def test_a_label_names_every_setting_that_is_not_the_default(
    changes: dict[str, Any], name: str
) -> None:
    assert label(run("rag", **changes).summary) == name


def test_notes_say_where_data_came_from_and_what_keeps_rows_apart() -> None:
    fallen = run(
        "b", n=8, counters={"parse_failures": 0, "fallback": 2}, status="incomplete", owed=2
    )
    notes = boards([run(), fallen])[0].notes
    assert notes[0] == "Data: some/dev_questions.json (dddddddd)."
    assert any("different n" in note for note in notes)
    assert "b: fell back to another method on 25% of samples." in notes
    assert "b: 2 samples are owed; repeat its command." in notes
    unjudged = run("d", status="incomplete", owed=0)
    assert "d: answers are not judged yet; repeat its command." in boards([unjudged])[0].notes
    mostly = boards([run("c", n=8, counters={"fallback": 5})])[0].notes
    assert "Warning: c: fell back to another method on 62% of samples." in mostly


def test_every_form_holds_the_same_rows() -> None:
    found = boards([run("a|b", 0.25), run("none", 0.125), run(task="lamp5", rouge=0.5)])
    rows = json.loads(as_json(found))
    assert rows == [row for board in found for row in list_rows(board)]
    table = list(csv.DictReader(as_csv(found).splitlines()))
    assert [(row["task"], row["method"], float(row["rouge-1"])) for row in table] == [
        (row["task"], row["method"], row["rouge-1"]) for row in rows
    ]
    assert json.loads(table[0]["params"]) == {"k": 4}
    text = as_markdown(found)
    assert "### lamp4/user/dev" in text and "| a\\|b § | tiny | 10 | 5 | 0.2500 |" in text
    assert text.count("- Data: some/dev_questions.json") == 2


def test_csv_has_a_line_for_each_row_whatever_a_parameter_says() -> None:
    names = ["cut\rhere", "cut\r\nhere", 'a "b", c', "=1+1", "\u2028"]
    written = table(
        [
            {"label": name, "value": 0.5, "n": 3, "low": None, "params": {"k": name}}
            for name in names
        ]
    )
    read = list(csv.DictReader(io.StringIO(written, newline="")))
    frame = pandas.read_csv(io.StringIO(written, newline=""))
    assert [row["label"] for row in read] == names == frame["label"].tolist()
    assert [json.loads(row["params"]) for row in read] == [{"k": name} for name in names]
    assert (
        frame["value"].tolist() == [0.5] * 5 and frame["low"].isna().all() and read[0]["low"] == ""
    )


def test_the_page_escapes_what_it_shows_and_runs_no_script() -> None:
    page = board_page(boards([run("<script>alert(1)</script>", 0.5), run("none", 0.25)]))
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    assert "default-src 'none'; script-src 'none'; style-src 'sha256-" in policy
    style = re.search(r"<style>(.*)</style>", page, re.S)[1]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy
    assert page.count("<tr>") == 3 and page.index("0.5000") < page.index("0.2500")


def test_failed_samples_and_owed_ones_are_told_apart_and_shown_where_there_are_any() -> None:
    stopped = run(
        "b", status="incomplete", owed=5, counters={"parse_failures": 0, "request_errors": 2}
    )
    (board,) = boards([run(), stopped])
    assert [(row["failed"], row["owed"]) for row in list_rows(board) if row["method"] == "b"] == [
        (2, 5)
    ]
    _, columns = headed(board, board.columns)
    assert (columns["failed"], columns["owed"]) == ("failed", "owed")
    (whole,) = boards([run()])
    assert not {"failed", "owed"} & headed(whole, whole.columns)[1].keys()


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("rouge-1", 0.123456, "0.1235"),
        ("seconds", 0.26, "0.3"),
        ("calls", 12345, "12,345"),
        ("x", None, "–"),
    ],
)
def test_values_as_people_read_them(name: str, value: object, text: str) -> None:
    assert cell(name, value) == text


def test_summaries_come_oldest_first_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    for number, time in enumerate(("2026-02-01T00:00:00Z", "2026-01-01T00:00:00Z")):
        folder = tmp_path / f"runs/lamp4/none/tiny/{number}"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(to_json(run(time=time).summary))
    assert [each.path.name for each in read_runs(tmp_path)] == ["1", "0"]
    (folder / "summary.json").write_text("{")
    with pytest.raises(DataError, match=r"1/summary\.json is damaged .* repeat the run's command"):
        read_runs(tmp_path)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/home/me/my-data/dev_questions.json", "dev_questions.json"),
        ("C:\\Users\\me\\reviews.csv, 5 of 6 users", "reviews.csv, 5 of 6 users"),
        ("example data, not LaMP", "example data, not LaMP"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_notes_hold_no_folder_of_the_users_machine(source: str, shown: str) -> None:
    assert _shorten_paths(source) == shown


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.4, 0.6, "0.5000 ±0.100"),
        (0.43, 0.6, "0.5000 ±0.085"),
        (0.45, 0.7, "0.5000 [0.450, 0.700]"),
    ],
)
def test_an_interval_with_unequal_sides_is_printed_as_its_ends(
    low: float, high: float, shown: str
) -> None:
    row: Any = SimpleNamespace(columns={"f1": 0.5, "f1/low": low, "f1/high": high})
    assert cell_text("f1", row) == shown
