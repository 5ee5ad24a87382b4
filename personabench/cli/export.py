"""`personabench export`: write a run for other tools, or hand it to them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.console import echo
from personabench.cli.options import RESULTS, MovedData, OwnTask, Results, RunName
from personabench.errors import UsageError

if TYPE_CHECKING:
    from personabench.results.export import Source


class Kind(StrEnum):
    """Format of an export."""

    inspect = "inspect"
    hf = "hf"
    csv = "csv"
    wandb = "wandb"
    mlflow = "mlflow"


def export(
    run: RunName,
    to: Annotated[
        Kind,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="inspect (an inspect-ai log), hf (a datasets folder), csv, wandb or mlflow.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="File to write; for hf and wandb a folder, for mlflow a database (.db).",
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            "--push",
            metavar="REPO",
            help="For hf: push to this dataset of the hub, OWNER/NAME, in place of a folder.",
        ),
    ] = None,
    public: Annotated[
        bool,
        typer.Option("--public", help="For --push: a new repository can be read by everybody."),
    ] = False,
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
    from personabench.results.export import Source
    from personabench.results.hub import push_dataset
    from personabench.results.index import find_run
    from personabench.results.locate import load_tasks, search_data_in

    _check_push(to, output, push, public)
    folder = find_run(run, results)
    search_data_in(data or [])
    load_tasks(task, [folder.spec()], results)
    source = Source(folder, results)
    for remark in source.remarks():
        echo(f"warning: {remark}", err=True)
    if push is not None:
        target: object = push_dataset(source, push, public=public)
    else:
        target = _write(source, to, output, escape)
    echo(f"wrote {target}: {len(source.ids)} samples", err=True)


def _check_push(to: Kind, output: Path | None, push: str | None, public: bool) -> None:
    """Refuse options that exclude each other.

    Raises:
        UsageError: there are some.
    """
    if public and push is None:
        raise UsageError("--public can only be used with --push")
    if push is not None and to is not Kind.hf:
        raise UsageError(f"--push can only be used with --to hf, not {to}")
    if push is not None and output is not None:
        raise UsageError("--push writes to the hub: leave out --output")


def _write(source: Source, to: Kind, output: Path | None, escape: bool) -> object:
    """Write a run on this machine, or to the server of a tracker; return where it is.

    Raises:
        UsageError: there is no place to write to.
    """
    from personabench.results import export as files
    from personabench.results.inspect_log import write
    from personabench.results.trackers import write_mlflow, write_wandb

    # A server of MLflow is named by a variable of its own.
    if to is Kind.mlflow:
        return write_mlflow(source, output)
    if output is None:
        hint = ", or --push OWNER/NAME" if to is Kind.hf else ""
        raise UsageError(f"--to {to} needs --output PATH{hint}")
    if to is Kind.wandb:
        return write_wandb(source, output)

    if to is Kind.inspect:
        write(source, output)
    elif to is Kind.hf:
        files.write_dataset(source, output)
    else:
        files.write_csv_file(source, output, escape)
    return output
