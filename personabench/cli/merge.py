"""`personabench merge`: join shards into runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.console import echo, emit, screen
from personabench.cli.options import RESULTS, Data, Json, Metrics, OwnTask, Results

if TYPE_CHECKING:
    from personabench.run.runner import Outcome


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
    from personabench.errors import UsageError
    from personabench.results.locate import load_tasks
    from personabench.run.merge import find_shards, merge_shards

    shards_by_run = find_shards(results)
    if not shards_by_run:
        raise UsageError(
            f"no shards under {results}/shards; make them with `personabench run --shard i/n`"
        )
    chosen = _choose_runs(list(shards_by_run), runs or [], results)
    first_folders = [shards_by_run[run][0].folder for run in chosen]
    load_tasks(task, (folder.spec() for folder in first_folders), results)

    outcomes, errors = [], []
    for run in chosen:
        try:
            outcome = merge_shards(
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
            # Runs that can be merged are, before those that cannot are reported.
            errors.append(str(error))

    _print_outcomes(outcomes, results, json)
    if errors:
        raise UsageError("\n".join(errors))


def _choose_runs(runs: Sequence[Path], run_ids: Sequence[str], results: Path) -> list[Path]:
    """Choose the runs that have one of the ids, or all without any.

    Raises:
        UsageError: no run has such an id.
    """
    from personabench.errors import UsageError

    if not run_ids:
        return list(runs)

    # Run folders are named by eight characters of the id; a longer id names the same run.
    prefixes = {run_id: run_id[:8] for run_id in run_ids}
    for run_id, prefix in prefixes.items():
        if not any(run.name.startswith(prefix) for run in runs):
            raise UsageError(f"no run '{run_id}' has shards under {results}/shards")
    return [run for run in runs if run.name.startswith(tuple(prefixes.values()))]


def _print_outcomes(outcomes: Sequence[Outcome], results: Path, json: bool) -> None:
    """Print the merged runs, if there are any."""
    from personabench.cli.tables import print_boards
    from personabench.leaderboard import BoardOptions, boards
    from personabench.results.index import Run
    from personabench.results.summary import to_dict

    if not outcomes:
        return
    if json:
        emit([{**to_dict(outcome.summary), "folder": str(outcome.folder)} for outcome in outcomes])
        return

    merged = [Run(outcome.summary, outcome.folder) for outcome in outcomes]
    print_boards(boards(merged, options=BoardOptions(results=results)), screen())
    echo("run folders:" if len(outcomes) > 1 else "run folder:")
    for outcome in outcomes:
        echo(f"  {outcome.folder}")
