"""`personabench leaderboard`: rank the runs of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.console import echo, screen
from personabench.cli.options import (
    RESULTS,
    Json,
    MaskFile,
    OnlyTask,
    Prices,
    Results,
    WithReference,
)

if TYPE_CHECKING:
    from personabench.leaderboard import Board
    from personabench.leaderboard.mask import Mask
    from personabench.results.index import Run


class Format(StrEnum):
    """Format of a leaderboard."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"
    latex = "latex"
    html = "html"


def leaderboard(
    task: OnlyTask = None,
    results: Results = RESULTS,
    with_reference: WithReference = False,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="ROW",
            help="Row that gains are measured against (default: the method none).",
        ),
    ] = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="Show all columns: every metric, controls, users, costs.")
    ] = False,
    curves: Annotated[
        bool,
        typer.Option(
            "--curves",
            help="Print scores by history size and by parameter instead.",
        ),
    ] = False,
    mask: MaskFile = None,
    prices: Prices = None,
    queries: Annotated[
        float | None,
        typer.Option(
            "--queries-per-user",
            min=1,
            metavar="N",
            help="Queries that share the cost of a profile (default: 10).",
        ),
    ] = None,
    format: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="table, md, csv, json, latex or html.",
        ),
    ] = Format.table,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="File to write.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Rank the runs of each task, a row per method.

    Scores come with 95 % intervals over users, gains over the baseline with corrected p-values.
    --wide adds columns, --with-reference published results, --mask a score without samples whose
    golds are wrong.
    """
    from personabench.cli.tables import curve_text, print_boards
    from personabench.errors import UsageError
    from personabench.leaderboard import BASELINE, BoardOptions, boards
    from personabench.leaderboard.curves import curves as curve_points
    from personabench.results.index import read_chosen, suggest_runs

    chosen_format = Format.json if json else format
    runs = read_chosen(results, with_reference=with_reference)
    if not runs:
        raise UsageError(f"no runs under {results}/runs; {suggest_runs(results)}")
    task_name = _task_name(task, runs, results)
    options = BoardOptions(
        baseline=baseline or BASELINE,
        thorough=wide or chosen_format is not Format.table,
        prices=_prices(prices),
        queries=queries,
        mask=open_mask(mask, [run for run in runs if task_name in (None, run.summary.task)]),
        results=results,
    )
    ranked = boards(runs, task_name, options)
    _check_choice(ranked, runs, task_name, baseline, results)

    if curves and chosen_format is Format.html:
        raise UsageError("--curves cannot be written as html; `personabench report` draws curves")
    if curves:
        _write(curve_text(curve_points(ranked), chosen_format.value), output)
    elif chosen_format is Format.table and output is None:
        print_boards(ranked, screen(), wide, "--wide")
    else:
        _write(_format_boards(ranked, chosen_format, wide), output)


def open_mask(path: Path | None, runs: Sequence[Run]) -> Mask | None:
    """Read the mask of `--mask`, and say how many of its ids no run has a score for.

    Raises:
        UsageError: the file is no mask, or its ids are not those of the runs' data.
    """
    if path is None:
        return None
    from personabench.leaderboard.mask import check_mask, read_mask

    mask = read_mask(path)
    unscored = check_mask(mask, runs)
    if unscored:
        echo(
            f"warning: --mask {path.name}: {unscored} of its {len(mask.ids)} ids are of samples "
            "that no run has a score for",
            err=True,
        )
    return mask


def _task_name(task: str | None, runs: Sequence[Run], results: Path) -> str | None:
    """Return the name of the task; a file is loaded first."""
    from personabench.results.locate import load_chosen_task

    return load_chosen_task(task, (run.spec for run in runs if run.spec), results)


def _check_choice(
    ranked: Sequence[Board],
    runs: Sequence[Run],
    task: str | None,
    baseline: str | None,
    results: Path,
) -> None:
    """Check that the task has runs and that the baseline is a row or a method.

    Raises:
        UsageError: it has none, or it is not.
    """
    from personabench.errors import UsageError

    if not ranked:
        tasks = ", ".join(sorted({run.summary.task for run in runs}))
        raise UsageError(
            f"no runs of task '{task}' under {results}/runs; there are runs of {tasks}"
        )
    rows = {row.label for board in ranked for row in board.rows}
    baselines = rows | {run.summary.method for run in runs}
    if baseline and baseline not in baselines:
        raise UsageError(
            f"--baseline {baseline}: no such row; choose one of {', '.join(sorted(baselines))}"
        )


def _format_boards(ranked: Sequence[Board], chosen_format: Format, wide: bool) -> str:
    from personabench import leaderboard
    from personabench.cli.tables import board_text

    if chosen_format is Format.json:
        return leaderboard.as_json(ranked)
    if chosen_format is Format.md:
        return leaderboard.as_markdown(ranked, wide)
    if chosen_format is Format.latex:
        return leaderboard.as_latex(ranked, wide)
    if chosen_format is Format.csv:
        return leaderboard.as_csv(ranked)
    if chosen_format is Format.html:
        from personabench.report.board import board_page

        return board_page(ranked, wide)
    return board_text(ranked, wide)


def _prices(path: Path | None) -> Mapping[str, Mapping[str, float]] | None:
    """Read the prices of `--prices`."""
    if path is None:
        return None
    from personabench.models.budget import read_prices

    return read_prices(path)


def _write(text: str, output: Path | None) -> None:
    """Write text to a file, or print it."""
    from personabench.errors import UsageError

    if output is None:
        echo(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error.strerror}") from error
    echo(f"wrote {output}", err=True)
