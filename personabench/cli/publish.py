"""`personabench publish`: write finished runs as reference results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.console import echo
from personabench.cli.options import RESULTS, Results


def publish(
    runs: Annotated[
        list[str],
        typer.Argument(help="Run folders, first characters of run ids, or 'last'.", metavar="RUN"),
    ],
    results: Results = RESULTS,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="FOLDER",
            help="Folder to write to (default: RESULTS/reference).",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="File name without .json, for a single run."),
    ] = None,
) -> None:
    """Write runs as reference results.

    A file contains the spec, the summary and per-sample scores with hashed ids, but no text of the
    data.
    """
    from personabench.errors import UsageError
    from personabench.results.index import find_run
    from personabench.results.published import publish as published

    if name is not None and len(runs) > 1:
        raise UsageError("--name can only be used with a single run")
    folders = [find_run(run, results) for run in runs]
    for folder in folders:
        echo(published(folder, to or results / "reference", name))
