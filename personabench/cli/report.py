"""`personabench report`: write all runs into one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.console import echo
from personabench.cli.options import RESULTS, MovedData, OnlyTask, Results


def report(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="File to write.", dir_okay=False)
    ] = Path("report.html"),
    results: Results = RESULTS,
    task: OnlyTask = None,
    data: MovedData = None,
) -> None:
    """Write every table, plot and sample into one HTML file.

    The file works offline, loads nothing, and shows the source of each number.
    """
    from personabench.report import write
    from personabench.results.index import read_all
    from personabench.results.locate import load_chosen_task, search_data_in

    search_data_in(data or [])
    specs = (run.spec for run in read_all(results) if run.spec)
    task = load_chosen_task(task, specs, results)
    for remark in write(results, output, task):
        echo(remark, err=True)
    echo(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB)", err=True)
