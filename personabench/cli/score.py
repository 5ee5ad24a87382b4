"""`personabench score` and `personabench download`: official files in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.options import Json, emit


def score(
    task: Annotated[str, typer.Option("--task", "-t", help="The task the files belong to.")],
    predictions: Annotated[
        Path, typer.Option("--predictions", help="Prediction file, or JSON lines of id and output.")
    ],
    references: Annotated[
        Path, typer.Option("--references", help="The benchmark's own reference file.")
    ],
    scorer: Annotated[
        str, typer.Option("--scorer", help="How answers are read: official, lenient or strict.")
    ] = "official",
    partial: Annotated[
        bool, typer.Option("--partial", help="Score the ids both files have, and say so.")
    ] = False,
    json: Json = False,
) -> None:
    """Score a prediction file made anywhere; calls no model."""
    from personabench.api.registry import load
    from personabench.run.score_file import score_files

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
    shown = {
        name: value
        for name, value in found.metrics.items()
        if found.metrics.get(official[name] or "") != value
    }
    for name, value in shown.items():
        typer.echo(f"{name:{max(12, *map(len, shown))}} {value:.4f}")
