"""Figures of each kind, drawn by matplotlib with their protocol inside."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from synthetic_scores import draw_scores, make_board, write_run

from personabench.errors import UsageError
from personabench.leaderboard import Board
from personabench.report.figures import KINDS, choose_board, draw

pytest.importorskip("matplotlib", reason="the extra plot is not installed")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    folder = tmp_path_factory.mktemp("results")
    write_run(folder, "none", draw_scores())
    write_run(folder, "rag", draw_scores(0.3, seed=1))
    write_run(folder, "rag", draw_scores(0.1, seed=2), history="shuffled")
    for k in (2, 4):
        params = {"k": k}
        write_run(
            folder, "dpl", draw_scores(0.1 * k, seed=k), params=params, told={"changed": params}
        )
    return make_board(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_names_its_rows_and_its_protocol(board: Board, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "figure.svg"
    draw(kind, board, path)
    text = path.read_text()
    assert "95 % intervals over users" in text
    assert "60 samples of 20 users" in text
    assert "lamp4/user/dev" in text
    assert ("dpl" if kind == "curve" else "rag") in text
    draw(kind, board, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == text


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_for_a_column_keeps_its_texts_inside(
    board: Board, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "figure.svg"
    draw(kind, board, path, "column")
    text = path.read_text()
    width, _ = (float(number) for number in re.findall(r'viewBox="0 0 (\S+) (\S+)"', text)[0])
    assert width == pytest.approx(219, abs=1)
    # Texts are as large as on a page, and none begins outside or is longer than the column.
    lines = re.findall(r'<text style="font-size: ([\d.]+)px[^>]*>([^<]+)</text>', text)
    assert {float(size) for size, _ in lines} >= {5.5, 8.0, 9.0}
    for size, line in lines:
        assert 0.45 * float(size) * len(line) <= width, line


@pytest.mark.parametrize(("ending", "magic"), [("pdf", b"%PDF"), ("png", b"\x89PNG")])
def test_formats_follow_the_ending(board: Board, tmp_path: Path, ending: str, magic: bytes) -> None:
    path = tmp_path / f"figure.{ending}"
    draw("gains", board, path)
    assert path.read_bytes().startswith(magic)


def test_figures_without_content_are_refused(tmp_path: Path, board: Board) -> None:
    write_run(tmp_path, "rag", draw_scores())
    alone = make_board(tmp_path)
    for kind, reason in (
        ("gains", "no row has a gain over 'none'"),
        ("curve", "no two runs differ"),
        ("own-vs-shuffled", "--history shuffled"),
        ("users", "no row has gains of users"),
    ):
        with pytest.raises(UsageError, match=reason):
            draw(kind, alone, tmp_path / "figure.svg")
    with pytest.raises(UsageError, match=r"name a \.pdf, \.svg or \.png file"):
        draw("gains", board, tmp_path / "figure.gif")
    with pytest.raises(UsageError, match="choose one with --task"):
        choose_board([board, alone])


def test_a_missing_library_names_the_extra(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"personabench-harness\[plot\]"):
        draw("gains", board, tmp_path / "figure.svg")
