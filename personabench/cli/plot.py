"""`personabench plot`: a figure for a paper."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.console import echo
from personabench.cli.options import RESULTS, OnlyTask, Results, WithReference
from personabench.cli.table import FitOption


class FigureKind(StrEnum):
    """The kinds of figures."""

    gains = "gains"
    intervals = "intervals"
    frontier = "frontier"
    curve = "curve"
    users = "users"
    own_vs_shuffled = "own-vs-shuffled"


def plot(
    kind: Annotated[
        FigureKind,
        typer.Argument(
            help="gains, intervals, frontier, curve, users or own-vs-shuffled.", metavar="KIND"
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="File to write: .pdf, .svg or .png."),
    ],
    fit: Annotated[
        FitOption,
        typer.Option(
            "--fit",
            metavar="SPACE",
            help="column (of two) or page: the width at which the texts are legible.",
        ),
    ] = FitOption.page,
    task: OnlyTask = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="ROW", help="Row that gains are measured against."),
    ] = None,
    with_reference: WithReference = False,
    results: Results = RESULTS,
) -> None:
    """Draw a figure of one task, with its protocol inside. Needs the extra `plot` (matplotlib)."""
    from personabench.errors import UsageError
    from personabench.leaderboard import BASELINE, BoardOptions, boards
    from personabench.report.figures import choose_board, draw
    from personabench.results.index import read_chosen, suggest_runs
    from personabench.results.locate import load_chosen_task

    runs = read_chosen(results, with_reference=with_reference)
    name = load_chosen_task(task, (run.spec for run in runs if run.spec), results)
    options = BoardOptions(baseline=baseline or BASELINE, thorough=True, results=results)
    ranked = boards(runs, name, options)
    if not ranked:
        tasks = ", ".join(sorted({run.summary.task for run in runs}))
        hint = f"there are runs of {tasks}" if tasks else suggest_runs(results)
        raise UsageError(f"no runs to draw under {results}/runs; {hint}")
    draw(kind.value, choose_board(ranked), output, fit.value)
    echo(f"wrote {output}", err=True)
