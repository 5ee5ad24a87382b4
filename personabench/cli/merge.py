"""`personabench merge`: shards into runs, and the options of `run` that spread it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.options import RESULTS, Data, Json, Metrics, OwnTask, Results, emit, screen

if TYPE_CHECKING:
    from personabench.executors import OnRay


class Executor(StrEnum):
    """Where a run is done."""

    process = "process"
    ray = "ray"


AnyResults = Annotated[
    str, typer.Option("--results", help="Folder of runs and cache; with --executor ray also a URL, such as s3://..")
]
Grid = Annotated[
    list[str] | None,
    typer.Option("--grid", help="Parameter as [method.]key=value,value: a run for each; repeatable, all combinations."),
]
Part = Annotated[str | None, typer.Option("--shard", help="i/n: only the i-th of n parts of the users; see merge.")]
Where = Annotated[Executor, typer.Option("--executor", help="This process, or --shards tasks on a Ray cluster.")]
Shards = Annotated[int | None, typer.Option("--shards", min=1, help="With --executor ray: into how many shards.")]
RayOptions = Annotated[
    str | None,
    typer.Option("--ray-options", help="Options of each shard's Ray task as JSON, such as '{\"num_gpus\": 1}'."),
]


def spread(
    executor: Executor, shard: str | None, shards: int | None, ray_options: str | None, results: str
) -> OnRay | None:
    """The Ray cluster that a run is for; None: this process.

    Raises:
        UsageError: options that do not go together, or options for Ray that are no JSON object.
    """
    import msgspec

    from personabench.errors import UsageError

    if executor is Executor.process:
        if shards is not None or ray_options is not None:
            raise UsageError(f"--{'shards' if shards else 'ray-options'} only goes with --executor ray")
        if "://" in results:
            raise UsageError(f"--results {results}: a URL only goes with --executor ray; name a folder")
        return None
    if shards is None or shard is not None:
        raise UsageError("--executor ray runs all shards: write --shards N, without --shard")
    try:
        options = msgspec.json.decode(ray_options or "{}", type=dict)
    except msgspec.MsgspecError as error:
        raise UsageError(f"--ray-options {ray_options}: {error}; write a JSON object") from error
    from personabench.executors import OnRay

    return OnRay(shards, results, options)


def merge(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="First characters of the ids of runs; else every run that has shards.", show_default=False),
    ] = None,
    results: Results = RESULTS,
    shards: Annotated[
        int | None, typer.Option("--shards", min=1, help="Which shards, where a run was split in several ways.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Merge what is there; what shards owe is owed by the run.")
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
    import msgspec

    from personabench import merging
    from personabench.cli.tables import print_boards
    from personabench.errors import UsageError
    from personabench.leaderboard import Asked, boards
    from personabench.located import named

    there = merging.sharded(results)
    if not there:
        raise UsageError(f"no shards under {results}/shards; make them with `personabench run --shard i/n`")
    chosen = [run for run in there if not runs or any(run.name.startswith(name[:8]) for name in runs)]
    for name in runs or []:
        if not any(run.name.startswith(name[:8]) for run in chosen):
            raise UsageError(f"no run '{name}' has shards under {results}/shards")
    if task is not None:
        firsts = [there[run][0].folder for run in chosen]
        named(task, [{"task": folder.spec().task, "folder": str(folder.path)} for folder in firsts])
    outcomes, refused = [], []
    for run in chosen:
        try:
            parts = there[run]
            made = merging.merge(results, run, parts, of=shards, partial=partial, data=data, metrics=metric or [])
            outcomes.append(made)
        except UsageError as error:
            refused.append(str(error))
    summaries = [{**msgspec.to_builtins(each.summary), "folder": str(each.folder)} for each in outcomes]
    if json and summaries:
        emit(summaries)
    elif summaries:
        print_boards(boards(summaries, asked=Asked(results=results)), screen())
        typer.echo("run folders:" if len(outcomes) > 1 else "run folder:")
        for outcome in outcomes:
            typer.echo(f"  {outcome.folder}")
    if refused:
        raise UsageError("\n".join(refused))
