"""`personabench download`: download the official files of a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.console import echo, screen
from personabench.cli.options import Split, Target


def download(
    task: Annotated[str, typer.Argument(help="Task name.", metavar="TASK")],
    split: Split = None,
    target: Target = Path("data"),
    base_url: Annotated[
        str | None,
        typer.Option(
            "--base-url",
            metavar="URL",
            help="Mirror of the official files.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Download a task's official files and check them."""
    import shlex
    import warnings

    from personabench.api.data_sources import Downloadable
    from personabench.api.guard import create
    from personabench.api.registry import load_class
    from personabench.api.task import Task
    from personabench.cli.display import downloading
    from personabench.errors import UsageError

    opened: Task = create(load_class("task", task))
    if not isinstance(opened, Downloadable):
        raise UsageError(
            f"task {opened.name} has nothing to download; pass a local copy with --data"
        )
    if base_url and "@" in base_url:
        raise UsageError("--base-url holds a name or password; leave them out")
    chosen_split = split or opened.default_split
    echo(f"{opened.name}: {opened.source}; licence: {opened.licence}", err=True)

    # Only tasks that can use a mirror accept the argument.
    mirror = {"base_url": base_url} if base_url else {}
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: echo(f"warning: {message}", err=True)
        with downloading(screen(err=True)) as progress:
            opened.download(chosen_split, target, progress=progress, **mirror)

    # Opening checks the files before the command to run is offered.
    opened.open(chosen_split, target)
    words = [
        "personabench",
        "run",
        "--task",
        task,
        "--split",
        chosen_split,
        "--data",
        str(target),
        "--method",
        "none,rag",
    ]
    echo(f"ready: {shlex.join(words)}")
