"""`personabench leaderboard`: rank the runs of each task."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.console import screen
from personabench.cli.options import RESULTS, Json, OnlyTask, Prices, Results


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
    prices: Prices = None,
    queries: Annotated[
        float | None,
        typer.Option(
            "--queries-per-user",
            min=1,
            metavar="N",
            help="Samples that share the cost of a profile (default: as in the run).",
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
    """Rank runs and published results, a row per method.

    Scores come with 95 % intervals over users, gains over the baseline with corrected p-values.
    --wide adds columns.
    """
    from personabench import leaderboard as made
    from personabench.api.registry import is_file
    from personabench.cli.tables import board_text, curve_text, print_boards
    from personabench.errors import UsageError
    from personabench.results.index import read_all
    from personabench.results.locate import load_named_task

    form = Format.json if json else format
    runs = read_all(results)
    asked = made.BoardOptions(
        baseline=baseline or made.BASELINE,
        thorough=wide or form is not Format.table,
        prices=_prices(prices),
        queries=queries,
        results=results,
    )
    if not runs:
        raise UsageError(f"no runs under {results}/runs; make one with `personabench run`")
    if task is not None and is_file(task):
        task = load_named_task(task, [run.spec for run in runs if run.spec])
    found = made.boards(runs, task, asked)
    if not found:
        there = ", ".join(sorted({run.summary.task for run in runs}))
        raise UsageError(
            f"no runs of task '{task}' under {results}/runs; there are runs of {there}"
        )
    known = {row.label for board in found for row in board.rows} | {
        run.summary.method for run in runs
    }
    if baseline and baseline not in known:
        raise UsageError(
            f"--baseline {baseline}: no such row; choose one of {', '.join(sorted(known))}"
        )
    if curves and form is Format.html:
        raise UsageError("--curves cannot be written as html; `personabench report` draws curves")
    if curves:
        _write(curve_text(made.curves(found), form.value), output)
        return
    if form is Format.table and output is None:
        print_boards(found, screen(), wide)
        return
    if form is Format.json:
        text = made.as_json(found)
    elif form is Format.md:
        text = made.as_markdown(found, wide)
    elif form is Format.latex:
        text = made.as_latex(found, wide)
    elif form is Format.csv:
        text = made.as_csv(found)
    elif form is Format.html:
        from personabench.report.board import board_page

        text = board_page(found, wide)
    else:
        text = board_text(found, wide)
    _write(text, output)


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
        typer.echo(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error.strerror}") from error
    typer.echo(f"wrote {output}", err=True)
