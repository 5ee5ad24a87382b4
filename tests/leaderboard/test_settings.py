"""What rows share: which conditions part them, how labels tell them apart, and metrics that only
some samples have."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_scores import (
    EACH,
    draw_scores,
    list_rows,
    make_board,
    make_rows,
    metrics_from_scores,
    write_run,
)
from toy_methods import TOY

from personabench.cli.compare import _metric_lines
from personabench.leaderboard.run_comparison import compare_runs
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.results.index import Run, read_published_runs
from personabench.results.published import publish, read, unpack, vector
from personabench.results.run_folder import RunFolder
from personabench.run.options import Options
from personabench.run.runner import run

LEFT = 6
"""Samples that the judge of `judged` left unjudged."""


def judged(
    results: Path,
    method: str,
    shift: float,
    judge: str = "j1",
    adds: Any = ("similarity",),
    **changes: Any,
) -> Run:
    """A run with a judge whose words could not be read for the first samples."""
    marks: list[float | None] = [
        None if at < LEFT else score for at, score in enumerate(draw_scores(shift, seed=7))
    ]
    who = {"model": judge, **({} if adds == "untold" else {"adds": adds})}
    told = {"judge": judge, "roles": {"judge": who}, "counters": {"unjudged": LEFT}}
    values = {"rouge-1": draw_scores(shift, seed=len(method)).tolist(), "similarity": marks}
    return write_run(results, method, values, task="reviews", told=told, **changes)


@pytest.mark.parametrize("adds", [["similarity"], "untold"])
def test_an_optional_judge_leaves_a_run_in_its_setting(tmp_path: Path, adds: Any) -> None:
    none = write_run(tmp_path, "none", draw_scores(seed=1), task="reviews")
    rag = judged(tmp_path, "rag", 0.3, adds=adds)
    found = make_board(tmp_path, thorough=True)
    row = list_rows(found)[0]
    assert (
        row["gain"] == pytest.approx(0.3, abs=0.1)
        and row["gain_p"] < 0.01
        and row["beats"] == ["none"]
    )
    assert (
        row["similarity/n"] == 60 - LEFT
        and "similarity" in found.columns
        and row.get("similarity/gain") is None
    )
    assert f"rag: {LEFT} answers are unjudged and have no similarity." in found.notes
    pair = compare_runs(rag, none)
    assert (
        pair.differences == []
        and set(pair.metrics) == {"rouge-1"}
        and pair.skipped == ["similarity"]
    )
    assert compare_runs(none, rag).skipped == ["similarity"]


def test_a_judge_that_a_task_always_has_is_part_of_the_setting(tmp_path: Path) -> None:
    a = judged(tmp_path, "rag", 0.3, adds=None)
    b = judged(tmp_path, "none", 0.0, judge="j2", adds=None)
    assert compare_runs(a, b, allow_mismatch=True).differences == ["judge (j1 against j2)"]
    assert make_rows(tmp_path)["rag"]["gain"] is None


def test_what_optional_judges_add_is_compared_between_rows_of_the_same_judge(
    tmp_path: Path,
) -> None:
    none, rag = judged(tmp_path, "none", 0.0), judged(tmp_path, "rag", 0.3)
    other = judged(tmp_path, "cot", 0.4, judge="j2")
    found = make_rows(tmp_path, thorough=True)
    assert (
        found["rag"]["similarity/gain"] == pytest.approx(0.3)
        and found["rag"]["similarity/gain/n"] == 60 - LEFT
    )
    assert found["cot"].get("similarity/gain") is None and found["cot"]["gain"] == pytest.approx(
        0.4, abs=0.1
    )
    assert "similarity" in compare_runs(rag, none).metrics and compare_runs(
        other, none
    ).skipped == ["similarity"]
    assert "similarity" in compare_runs(other, none, allow_mismatch=True).metrics


def test_seeds_of_different_judges_have_no_common_mean(tmp_path: Path) -> None:
    for seed, judge in enumerate(("j1", "j2")):
        judged(tmp_path, "rag", 0.3, judge=judge, seed=seed)
    (row,) = list_rows(make_board(tmp_path, thorough=True))
    assert row["seeds"] == [0, 1] and row["similarity"] is None and row["rouge-1/low"] is not None


def test_a_metric_counts_on_the_samples_that_have_it(tmp_path: Path) -> None:
    rag, none = judged(tmp_path, "rag", 0.3), judged(tmp_path, "none", 0.0)
    values = vector(rag).values["official"]
    assert values["similarity"].count(None) == LEFT and None not in values["rouge-1"]
    assert rag.summary.metrics["official"]["similarity"] == pytest.approx(
        float(draw_scores(0.3, seed=7)[LEFT:].mean())
    )
    found = compare_runs(rag, none)
    pair = found.metrics["similarity"]
    assert (found.n, pair.gain.n, pair.a.n, pair.gain.users) == (
        60,
        54,
        54,
        20 - LEFT // EACH,
    )
    assert pair.gain.value == pytest.approx(0.3)
    assert found.metrics["rouge-1"].gain.n == 60
    assert any("on the 54 samples" in line for line in _metric_lines("similarity", pair, found.n))
    assert not any(
        "for which both" in line
        for line in _metric_lines("rouge-1", found.metrics["rouge-1"], found.n)
    )


def test_pairs_are_the_samples_for_which_both_have_the_metric(tmp_path: Path) -> None:
    rag = judged(tmp_path, "rag", 0.3)
    marks = [*draw_scores(seed=7)[:-EACH].tolist(), *[None] * EACH]
    told = {"judge": "j1", "roles": {"judge": {"model": "j1", "adds": ["similarity"]}}}
    values = {"rouge-1": draw_scores(seed=1).tolist(), "similarity": marks}
    none = write_run(tmp_path, "none", values, task="reviews", told=told)
    pair = compare_runs(rag, none).metrics["similarity"]
    assert {estimate.n for estimate in (pair.a, pair.b, pair.gain)} == {60 - LEFT - EACH}
    assert pair.a.value - pair.b.value == pytest.approx(pair.gain.value) == pytest.approx(0.3)
    found = make_rows(tmp_path, thorough=True)["rag"]
    assert (found["similarity/n"], found["similarity/gain/n"]) == (60 - LEFT, 60 - LEFT - EACH)


def test_a_published_run_keeps_what_samples_lack(tmp_path: Path) -> None:
    rag = judged(tmp_path, "rag", 0.3)
    path = publish(RunFolder(rag.path), tmp_path / "reference")
    assert unpack(read(path), path) == vector(rag)
    (reference,) = read_published_runs(tmp_path)
    assert metrics_from_scores(reference)["official"] == pytest.approx(
        rag.summary.metrics["official"]
    )


@pytest.mark.parametrize(
    ("first", "second", "labels"),
    [
        ({}, {"window": 512}, {"rag", "rag (window=512)"}),
        (
            {"simulator": {"name": "small"}},
            {"simulator": {"name": "large"}},
            {"rag (simulator=small)", "rag (simulator=large)"},
        ),
        (
            {"model": {"name": "m+{user_id}", "adapters": "a" * 64}},
            {"model": {"name": "m+{user_id}", "adapters": "b" * 64}},
            {"rag (model.adapters=aaaaaaaa)", "rag (model.adapters=bbbbbbbb)"},
        ),
    ],
)
def test_runs_that_differ_in_no_more_than_who_played_are_rows_of_their_own(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], labels: set[str]
) -> None:
    for at, changes in enumerate((first, second)):
        told = {"counters": {"fallback": 6}, "time": f"2026-01-0{at + 1}T00:00:00Z"}
        write_run(tmp_path, "rag", draw_scores(0.2, seed=2 + at), told=told, **changes)
        write_run(tmp_path, "none", draw_scores(seed=1), **changes)
    found = make_board(tmp_path)
    mine = [row for row in list_rows(found) if row["method"] == "rag"]
    assert {row["label"] for row in mine} == labels and len({row["setting"] for row in mine}) == 2
    assert all(row["gain"] is not None and row["tests"] == 1 for row in mine)
    assert all(
        any(note.startswith(f"{label}: fell back") for note in found.notes) for label in labels
    )
    assert not any(note.startswith("Left out") for note in found.notes)


def test_the_newest_of_runs_that_differ_in_nothing_of_it_still_counts(tmp_path: Path) -> None:
    write_run(tmp_path, "rag", draw_scores(seed=1), window=512, method_hash="old")
    write_run(
        tmp_path,
        "rag",
        draw_scores(seed=2),
        window=512,
        method_hash="new",
        time="2026-01-02T00:00:00Z",
    )
    found = make_board(tmp_path)
    assert [row["label"] for row in list_rows(found)] == ["rag"] and any(
        "1 older run(s)" in note for note in found.notes
    )
    assert list_rows(found)[0]["rouge-1"] == pytest.approx(float(np.mean(draw_scores(seed=2))))


@pytest.mark.parametrize(("task", "adds"), [("Judged", None), ("Maybe", ["mark"])])
def test_a_run_tells_what_its_judge_adds(tmp_path: Path, task: str, adds: Any) -> None:
    judge = Scripted(BackendOptions(model="judge"), answer=lambda request: "3")
    roles: Any = {"judge": ("scripted", BackendOptions(model="judge"))}
    options = Options(
        [f"{TOY}Plain"], [f"{TOY}{task}"], backend="scripted", results=tmp_path, roles=roles
    )
    (outcome,) = asyncio.run(run(options, backend=Scripted(), roles={"judge": judge}))
    told = RunFolder(outcome.folder).summary()
    assert told.roles["judge"].adds == adds and told.judge
