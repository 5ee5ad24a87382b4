"""`personabench check`: verify plugins and published results without a model, or a backend."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.completion import complete_methods, complete_tasks
from personabench.cli.console import echo, emit
from personabench.cli.help import PlainCommand
from personabench.cli.model_options import ModelArguments
from personabench.cli.option_groups import grouped
from personabench.cli.options import (
    RESULTS,
    Data,
    Json,
    Results,
    Split,
    Temperature,
    TopP,
)

if TYPE_CHECKING:
    from personabench.testing.checks import Finding

app = typer.Typer(
    help="Verify a method, a task, a backend or published results.", no_args_is_help=True
)


@app.command("task", cls=PlainCommand)
def task(
    name: Annotated[
        str,
        typer.Argument(
            help="Task name or file.py[:Class].", metavar="TASK", autocompletion=complete_tasks
        ),
    ],
    split: Split = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Check a task's data, wording and metrics."""
    from personabench.api.guard import create
    from personabench.api.registry import load_class
    from personabench.testing.checks import check_task

    checked = create(load_class("task", name))
    _report(check_task(checked, split or checked.default_split, data), json)


@app.command("method", cls=PlainCommand)
def method(
    name: Annotated[
        str,
        typer.Argument(
            help="Method name or file.py[:Class].",
            metavar="METHOD",
            autocompletion=complete_methods,
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            "-t",
            metavar="TASK",
            help="Task whose example data is used (default: a small built-in task).",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check a method's answers, determinism, leaks and window."""
    from personabench.api.guard import create
    from personabench.api.registry import example_task, load_class
    from personabench.testing.checks import check_method
    from personabench.testing.data_access import refuse_data_access

    # A file could also read gold answers while it is imported.
    with refuse_data_access() as calls:
        checked = create(load_class("method", name))
    _report(check_method(checked, task or example_task(), refused_calls=calls), json)


@app.command("backend", cls=PlainCommand)
@grouped
def backend(
    model: ModelArguments,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Learn the dialect of a server with one small call.

    It is printed on one line and kept in the results folder. A run does the same when a server is
    new.
    """
    import asyncio

    from personabench.run.openings import check_backend
    from personabench.run.options import Options
    from personabench.types import Sampling

    sampling = Sampling(temperature, top_p)
    options = Options(
        [],
        [],
        backend=model.backend,
        backend_options=model.read(),
        sampling=sampling,
        results=results,
    )
    facts = asyncio.run(check_backend(options))
    if json:
        emit(facts)
        return
    for label, fact in facts.items():
        echo(f"{label:9} {fact}")


@app.command("published", cls=PlainCommand)
def published(
    folder: Annotated[
        Path, typer.Argument(help="Folder with published results.", metavar="FOLDER")
    ] = RESULTS / "reference",
    json: Json = False,
) -> None:
    """Check that published results are whole and without texts.

    Hashes, counts, names and fingerprints have to agree, and every number of a summary has to
    follow from its scores. Exits with 1 if a file fails, and with 2 if there is none.
    """
    from personabench.testing.published_check import check_published

    _report(check_published(folder), json)


_MARKS = {True: "ok", False: "FAIL", None: "–"}


def _report(findings: Iterable[Finding], json: bool) -> None:
    """Print findings and exit with 1 if one does not hold."""
    results = _run_checks(findings)
    if json:
        rows = [
            {
                "what": finding.what,
                "holds": finding.holds,
                "detail": finding.detail,
            }
            for finding in results
        ]
        emit(rows)
    else:
        for finding in results:
            detail = f" ({finding.detail})" if finding.detail else ""
            echo(f"{_MARKS[finding.holds]:4}  {finding.what}{detail}")

    if any(finding.holds is False for finding in results):
        sys.exit(1)


def _run_checks(findings: Iterable[Finding]) -> list[Finding]:
    """Run the checks; a fault of the plugin ends them as a check that does not hold."""
    from personabench.errors import PluginError
    from personabench.run.interrupts import ending_command
    from personabench.testing.checks import Finding

    results = []
    try:
        with ending_command("interrupted"):
            for finding in findings:
                results.append(finding)
    except PluginError as fault:
        results.append(Finding("the code returns what is expected of it", False, str(fault)))
    return results
