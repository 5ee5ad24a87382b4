"""`personabench merge`: join shards into runs."""

from __future__ import annotations

from typing import Annotated

import typer

from personabench.cli.console import emit, screen
from personabench.cli.options import RESULTS, Data, Json, Metrics, OwnTask, Results


def merge(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="First characters of run ids (default: all runs that have shards).",
            metavar="RUN",
            show_default=False,
        ),
    ] = None,
    results: Results = RESULTS,
    shards: Annotated[
        int | None,
        typer.Option(
            "--shards",
            min=1,
            metavar="N",
            help="Number of shards, if a run was split in several ways.",
        ),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial", help="Merge incomplete shards; their pending samples stay pending."
        ),
    ] = False,
    data: Data = None,
    task: OwnTask = None,
    metric: Metrics = None,
    json: Json = False,
) -> None:
    """Join the shards of runs without calling a model.

    The result is the run that the same command without --shard would have written. Shards are kept;
    merging again overwrites the run.
    """

    from personabench.cli.tables import print_boards
    from personabench.errors import UsageError
    from personabench.leaderboard import BoardOptions, boards
    from personabench.results.index import Run
    from personabench.results.locate import load_named_task
    from personabench.results.summary import to_dict
    from personabench.run import merge

    shards_by_run = merge.sharded(results)
    if not shards_by_run:
        raise UsageError(
            f"no shards under {results}/shards; make them with `personabench run --shard i/n`"
        )
    # Run folders are named by eight characters of the id; a longer id names the same run.
    prefixes = {name: name[:8] for name in runs or []}
    for name, prefix in prefixes.items():
        if not any(run.name.startswith(prefix) for run in shards_by_run):
            raise UsageError(f"no run '{name}' has shards under {results}/shards")
    chosen = list(shards_by_run)
    if prefixes:
        chosen = [run for run in chosen if run.name.startswith(tuple(prefixes.values()))]

    if task is not None:
        firsts = [shards_by_run[run][0].folder for run in chosen]
        load_named_task(task, [folder.spec() for folder in firsts])
    outcomes, refused = [], []
    for run in chosen:
        try:
            outcome = merge.merge(
                results,
                run,
                shards_by_run[run],
                of=shards,
                partial=partial,
                data=data,
                metrics=metric or [],
            )
            outcomes.append(outcome)
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
