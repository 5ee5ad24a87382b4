"""`personabench score`: score a prediction file against the official references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.console import emit
from personabench.cli.options import Json, Task


def score(
    task: Task,
    predictions: Annotated[
        Path,
        typer.Option(
            "--predictions",
            metavar="FILE",
            help="Prediction file, or JSON lines with id and output.",
        ),
    ],
    references: Annotated[
        Path,
        typer.Option(
            "--references", metavar="FILE", help="The benchmark's official reference file."
        ),
    ],
    scorer: Annotated[
        str,
        typer.Option(
            "--scorer",
            metavar="SCORER",
            help="Parser of the answers: official, lenient or strict.",
        ),
    ] = "official",
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Score only the ids that both files have."),
    ] = False,
    json: Json = False,
) -> None:
    """Score predictions of any system without a model."""
    from personabench.api.guard import create
    from personabench.api.registry import load_class
    from personabench.run.score_file import score_files

    opened = create(load_class("task", task))
    score = score_files(opened, predictions, references, scorer, partial)
    for warning in score.warnings:
        typer.echo(f"warning: {warning}", err=True)

    scope = "partial: only the ids both files have" if score.partial else "all ids"
    counts = f"parse failures {score.parse_failures}, null outputs {score.null_outputs}"
    # With --json, standard output must hold the JSON alone.
    typer.echo(f"{score.task}, {score.scorer} scorer, n={score.n} ({scope}), {counts}", err=json)
    if json:
        emit(score.metrics)
        return

    # A variant that agrees with the official metric would only repeat its number.
    official_names = {metric.name: metric.variant_of for metric in opened.metrics}
    values = {}
    for name, value in score.metrics.items():
        official = score.metrics.get(official_names[name] or "")
        if value != official:
            values[name] = value
    width = max(12, *map(len, values))
    for name, value in values.items():
        typer.echo(f"{name:{width}} {value:.4f}")
