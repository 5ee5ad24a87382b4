"""Boards on terminals of several widths: compared with stored tables, and nothing squeezed."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_scores import draw_scores, write_run

from personabench.cli.tables import print_boards
from personabench.cli.text_table import Column, break_name, row_lines, total_width
from personabench.leaderboard import Board, BoardOptions, boards
from personabench.results.index import read_runs

SNAPSHOTS = Path(__file__).parent / "boards"
WIDTHS = (60, 80, 100, 140, 200)
LONG = "contrast_of_style_with_a_peer"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """Two models with a long method name, a control, and a row of three users."""
    folder = tmp_path_factory.mktemp("results")
    for number, name in enumerate(("Qwen2.5-7B-Instruct", "Llama-3.1-8B-Instruct")):
        model = {"name": name}
        write_run(folder, "none", draw_scores(seed=number), model=model)
        write_run(folder, LONG, draw_scores(0.2, seed=2 + number), model=model)
        shuffled = draw_scores(0.02, seed=4 + number)
        write_run(folder, LONG, shuffled, model=model, history="shuffled")
        write_run(folder, "rpm", draw_scores(0.9)[:9], model=model)
    (found,) = boards(read_runs(folder), options=BoardOptions(results=folder))
    return found


def print_at(board: Board, width: int, wide: bool = False) -> str:
    file = io.StringIO()
    print_boards([board], Console(file=file, width=width, highlight=False), wide, "--wide")
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


@pytest.mark.parametrize("width", WIDTHS)
def test_a_board_is_laid_out_by_width(board: Board, width: int) -> None:
    """`UPDATE_BOARDS=1 pytest` writes the tables anew; then look at them."""
    printed = print_at(board, width)
    path = SNAPSHOTS / f"board_{width}.txt"
    if "UPDATE_BOARDS" in os.environ:
        path.write_text(printed, encoding="utf-8")
    assert printed == path.read_text(encoding="utf-8"), f"differs from {path}:\n{printed}"


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_squeezed_at_any_width(board: Board, width: int, wide: bool) -> None:
    printed = print_at(board, width, wide)
    assert max(map(len, printed.splitlines())) <= width
    assert "…" not in printed
    for row in board.rows:
        score = f"{row.scores[board.primary]:.4f}"
        gain = row.gain and f"{row.gain.gain.value:+.4f}"
        (line, *_) = re.findall(rf"^ {row.letter}  .*{re.escape(score)}.*$", printed, re.M)
        assert row.method[:8] in line and (gain is None or gain in printed)
    words = printed.split()
    assert {"method", "rouge-1", "none"} <= {*words}
    for heading in board.settings.values():
        assert printed.count(f"\n {heading}") >= 1


def test_the_number_of_hidden_columns_is_said_and_wide_hides_none(board: Board) -> None:
    narrow, broad = (
        int(re.findall(r"(\d+) columns hidden", print_at(board, width))[0]) for width in (80, 200)
    )
    assert narrow > broad > 0
    wide = print_at(board, 80, wide=True)
    assert "hidden" not in wide and "detectable" in wide and "frontier" in wide


def test_a_column_is_explained_only_where_it_stands(board: Board) -> None:
    assert "p: of that gain" not in print_at(board, 60)
    assert "p: of that gain" in print_at(board, 80)


def test_rows_without_a_rank_are_grey_and_below_the_others(board: Board) -> None:
    file = io.StringIO()
    console = Console(file=file, width=120, highlight=False, force_terminal=True)
    print_boards([board], console)
    (grey, _) = re.findall(r"^.*rpm §.*$", file.getvalue(), re.M)
    assert "\x1b[2m" in grey and "\x1b[1m" not in grey
    assert [row.label for row in board.rows][3::4] == ["rpm", "rpm"]
    bold = [row.label for row in board.rows if row.emphasized]
    assert bold == [LONG, LONG]


def test_names_break_between_their_parts_and_numbers_nowhere() -> None:
    assert break_name("summary_of_all_records (k=4)", 12) == ["summary_of_", "all_records", "(k=4)"]
    assert break_name("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert break_name("one_two (history=shuffled)", 18) == ["one_two", "(history=shuffled)"]
    columns = [Column("a longer heading", ["1.5"]), Column("name", ["ab cd"], is_name=True, most=4)]
    assert columns[0].head == ["a", "longer", "heading"] and total_width(columns) == 14
    assert [line.plain for line in row_lines(columns, 0)] == ["     1.5  ab", "          cd"]


def test_the_example_of_the_documentation_is_a_table_of_today() -> None:
    page = (Path(__file__).parents[2] / "docs" / "leaderboard.md").read_text(encoding="utf-8")
    example = page.partition("```text\n")[2].partition("```")[0]
    assert (SNAPSHOTS / "board_80.txt").read_text(encoding="utf-8").startswith(example)
    assert "columns hidden, --wide" in example
