"""`personabench report`: write all runs into one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.console import echo
from personabench.cli.options import RESULTS, MovedData, OnlyTask, Results, WithReference


def report(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="File to write.", dir_okay=False)
    ] = Path("report.html"),
    results: Results = RESULTS,
    task: OnlyTask = None,
    data: MovedData = None,
    with_reference: WithReference = False,
) -> None:
    """Write every table, plot and sample into one HTML file.

    The file works offline, loads nothing, and shows the source of each number.
    """
    from personabench.report import write
    from personabench.results.index import read_chosen
    from personabench.results.locate import load_chosen_task, search_data_in

    search_data_in(data or [])
    runs = read_chosen(results, with_reference=with_reference)
    task = load_chosen_task(task, (run.spec for run in runs if run.spec), results)
    for remark in write(results, output, task, with_reference=with_reference):
        echo(remark, err=True)
    echo(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB)", err=True)
