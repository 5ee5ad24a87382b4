"""`personabench check` and `personabench doctor`: is it sound, is it installed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.options import Data, Json, Split, emit

if TYPE_CHECKING:
    from personabench.testing.checks import Finding

app = typer.Typer(help="Verify a method or a task without a model.", no_args_is_help=True)


@app.command("task")
def task(
    name: Annotated[str, typer.Argument(help="Task or file.py[:Class].")],
    split: Split = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Check a task's data, wording and metrics."""
    from personabench.api.guard import create
    from personabench.api.registry import load
    from personabench.testing.checks import check_task

    found = create(load("task", name))
    _report(check_task(found, split or found.default_split, data), json)


@app.command("method")
def method(
    name: Annotated[str, typer.Argument(help="Method or file.py[:Class].")],
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help="Task whose bundled sample is used; else an example."),
    ] = None,
    json: Json = False,
) -> None:
    """Check a method's answers, determinism, leaks and window."""
    from personabench.api.guard import create
    from personabench.api.registry import example_task, load
    from personabench.testing.checks import check_method

    _report(check_method(create(load("method", name)), task or example_task()), json)


_MARKS = {True: "ok", False: "FAIL", None: "–"}


def _report(findings: Iterable[Finding], json: bool) -> None:
    seen = list(findings)
    if json:
        emit([{"what": f.what, "holds": f.holds, "detail": f.detail} for f in seen])
    else:
        for finding in seen:
            detail = f" ({finding.detail})" if finding.detail else ""
            typer.echo(f"{_MARKS[finding.holds]:4}  {finding.what}{detail}")
    if any(finding.holds is False for finding in seen):
        sys.exit(1)
