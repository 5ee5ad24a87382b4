"""`personabench merge`: shards into runs, and the options of `run` that spread it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.options import RESULTS, Data, Json, Metrics, OwnTask, Results, emit, screen

if TYPE_CHECKING:
    pass


def merge(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="First characters of the ids of runs; else every run that has shards.",
            show_default=False,
        ),
    ] = None,
    results: Results = RESULTS,
    shards: Annotated[
        int | None,
        typer.Option(
            "--shards", min=1, help="Which shards, where a run was split in several ways."
        ),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Merge what is there; what shards owe is owed by the run."),
    ] = False,
    data: Data = None,
    task: OwnTask = None,
    metric: Metrics = None,
    json: Json = False,
) -> None:
    """Join the shards of runs; calls no model.

    Each run is what the same command without --shard would have made. Shards stay where they are; a run merged again
    takes the place of the one before.
    """

    from personabench.cli.tables import print_boards
    from personabench.errors import UsageError
    from personabench.leaderboard import BoardOptions, boards
    from personabench.results.index import Run
    from personabench.results.locate import named
    from personabench.results.summary import to_dict
    from personabench.run import merge

    there = merge.sharded(results)
    if not there:
        raise UsageError(
            f"no shards under {results}/shards; make them with `personabench run --shard i/n`"
        )
    chosen = [
        run for run in there if not runs or any(run.name.startswith(name[:8]) for name in runs)
    ]
    for name in runs or []:
        if not any(run.name.startswith(name[:8]) for run in chosen):
            raise UsageError(f"no run '{name}' has shards under {results}/shards")
    if task is not None:
        firsts = [there[run][0].folder for run in chosen]
        named(task, [folder.spec() for folder in firsts])
    outcomes, refused = [], []
    for run in chosen:
        try:
            parts = there[run]
            made = merge.merge(
                results, run, parts, of=shards, partial=partial, data=data, metrics=metric or []
            )
            outcomes.append(made)
        except UsageError as error:
            refused.append(str(error))
    merged = [Run(outcome.summary, outcome.folder) for outcome in outcomes]
    if json and merged:
        emit([{**to_dict(run.summary), "folder": str(run.path)} for run in merged])
    elif merged:
        print_boards(boards(merged, options=BoardOptions(results=results)), screen())
        typer.echo("run folders:" if len(outcomes) > 1 else "run folder:")
        for outcome in outcomes:
            typer.echo(f"  {outcome.folder}")
    if refused:
        raise UsageError("\n".join(refused))
