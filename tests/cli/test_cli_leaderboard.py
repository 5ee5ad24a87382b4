"""`leaderboard`, `compare`, `publish` and `run --seeds` as typed, on scripted answers."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command

pytestmark = pytest.mark.usefixtures("few_draws")

RUN = ("run", "-b", "scripted", "-t", "lamp3")
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the runs of `ran`, which the first test that needs them makes."""
    return tmp_path_factory.mktemp("kept") / "results"


@pytest.fixture
def ran(personabench: Command, kept: Path) -> Command:
    if kept.exists():
        shutil.copytree(kept, "results")
        return personabench
    assert personabench(*RUN, "-m", "none,user_mean,rag").code == 0
    assert personabench(*RUN, "-m", "rag", "--history", "shuffled").code == 0
    shutil.copytree("results", kept)
    return personabench


def test_the_plain_table_fits_80_columns(ran: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = ran("leaderboard")
    lines = ended.out.splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in ended.out
    (row,) = [line for line in lines if " user_mean  " in line]
    assert row.split()[:2] == ["a", "user_mean"] and "ᵇ" in row
    words = " ".join(ended.out.split())
    assert "Δ none" in words and "Holm-corrected over 5" in words
    wide = ran("leaderboard", "--wide").out
    assert max(map(len, wide.splitlines())) <= 80
    words = wide.split()
    assert all(
        word in words for word in ("detectable", "hurt", "p10", "frontier", "offline", "RMSE")
    )


def test_the_table_in_a_file_is_the_same(ran: Command, tmp_path: Path) -> None:
    ran("leaderboard", "-o", "board.txt")
    shown = [line.rstrip() for line in ran("leaderboard").out.splitlines()]
    assert (tmp_path / "board.txt").read_text().rstrip("\n").splitlines() == shown[: len(shown)]


def test_latex_and_curves(ran: Command, refused: Refused) -> None:
    assert r"\begin{tabular}" in ran("leaderboard", "-f", "latex").out
    assert ran("leaderboard", "-f", "html").out.count("<table>") == 1
    assert "personabench report" in refused("leaderboard", "--curves", "-f", "html")
    assert "no curve" in refused("leaderboard", "--curves")
    assert ran("leaderboard", "--curves", "--json").json == []
    ran(*RUN, "-m", "rag", "--history", "size=2")
    assert "rag: MAE against history" in ran("leaderboard", "--curves").out
    points = ran("leaderboard", "--curves", "--json").json
    assert [point["x"] for point in points] == [2, None]
    assert (
        len(list(csv.DictReader(ran("leaderboard", "--curves", "-f", "csv").out.splitlines()))) == 2
    )


def test_a_curve_of_runs_of_other_sizes_is_flat_where_the_answers_are_the_same(
    personabench: Command,
) -> None:
    """The scripted model ignores k: only other samples could make a difference."""
    for k, words in ((1, ("-n", 6)), (2, ("-n", 12)), (4, ())):
        assert (
            personabench(
                "run", "-b", "scripted", "-t", "lamp4", "-m", "rag", "--set", f"k={k}", *words
            ).code
            == 0
        )
    points = personabench("leaderboard", "--curves", "--json").json
    assert len({point["value"] for point in points}) == 1
    assert [(point["n"], point["run_n"], point["joined"]) for point in points] == [
        (7, 7, True), (7, 14, True), (7, 60, True),
    ]  # fmt: skip
    rows = list(
        csv.DictReader(personabench("leaderboard", "--curves", "-f", "csv").out.splitlines())
    )
    assert [(row["n"], row["run_n"]) for row in rows] == [("7", "7"), ("7", "14"), ("7", "60")]
    note = "Compared on the 7 samples of 3 users that all have; the runs have 7, 14, 60."
    text, markdown, latex = (
        personabench("leaderboard", "--curves", "-f", f).out for f in ("table", "md", "latex")
    )
    assert note in text and "n=7 of 60" in text
    assert f"- {note}" in markdown and "| 4 | 0.1846 | – | 7 | 60 | yes |" in markdown
    assert (
        note in latex and r"4 & 0.1846 & -- & 7 & 60 & yes" in latex and r"\begin{tabular}" in latex
    )
    from personabench.leaderboard import frames

    frame = frames.curve_points("results", task="lamp4")
    assert list(frame["n"]) == [7, 7, 7] and list(frame["run_n"]) == [7, 14, 60]


def test_baseline_prices_and_queries(ran: Command, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text('{"scripted": {"input": 1000000, "output": 0}}')
    words = ("--baseline", "rag", "--prices", "prices.json", "--queries-per-user", 5, "--json")
    rows = {row["label"]: row for row in ran("leaderboard", *words).json}
    assert rows["none"]["gain_over"] == "rag"
    assert rows["rag"]["query_price"] == rows["rag"]["online_input_tokens"] > 0
    assert rows["rag"]["queries_per_user"] == 5
    assert "--baseline nobody: no such row; choose one of" in refused(
        "leaderboard", "--baseline", "nobody"
    )


def test_compare_in_words_and_json(ran: Command, refused: Refused) -> None:
    runs = {row["label"]: row["run"] for row in ran("leaderboard", "--json").json}
    ended = ran("compare", runs["user_mean"], runs["none"])
    assert "A  user_mean" in ended.out and "MAE ↓" in ended.out and "made worse" in ended.out
    found = ran("compare", runs["user_mean"], runs["none"], "--json").json
    assert (found["a"]["label"], found["b"]["label"]) == ("user_mean", "none")
    assert found["metrics"]["MAE"]["gain"]["value"] > 0
    assert found["metrics"]["MAE"]["corrected"] >= found["metrics"]["MAE"]["p"]
    assert "no run matches" in refused("compare", "ffffffff", runs["none"])
    ran("run", "-b", "scripted", "-t", "lamp4", "-m", "none")
    assert "different tasks" in refused("compare", "last", runs["none"])


def test_published_runs_are_on_the_board_and_compared(
    ran: Command, tmp_path: Path, refused: Refused
) -> None:
    runs = {row["label"]: row for row in ran("leaderboard", "--json").json}
    ended = ran("publish", runs["user_mean"]["run"], runs["none"]["folder"])
    assert [Path(line).parent for line in ended.out.splitlines()] == [Path("results/reference")] * 2
    assert "--name can only be used with a single run" in refused(
        "publish", "last", "last", "--name", "x"
    )
    (tmp_path / "results" / "runs").rename(tmp_path / "elsewhere")
    assert "or show the 2 published results with --with-reference" in refused("leaderboard")
    ended = ran("leaderboard", "--with-reference", "--json")
    rows = {row["label"]: row for row in ended.json}
    assert rows.keys() == {"user_mean", "none"} and all(row["published"] for row in rows.values())
    assert rows["user_mean"]["gain"] == runs["user_mean"]["gain"]
    assert "Published results: user_mean, none." in ran("leaderboard", "--with-reference").out
    found = ran("compare", rows["user_mean"]["run"], rows["none"]["folder"], "--json").json
    assert found["metrics"]["MAE"]["gain"]["value"] == pytest.approx(rows["user_mean"]["gain"])


def test_several_seeds_are_one_row_on_the_same_users(
    personabench: Command, refused: Refused
) -> None:
    ended = personabench(*RUN, "-m", "none,random", "-n", 8, "--seeds", "0,1,2", "--json")
    assert [summary["seed"] for summary in ended.json] == [0, 0, 1, 1, 2, 2]
    asked = [
        Path(summary["folder"], "scores.jsonl").read_text().splitlines() for summary in ended.json
    ]
    assert len({tuple(json.loads(line)["sample_id"] for line in lines) for lines in asked}) == 1
    rows = personabench("leaderboard", "--json").json
    assert {row["label"]: row["seeds"] for row in rows} == {"none": [0, 1, 2], "random": [0, 1, 2]}
    planned = personabench(
        *RUN, "-m", "none", "-n", 8, "--seeds", "0,5", "--dry-run", "--json"
    ).json
    assert [(row["seed"], row["owed"] > 0) for row in planned] == [(0, False), (5, True)]
    for words in (("--seeds", "a"), ("--seeds", ""), ("--seeds", "1,2", "--seed", "3")):
        assert "--seeds" in refused(*RUN, "-m", "none", *words)


def test_the_frame_has_the_rows_of_the_leaderboard(ran: Command) -> None:
    from personabench.leaderboard import frames

    frame = frames.leaderboard("results", task="lamp3")
    assert list(frame["label"]) == [row["label"] for row in ran("leaderboard", "--json").json]
    assert frame.set_index("label")["gain"]["user_mean"] > 0


@pytest.mark.parametrize("verb", ["leaderboard", "compare", "report"])
def test_a_summary_that_is_not_that_of_its_scores_is_refused(
    personabench: Command, refused: Callable[..., str], verb: str
) -> None:
    ended = personabench("run", "-b", "scripted", "-t", "lamp4", "-m", "none,rag", "--json")
    folders = [Path(summary["folder"]) for summary in ended.json]
    path = folders[1] / "summary.json"
    summary = json.loads(path.read_text())
    summary["metrics"]["official"]["rouge-1"] += 0.25
    path.write_text(json.dumps(summary))
    message = refused(verb, *(map(str, folders) if verb == "compare" else ()))
    assert (
        "rouge-1 is" in message and "by its scores" in message and str(folders[1].name) in message
    )
    # The same command scores the answers on disk.
    assert personabench("run", "-b", "scripted", "-t", "lamp4", "-m", "none,rag").code == 0
    assert personabench("leaderboard").code == 0


def test_compare_counts_users_whom_one_method_leaves_below_guessing(
    personabench: Command,
) -> None:
    runs = personabench(
        *("run", "-b", "scripted", "-t", "psoups", "--json"),
        *("-m", "longer_response,shortest_option"),
    ).json
    longer, shortest = (run["fingerprint"][:8] for run in runs)
    compared = personabench("compare", longer, shortest, "--json").json["harmed"]["accuracy"]
    assert compared["users"] == 12 and compared["chance"] == 0.5
    # Who prefers short texts is harmed by the longer ones, and the other way round.
    assert compared["by_a"] > 0 and compared["by_b"] > 0
    printed = " ".join(personabench("compare", longer, shortest).out.split())
    assert (
        f"accuracy: below guessing (0.5) with A but not with B: {compared['by_a']} of 12 users; "
        f"with B but not with A: {compared['by_b']}"
    ) in printed
