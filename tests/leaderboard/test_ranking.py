"""The order of a board: its settings, the rows that do not rank, and the rows that stand out."""

from __future__ import annotations

from pathlib import Path

from synthetic_scores import (
    draw_scores,
    make_board,
    make_rows,
    spent,
    write_run,
)

from personabench.leaderboard import as_latex, as_markdown
from personabench.types import Sampling


def test_each_model_has_an_order_of_its_own_and_names_its_setting(tmp_path: Path) -> None:
    warm = Sampling(temperature=0.8)
    for name, shift in (("none", 0.0), ("rag", 0.3)):
        write_run(tmp_path, name, draw_scores(shift, seed=3), model={"name": "small"})
        write_run(tmp_path, name, draw_scores(shift + 1, seed=4), model={"name": "large"})
        write_run(
            tmp_path, name, draw_scores(shift, seed=5), model={"name": "small"}, sampling=warm
        )
    board = make_board(tmp_path)
    assert list(board.settings.values()) == [
        "large",
        "small · temperature 0.0",
        "small · temperature 0.8",
    ]
    assert [row.method for row in board.rows] == ["rag", "none"] * 3
    assert [row.emphasized for row in board.rows] == [True, False] * 3
    assert [board.members(setting)[0].letter for setting in board.settings] == ["a", "c", "e"]


def test_rows_of_few_users_or_samples_come_last_and_lead_nothing(tmp_path: Path) -> None:
    write_run(tmp_path, "none", draw_scores(seed=1))
    write_run(tmp_path, "rag", draw_scores(0.3, seed=2))
    write_run(tmp_path, "few_users", draw_scores(2.0, seed=3)[:9])
    write_run(tmp_path, "few_samples", draw_scores(2.0, seed=4)[:24])
    board = make_board(tmp_path)
    assert [row.label for row in board.rows] == ["rag", "none", "few_samples", "few_users"]
    assert [row.emphasized for row in board.rows] == [True, False, False, False]
    assert [row.frontier for row in board.rows[2:]] == [None, None]
    (note,) = [note for note in board.notes if note.startswith("§")]
    assert note == (
        "§ Not ranked: c (fewer than half of the 60 samples that most rows have); "
        "d (fewer than 6 users, too few for an interval)."
    )


def test_nothing_is_bold_where_nothing_is_told_apart(tmp_path: Path) -> None:
    for number, name in enumerate(("none", "rag", "summary")):
        write_run(tmp_path, name, draw_scores(seed=number))
    board = make_board(tmp_path)
    assert not any(row.emphasized for row in board.rows) and all(row.leader for row in board.rows)
    assert "**" not in as_markdown([board]) and r"\textbf" not in as_latex([board])
    assert "No row is significantly behind the best." in board.notes


def test_controls_are_no_choice_on_the_frontier(tmp_path: Path) -> None:
    write_run(tmp_path, "none", draw_scores(seed=1), usage=spent(100))
    write_run(tmp_path, "rag", draw_scores(0.3, seed=2), usage=spent(900))
    write_run(tmp_path, "rag", draw_scores(0.4, seed=3), usage=spent(300), history="shuffled")
    rows = make_rows(tmp_path)
    assert {label: row["frontier"] for label, row in rows.items()} == {
        "rag": True,
        "none": True,
        "rag (history=shuffled)": None,
    }
