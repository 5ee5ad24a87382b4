"""`personabench export`: a run for other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.options import RESULTS, OwnTask, Results


class Kind(StrEnum):
    """What a run is written as."""

    inspect = "inspect"
    hf = "hf"
    csv = "csv"


def export(
    run: Annotated[
        str, typer.Argument(help="Run folder, the first characters of a run's id, or 'last'.")
    ],
    to: Annotated[
        Kind,
        typer.Option(
            "--to", help="inspect: an inspect-ai log; hf: a datasets folder; csv: a table."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File, or for hf folder, to write.")
    ],
    task: OwnTask = None,
    results: Results = RESULTS,
) -> None:
    """Write a run's samples for another tool.

    A row a sample: input, references, answer, scores, and every call with its messages. It holds the texts of the
    data; `publish` writes scores alone.
    """
    from personabench.results.export import Source, as_csv, as_dataset
    from personabench.results.index import find_run
    from personabench.results.inspect_log import write
    from personabench.results.locate import named

    folder = find_run(run, results)
    if task is not None:
        named(task, [folder.spec()])
    source = Source(folder, results)
    for remark in source.remarks():
        typer.echo(f"warning: {remark}", err=True)
    {Kind.inspect: write, Kind.hf: as_dataset, Kind.csv: as_csv}[to](source, output)
    typer.echo(f"wrote {output}: {len(source.ids)} samples", err=True)
