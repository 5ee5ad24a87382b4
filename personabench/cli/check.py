"""`personabench check` and `personabench doctor`: is it sound, is it installed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.options import RESULTS, Data, Json, Results, Split, emit

if TYPE_CHECKING:
    from personabench.checks import Finding

app = typer.Typer(help="Verify a method or a task without a model.", no_args_is_help=True)


@app.command("task")
def task(
    name: Annotated[str, typer.Argument(help="Task or file.py[:Class].")],
    split: Split = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Check a task's data, wording and metrics."""
    from personabench.checks import check_task
    from personabench.plugins import create
    from personabench.registry import load

    found = create(load("task", name))
    _report(check_task(found, split or found.default_split, data), json)


@app.command("method")
def method(
    name: Annotated[str, typer.Argument(help="Method or file.py[:Class].")],
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Task whose bundled sample is used; else an example.")
    ] = None,
    json: Json = False,
) -> None:
    """Check a method's answers, determinism, leaks and window."""
    from personabench.checks import check_method
    from personabench.plugins import create
    from personabench.registry import example_task, load

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


def doctor(results: Results = RESULTS, json: Json = False) -> None:
    """Look at the installation, model and results folder."""
    import os
    import tempfile

    from personabench.backends.local import find_model
    from personabench.errors import PersonabenchError
    from personabench.runner import versions

    rows: list[dict[str, str]] = [
        {"what": name, "state": "ok", "detail": version} for name, version in versions().items()
    ]
    try:
        rows.append({"what": "local model", "state": "ok", "detail": find_model(None).name})
    except PersonabenchError as error:
        rows.append({"what": "local model", "state": "missing", "detail": str(error)})
    for module, purpose in (("xllamacpp", "local backend"), ("wordllama", "dense retrieval"), ("vllm", "vllm extra")):
        import importlib.util

        state = "ok" if importlib.util.find_spec(module) else "missing"
        rows.append({"what": module, "state": state, "detail": purpose})
    key = "set" if os.environ.get("OPENAI_API_KEY") else "not set; needed for remote APIs only"
    rows.append({"what": "OPENAI_API_KEY", "state": "ok", "detail": key})
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            rows.append({"what": "results folder", "state": "ok", "detail": str(results)})
    except OSError as error:
        rows.append({"what": "results folder", "state": "broken", "detail": f"{results}: {error.strerror}"})
    if json:
        emit(rows)
    else:
        for row in rows:
            typer.echo(f"{row['state']:8} {row['what']:22} {row['detail']}")
    if any(row["state"] == "broken" for row in rows):
        sys.exit(1)
