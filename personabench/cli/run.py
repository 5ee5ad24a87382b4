"""`personabench run`: predict, score, rank."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.options import RESULTS, CachePolicy, Data, Json, Results, Set, Split, emit, names

if TYPE_CHECKING:
    from personabench.runner import Job, Options


def run(
    method: Annotated[str, typer.Option("--method", "-m", help="Method or file.py[:Class]; several with commas.")],
    task: Annotated[str, typer.Option("--task", "-t", help="Task or file.py[:Class]; several with commas.")],
    split: Split = None,
    data: Data = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", help="Samples to run, rounded up to whole users; a larger limit goes on."),
    ] = None,
    backend: Annotated[str, typer.Option("--backend", "-b", help="local, openai or scripted.")] = "local",
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model name; for local a .gguf file or a hub repository.", show_default=False),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="An OpenAI-compatible server, such as http://localhost:8000/v1.")
    ] = None,
    window: Annotated[
        int | None, typer.Option("--window", help="The model's context window in tokens, where it cannot be asked.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-j", help="Calls in flight; each backend has its own default.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all randomness.")] = 0,
    assignments: Set = None,
    history: Annotated[
        str, typer.Option("--history", help="Control: own, none, shuffled (another user's) or size=N.")
    ] = "own",
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="Sampling temperature.")] = 0.0,
    top_p: Annotated[float, typer.Option("--top-p", min=0.0, max=1.0, help="Nucleus sampling.")] = 1.0,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Allowance of an answer; the task's own by default.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds one call may take.")] = 600.0,
    results: Results = RESULTS,
    cache: Annotated[CachePolicy, typer.Option("--cache", help="Stored responses.")] = CachePolicy.use,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="A further metric, evaluate:NAME; repeatable.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only print what the run would cost.")] = False,
    prices: Annotated[
        Path | None,
        typer.Option("--prices", help='With --plan: JSON {"MODEL": {"input": .., "output": ..}}, per million tokens.'),
    ] = None,
    json: Json = False,
) -> None:
    """Run methods on tasks and print a leaderboard.

    The same command again resumes: it does only what is owed.  Without --data the bundled sample of the task is used.
    """
    from personabench.backends import BackendOptions
    from personabench.errors import UsageError
    from personabench.runner import Options
    from personabench.spec import Sampling

    if concurrency is not None and concurrency < 1:
        raise UsageError(f"--concurrency {concurrency}: at least 1")
    options = Options(
        methods=names(method),
        tasks=names(task),
        split=split,
        data=data,
        limit=limit,
        backend=backend,
        backend_options=BackendOptions(model, base_url, window, timeout),
        concurrency=concurrency,
        seed=seed,
        sampling=Sampling(temperature, top_p, max_tokens),
        assignments=assignments or [],
        history=history,
        results=results,
        cache=cache.value,
        metrics=metric or [],
    )
    if plan:
        _plan(options, prices, json)
    else:
        _run(options, json)


def _run(options: Options, json: bool) -> None:
    from rich.console import Console

    from personabench import runner
    from personabench.cli.board import print_boards
    from personabench.cli.display import watching
    from personabench.leaderboard import boards

    console = Console(stderr=True, highlight=False)

    def announce(jobs: Sequence[Job]) -> None:
        for source in dict.fromkeys(job.dataset.source for job in jobs):
            console.print(f"data   {source}", markup=False)
        console.print(f"model  {jobs[0].spec.model['name']}", markup=False)
        for warning in dict.fromkeys(warning for job in jobs for warning in job.dataset.warnings):
            console.print(f"warning: {warning}", style="yellow", markup=False)
        for job in jobs:
            if options.limit and len(job.positions) > options.limit:
                users = len({job.dataset.index()[position][1] for position in job.positions})
                console.print(
                    f"limit  {options.limit} rounded up to whole users: n={len(job.positions)}, {users} users"
                )
                break

    outcomes = asyncio.run(runner.run(options, watch=watching(console), announce=announce))
    summaries = [dict(outcome.summary, folder=str(outcome.folder)) for outcome in outcomes]
    if json:
        emit(summaries)
    else:
        print_boards(boards(summaries), Console(highlight=False))
        for outcome in outcomes:
            typer.echo(f"run folder: {outcome.folder}")
    if any(outcome.interrupted for outcome in outcomes):
        owed = summaries[-1]["owed"]
        console.print(f"interrupted; {owed} samples are owed. Go on with the same command:", style="yellow")
        console.print(f"  {command_line()}", markup=False, soft_wrap=True)
        sys.exit(130)
    failed = sum(summary["owed"] for summary in summaries)
    if failed:
        console.print(f"error: {failed} samples failed; the first: {_first_error(outcomes[0].folder)}", markup=False)
        console.print("Everything else is kept. Repeat the command to try them again.")
        sys.exit(1)


def command_line() -> str:
    """The command as it was typed."""
    import shlex

    return shlex.join(["personabench", *sys.argv[1:]])


def _first_error(folder: Path) -> str:
    from personabench.runfolder import RunFolder

    for line in RunFolder(folder).iter_predictions():
        if line.error:
            return f"{line.sample_id}: {line.error}"
    return "see predictions.jsonl"


def _plan(options: Options, prices: Path | None, json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from personabench.plan import plan, read_prices

    table = read_prices(prices) if prices else {}
    forecasts = asyncio.run(plan(options))
    if json:
        emit([forecast.as_dict(table) for forecast in forecasts])
        return
    console = Console(highlight=False)
    grid = Table(title="Plan: nothing has been called", title_justify="left")
    for column in ("task", "method", "samples owed", "calls", "cached", "to pay", "tokens in", "tokens out ≤", "price"):
        grid.add_column(column, justify="left" if column in ("task", "method") else "right")
    for forecast in forecasts:
        row = forecast.as_dict(table)
        price = "–" if row["price"] is None else f"{row['price']:.2f}"
        grid.add_row(
            str(row["task"]),
            str(row["method"]),
            *(f"{row[name]:,}" for name in ("owed", "calls", "cached", "to_pay", "input_tokens", "output_tokens")),
            price,
        )
    console.print(grid)
