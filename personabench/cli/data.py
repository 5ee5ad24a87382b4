"""`personabench score` and `personabench download`: official files in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.options import Json, Split, emit


def score(
    task: Annotated[str, typer.Option("--task", "-t", help="The task the files belong to.")],
    predictions: Annotated[
        Path, typer.Option("--predictions", help="Prediction file, or JSON lines of id and output.")
    ],
    references: Annotated[Path, typer.Option("--references", help="The benchmark's own reference file.")],
    scorer: Annotated[
        str, typer.Option("--scorer", help="How answers are read: official, lenient or strict.")
    ] = "official",
    partial: Annotated[bool, typer.Option("--partial", help="Score the ids both files have, and say so.")] = False,
    json: Json = False,
) -> None:
    """Score a prediction file made anywhere; calls no model."""
    from personabench.metrics.score_files import score_files
    from personabench.registry import load

    opened = load("task", task)()
    found = score_files(opened, predictions, references, scorer, partial)
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    whole = "partial: only the ids both files have" if found.partial else "all ids"
    counts = f"parse failures {found.parse_failures}, null outputs {found.null_outputs}"
    typer.echo(f"{found.task}, {found.scorer} scorer, n={found.n} ({whole}), {counts}", err=json)
    if json:
        emit(found.metrics)
        return
    official = {metric.name: metric.variant_of for metric in opened.metrics}
    shown = {name: value for name, value in found.metrics.items() if found.metrics.get(official[name] or "") != value}
    for name, value in shown.items():
        typer.echo(f"{name:{max(12, *map(len, shown))}} {value:.4f}")


def download(
    task: Annotated[str, typer.Argument(help="The task to fetch.")],
    split: Split = None,
    target: Annotated[Path, typer.Option("--target", help="Folder that receives the official tree.")] = Path("data"),
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="A mirror with the official layout.", show_default=False)
    ] = None,
) -> None:
    """Fetch and check a task's official files, for `run --data`."""
    import shlex
    import warnings

    from rich.console import Console

    from personabench.cli.display import downloading
    from personabench.registry import load

    found = load("task", task)()
    wanted = split or found.default_split
    typer.echo(f"{found.name}: {found.source}; licence: {found.licence}", err=True)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
        with downloading(Console(stderr=True, highlight=False)) as progress:
            found.download(wanted, target, progress=progress, **({"base_url": base_url} if base_url else {}))
    found.open(wanted, target)
    words = ["personabench", "run", "--task", task, "--split", wanted, "--data", str(target), "--method", "none,rag"]
    typer.echo(f"ready: {shlex.join(words)}")
