"""`personabench download`: fetch a task's official files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.options import Split


def download(
    task: Annotated[str, typer.Argument(help="The task to fetch.")],
    split: Split = None,
    target: Annotated[
        Path, typer.Option("--target", help="Folder that receives the official tree.")
    ] = Path("data"),
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", help="A mirror with the official layout.", show_default=False),
    ] = None,
) -> None:
    """Fetch and check a task's official files, for `run --data`."""
    import shlex
    import warnings

    from rich.console import Console

    from personabench.api.data_sources import Downloadable
    from personabench.api.registry import load
    from personabench.api.task import Task
    from personabench.cli.display import downloading
    from personabench.errors import UsageError

    found: Task = load("task", task)()
    if not isinstance(found, Downloadable):
        raise UsageError(
            f"task {found.name} has nothing to download; pass a local copy with --data"
        )
    wanted = split or found.default_split
    typer.echo(f"{found.name}: {found.source}; licence: {found.licence}", err=True)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
        with downloading(Console(stderr=True, highlight=False)) as progress:
            found.download(
                wanted, target, progress=progress, **({"base_url": base_url} if base_url else {})
            )
    found.open(wanted, target)
    words = [
        "personabench",
        "run",
        "--task",
        task,
        "--split",
        wanted,
        "--data",
        str(target),
        "--method",
        "none,rag",
    ]
    typer.echo(f"ready: {shlex.join(words)}")
