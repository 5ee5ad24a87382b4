"""Paper against ours: the rows of a recipe beside the runs that repeat them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import Literal

from personabench.leaderboard.board import Board
from personabench.leaderboard.estimates import Estimate
from personabench.leaderboard.row import Row
from personabench.results.index import Run
from personabench.run.recipe import Recipe
from personabench.run.recipe import Row as PublishedRow

Verdict = Literal[
    "agrees",
    "higher",
    "lower",
    "no interval",
    "smoke",
    "not comparable",
    "no number",
    "no value",
    "quoted",
]

MEANINGS: Mapping[Verdict, str] = {
    "agrees": "the published number is within our interval, widened by the recipe's tolerance",
    "higher": "our number is above the published one by more than interval and tolerance",
    "lower": "our number is below the published one by more than interval and tolerance",
    "no interval": "too few users for an interval, and the numbers differ by more than tolerance",
    "smoke": "a run that tries the recipe, whose numbers say nothing about the paper's",
    "not comparable": "model, data or status differ from the recipe's, as said above",
    "no number": "the paper has no number for this row",
    "no value": "the row was not run, or its run has no value of this metric",
    "quoted": "a row of the paper that the recipe does not run",
}


@dataclass(frozen=True)
class Line:
    """One metric of one row: the published number, ours, and whether they agree.

    Attributes:
        task, split: as in the recipe; data: task, separation and split of the run.
        published_gain, gain: over the baseline, positive in the row's favour; of one metric of a
            row only, the recipe's or else the first.
        differs: differences of our run from the setting of the method's paper, in words.
        folder: our run's.
    """

    task: str
    split: str
    row: str
    method: str
    metric: str
    higher_is_better: bool
    published: float | None
    ours: Estimate | None
    published_gain: float | None
    gain: Estimate | None
    verdict: Verdict
    data: str = ""
    differs: Sequence[str] = ()
    folder: str = ""


@dataclass(frozen=True)
class Reproduction:
    """A recipe's table.

    Attributes:
        departures: why the numbers are not comparable with the paper's; empty if they are.
        smoke: it only tries the recipe.
    """

    recipe: Recipe
    lines: Sequence[Line]
    departures: Sequence[str] = ()
    smoke: bool = False


def list_run_departures(runs: Sequence[Run]) -> list[str]:
    """Why finished runs are not comparable with a paper: example data, samples still to do."""
    departures = []
    if any(run.summary.sample for run in runs):
        departures.append("example data instead of the benchmark's")
    pending = sum(run.summary.owed for run in runs)
    if pending:
        departures.append(f"{pending} samples still to do")
    return departures


def compare_with_paper(
    recipe: Recipe,
    folders: Mapping[int, Path],
    boards: Sequence[Board],
    departures: Sequence[str] = (),
    *,
    smoke: bool = False,
) -> Reproduction:
    """Set the rows of a recipe beside those of boards.

    Args:
        folders: the run folder of each row by its position in the recipe; none for a row that was
            not run.
        boards: of these runs.
        departures: why the numbers are not comparable with the paper's.
        smoke: the runs only try the recipe.
    """
    rows = _rows_by_folder(boards)
    directions = _directions(boards)
    verdict: Verdict | None = None
    if smoke or departures:
        verdict = "smoke" if smoke else "not comparable"

    lines: list[Line] = []
    for position, published in enumerate(recipe.filled):
        folder = folders.get(position)
        board, row = rows.get(folder, (None, None)) if folder else (None, None)
        for line in _compare_row(recipe, published, row, directions, verdict):
            lines.append(replace(line, data=board.title if board else ""))
    return Reproduction(recipe, lines, departures, smoke)


def _directions(boards: Sequence[Board]) -> dict[tuple[str, str], bool]:
    """Whether higher is better, by task and metric."""
    return {
        (entry.summary.task, metric): higher
        for board in boards
        for entry in board.entries
        for metric, higher in entry.summary.higher_is_better.items()
    }


def _rows_by_folder(boards: Sequence[Board]) -> dict[Path | None, tuple[Board, Row]]:
    return {
        run.path: (board, row)
        for board in boards
        for row, entry in zip(board.rows, board.entries, strict=True)
        for run in entry.runs
    }


def _compare_row(
    recipe: Recipe,
    published: PublishedRow,
    row: Row | None,
    directions: Mapping[tuple[str, str], bool],
    verdict: Verdict | None,
) -> Iterator[Line]:
    """The lines of a row; `verdict` replaces that of numbers that are not comparable."""
    metrics = list(published.published) or [recipe.metric]
    gain_metric = recipe.metric if recipe.metric in metrics else metrics[0]
    for metric in metrics:
        ours = _estimate(row, metric) if row else None
        number = published.published.get(metric)
        tolerance = recipe.tolerance.get(metric, 0.0)
        higher = directions.get((published.task, metric), True)
        has_gain = metric == gain_metric
        yield Line(
            task=published.task,
            split=published.split,
            row=published.name,
            method=published.method,
            metric=metric,
            higher_is_better=higher,
            published=number,
            ours=ours,
            published_gain=_published_gain(recipe, published, metric, higher) if has_gain else None,
            gain=row.statistics.gains.get(metric) if row and has_gain else None,
            verdict=_judge(number, ours, tolerance, bool(published.method), verdict),
            differs=row.differs if row else (),
            folder=row.folder if row else "",
        )


def _estimate(row: Row, metric: str) -> Estimate | None:
    """A metric of a row, with its interval if the board has one."""
    estimate = row.statistics.estimates.get(metric)
    if estimate is not None and estimate.value is not None and not isnan(estimate.value):
        return estimate
    value = row.scores.get(metric)
    if value is None or isnan(value):
        return None
    return Estimate(value, None, None, None, row.n, row.users, "no statistics")


def _published_gain(
    recipe: Recipe, published: PublishedRow, metric: str, higher: bool
) -> float | None:
    """The paper's gain over its baseline; None for the baseline, and without both numbers."""
    number = published.published.get(metric)
    if number is None or published.method == recipe.baseline:
        return None
    for row in recipe.filled:
        same_data = (row.task, row.split) == (published.task, published.split)
        if same_data and row.method == recipe.baseline and metric in row.published:
            difference = number - row.published[metric]
            return difference if higher else -difference
    return None


def _judge(
    published: float | None,
    ours: Estimate | None,
    tolerance: float,
    is_run: bool,
    verdict: Verdict | None,
) -> Verdict:
    if not is_run:
        return "quoted"
    if ours is None or ours.value is None:
        return "no value"
    if published is None:
        return "no number"
    if verdict:
        return verdict

    low = ours.value if ours.low is None else ours.low
    high = ours.value if ours.high is None else ours.high
    if low - tolerance <= published <= high + tolerance:
        return "agrees"
    if ours.low is None:
        return "no interval"
    return "higher" if published < low else "lower"
