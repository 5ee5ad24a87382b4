"""`personabench pack`: write runs into a results folder for another machine."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.console import echo
from personabench.cli.options import RESULTS, MovedData, OwnTask, Results


class InputsOption(StrEnum):
    """How the inputs of runs are packed."""

    include = "include"
    hash = "hash"


_WORDS = {InputsOption.include: "included", InputsOption.hash: "hashed"}


def pack(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Run folders, first characters of run ids, or 'last' (default: all runs).",
            metavar="RUN",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FOLDER", help="New results folder."),
    ] = None,
    inputs: Annotated[
        InputsOption,
        typer.Option(
            "--inputs",
            metavar="HOW",
            help="hash (names and hashes of the data) or include (the data, and all messages).",
        ),
    ] = InputsOption.hash,
    check: Annotated[
        Path | None,
        typer.Option("--check", metavar="FOLDER", help="Check the files of a pack.", exists=True),
    ] = None,
    task: OwnTask = None,
    data: MovedData = None,
    results: Results = RESULTS,
) -> None:
    """Write runs as a folder that another machine can read.

    All commands read it with --results FOLDER. Check the data's licence before you pass on inputs.
    """
    from personabench.errors import UsageError
    from personabench.results.index import find_run, read_runs
    from personabench.results.locate import load_tasks, search_data_in
    from personabench.results.pack import check_pack
    from personabench.results.pack import pack as write_pack
    from personabench.results.run_folder import RunFolder

    if check is not None:
        changes = check_pack(check)
        for change in changes:
            echo(change, err=True)
        echo(f"{check}: {len(changes)} files are not as packed" if changes else f"{check}: whole")
        if changes:
            sys.exit(1)
        return
    if output is None:
        raise UsageError("name the new folder with --output FOLDER")

    folders = [find_run(run, results) for run in runs or []]
    folders = folders or [RunFolder(run.path) for run in read_runs(results)]
    if not folders:
        raise UsageError(f"no runs under {results}/runs; make one with `personabench run`")
    search_data_in(data or [])
    load_tasks(task, (folder.spec() for folder in folders), results)
    manifest = write_pack(folders, results, output, inputs.value)
    echo(f"wrote {output}: {len(manifest.runs)} runs, inputs {_WORDS[inputs]}", err=True)
    if inputs is InputsOption.hash and manifest.data:
        names = ", ".join(dict.fromkeys(packed.source for packed in manifest.data))
        echo(f"not in it, only its hashes: {names}; readers name it with --data", err=True)
        for packed in manifest.data:
            if not packed.files:
                echo(
                    f"warning: {packed.source} (data hash {packed.data_hash[:8]}) has moved or "
                    "changed since its runs, or their task is not loaded, so that its files are "
                    "not hashed; --data names another place, --task the file of a task",
                    err=True,
                )
