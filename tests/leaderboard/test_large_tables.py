"""Tables with many rows: bounded memory, and words when not every pair can be tested."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from synthetic_scores import draw_scores, list_rows, make_board, write_run

from personabench.leaderboard import board_statistics
from personabench.leaderboard.board_statistics import MOST_DRAWN, choose_draws
from personabench.leaderboard.column import Column
from personabench.metrics.metric import mean
from personabench.results.published import vector

METHODS = ("none", "rag", "summary", "dpl")


def write_runs(folder: Path) -> None:
    for number, method in enumerate(METHODS):
        write_run(folder, method, draw_scores(0.1 * number, seed=number))


@pytest.mark.parametrize("rows", [2, 20, 110, 111, 600, 5000, 30_000])
def test_draws_never_need_more_memory_than_the_limit(rows: int) -> None:
    draws, all_pairs = choose_draws(rows)
    assert draws * rows <= MOST_DRAWN
    assert all_pairs == (rows <= 110)
    if all_pairs:
        assert draws >= 50 * rows * (rows - 1) / 2


def test_a_table_that_is_too_large_is_tested_against_the_baseline_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_runs(tmp_path)
    whole = make_board(tmp_path)
    monkeypatch.setattr(board_statistics, "MOST_DRAWN", 30_000)
    large = make_board(tmp_path)
    assert not any("too many" in note for note in whole.notes)
    assert any("4 rows are too many to correct for all 6 tests" in note for note in large.notes)

    for before, after in zip(list_rows(whole), list_rows(large), strict=True):
        assert (before["tests"], after["tests"]) == (6, 3)
        assert after["gain"] == before["gain"] and after["leader"] is None
        assert set(after["beats"]) == set(before["beats"]) & {"none"}
        assert after["gain_p"] is None or after["gain_p"] <= 0.05


def test_a_test_has_the_numbers_of_a_full_comparison(tmp_path: Path) -> None:
    write_runs(tmp_path)
    runs = [write_run(tmp_path, method, draw_scores(seed=n)) for n, method in enumerate(METHODS)]
    column = Column([[vector(run)] for run in runs], "rouge-1", False, mean)
    pairs = list(combinations(range(len(runs)), 2))
    tests = column.tests(pairs)
    for a, b in pairs:
        comparison = column.compare(a, b)
        assert tests[a, b] == (comparison.gain.value, comparison.p)
        assert comparison.p is not None


def test_pairs_of_rows_on_different_samples_leave_no_draws_behind(tmp_path: Path) -> None:
    runs = []
    for number, method in enumerate(METHODS):
        samples = range(number, number + 50)
        run = write_run(tmp_path, method, draw_scores(seed=number)[:50], samples=samples)
        runs.append(run)
    column = Column([[vector(run)] for run in runs], "rouge-1", True, mean)
    sizes = []
    for a, b in combinations(range(len(runs)), 2):
        assert column.tests([(a, b)])[a, b][1] is not None
        sizes.append(len(column._cache))  # noqa: SLF001
    assert set(sizes) == {1}
