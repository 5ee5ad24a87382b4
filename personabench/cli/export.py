"""`personabench export`: write a run for other tools."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.console import echo
from personabench.cli.options import RESULTS, MovedData, OwnTask, Results, RunName


class Kind(StrEnum):
    """Format of an export."""

    inspect = "inspect"
    hf = "hf"
    csv = "csv"


def export(
    run: RunName,
    to: Annotated[
        Kind,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="inspect (an inspect-ai log), hf (a datasets folder) or csv.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="PATH", help="File to write; for hf, a folder."),
    ],
    escape: Annotated[
        bool,
        typer.Option(
            "--escape/--no-escape",
            help="For csv: put ' before text that a spreadsheet would compute (=, +, -, @, tab).",
        ),
    ] = True,
    task: OwnTask = None,
    data: MovedData = None,
    results: Results = RESULTS,
) -> None:
    """Write a run's samples for another tool.

    One row per sample: input, references, answer, scores, and every call with its messages. An
    export contains the texts of the data; use `publish` to write scores only.
    """
    from personabench.results.export import Source, write_csv_file, write_dataset
    from personabench.results.index import find_run
    from personabench.results.inspect_log import write
    from personabench.results.locate import load_tasks, search_data_in

    folder = find_run(run, results)
    search_data_in(data or [])
    load_tasks(task, [folder.spec()], results)
    source = Source(folder, results)
    for remark in source.remarks():
        echo(f"warning: {remark}", err=True)
    writers: dict[Kind, Callable[[Source, Path], None]] = {
        Kind.inspect: write,
        Kind.hf: write_dataset,
        Kind.csv: partial(write_csv_file, escape=escape),
    }
    writers[to](source, output)
    echo(f"wrote {output}: {len(source.ids)} samples", err=True)
