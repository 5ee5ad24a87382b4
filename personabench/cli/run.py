"""`personabench run`: predict, score, rank."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.options import (
    RESULTS,
    Backend,
    BaseUrl,
    CachePolicy,
    Data,
    History,
    Json,
    MaxTokens,
    Model,
    Results,
    Seed,
    Set,
    Split,
    Temperature,
    TopP,
    Window,
    emit,
    names,
    screen,
)

if TYPE_CHECKING:
    from personabench.runner import Job, Options


def run(
    method: Annotated[str, typer.Option("--method", "-m", help="Method or file.py[:Class]; several with commas.")],
    task: Annotated[str, typer.Option("--task", "-t", help="Task or file.py[:Class]; several with commas.")],
    split: Split = None,
    data: Data = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help="Samples, rounded up to whole users; more goes on from less."),
    ] = None,
    backend: Backend = "local",
    model: Model = None,
    base_url: BaseUrl = None,
    window: Window = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-j", min=1, help="Calls in flight; else the backend's own number.")
    ] = None,
    seed: Seed = 0,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Several seeds with commas, such as 0,1,2: a run for each, pooled.")
    ] = None,
    assignments: Set = None,
    history: History = "own",
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = None,
    vllm_args: Annotated[
        str | None, typer.Option("--vllm-args", help="Arguments for the server that --backend vllm starts, in quotes.")
    ] = None,
    start_timeout: Annotated[
        float, typer.Option("--start-timeout", min=1.0, help="Seconds that server may take to come up.")
    ] = 1800.0,
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds one call may take.")] = 600.0,
    results: Results = RESULTS,
    cache: Annotated[
        CachePolicy, typer.Option("--cache", help="Use stored responses, renew them, or call never.")
    ] = CachePolicy.use,
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

    The same command again resumes: only what is owed is run. Without --data the task's bundled sample is used.
    """
    import shlex

    from personabench.backends import BackendOptions
    from personabench.errors import UsageError
    from personabench.metrics.external import PREFIX
    from personabench.runner import Options
    from personabench.spec import Sampling

    for option, value in (("--method", method), ("--task", task)):
        if not names(value):
            raise UsageError(f"{option} '{value}' names nothing; `personabench list {option[2:]}s` says what there is")
    for name in metric or []:
        if not name.startswith(PREFIX):
            raise UsageError(f"--metric {name}: write {PREFIX}NAME; a task's own metrics are always computed")
    if prices is not None and not plan:
        raise UsageError("--prices only goes with --plan")
    urls = names(base_url or "")
    try:
        arguments = tuple(shlex.split(vllm_args or ""))
    except ValueError as error:
        raise UsageError(f"--vllm-args {vllm_args}: {error}") from error
    options = Options(
        methods=names(method),
        tasks=names(task),
        split=split,
        data=data,
        limit=limit,
        backend=backend,
        backend_options=BackendOptions(
            model,
            urls[0] if urls else None,
            window,
            timeout,
            replicas=tuple(urls[1:]),
            vllm_args=arguments,
            start_timeout=start_timeout,
        ),
        concurrency=concurrency,
        seed=seed,
        sampling=Sampling(temperature, top_p, max_tokens),
        assignments=assignments or [],
        history=history,
        results=results,
        cache=cache.value,
        metrics=metric or [],
    )
    several = [dataclasses.replace(options, seed=each, draw=drawn) for drawn, each in _seeds(seed, seeds)]
    if plan:
        _plan(several, prices, json)
    else:
        _run(several, json)


def _seeds(seed: int, seeds: str | None) -> list[tuple[int, int]]:
    """Each seed of a command after the one that draws its users: the first of all."""
    from personabench.errors import UsageError

    if seeds is None:
        return [(seed, seed)]
    try:
        found = list(dict.fromkeys(int(each) for each in names(seeds)))
    except ValueError:
        found = []
    if not found or seed:
        why = "not together with --seed" if found else "write whole numbers with commas, such as 0,1,2"
        raise UsageError(f"--seeds {seeds}: {why}")
    return [(found[0], each) for each in found]


def _run(several: Sequence[Options], json: bool) -> None:
    import asyncio

    import msgspec
    from rich.console import Console

    from personabench import runner
    from personabench.cli.display import watching
    from personabench.cli.tables import print_boards
    from personabench.leaderboard import Asked, boards

    console = Console(stderr=True, highlight=False)
    options = several[0]

    def announce(jobs: Sequence[Job]) -> None:
        if len(several) > 1:
            console.print(f"seed   {jobs[0].spec.seed}", markup=False)
        if jobs[0].spec.seed != options.seed:
            return
        for source in dict.fromkeys(job.dataset.source for job in jobs):
            console.print(f"data   {source}", markup=False)
        console.print(f"model  {jobs[0].spec.model['name']}", markup=False)
        for warning in dict.fromkeys(warning for job in jobs for warning in job.dataset.warnings):
            console.print(f"warning: {warning}", style="yellow", markup=False)
        for job in jobs:
            if options.limit and len(job.positions) > options.limit:
                people = len({job.dataset.index()[position][1] for position in job.positions})
                users = f"{people} user{'s' * (people > 1)}"
                console.print(f"limit  {options.limit} rounded up to whole users: n={len(job.positions)}, {users}")
                break

    outcomes: list[runner.Outcome] = []
    for each in several:
        outcomes += asyncio.run(runner.run(each, watch=watching(console), announce=announce))
        if outcomes[-1].interrupted:
            break
    summaries = [{**msgspec.to_builtins(outcome.summary), "folder": str(outcome.folder)} for outcome in outcomes]
    if json:
        emit(summaries)
    else:
        print_boards(boards(summaries, asked=Asked(results=options.results)), screen())
        typer.echo("run folders:" if len(outcomes) > 1 else "run folder:")
        for outcome in outcomes:
            typer.echo(f"  {outcome.folder}")
    if any(outcome.interrupted for outcome in outcomes):
        owed = summaries[-1]["owed"]
        console.print(f"interrupted; {owed} samples are owed. Go on with the same command:", style="yellow")
        console.print(f"  {command_line()}", markup=False, soft_wrap=True)
        sys.exit(130)
    failed = sum(summary["owed"] for summary in summaries)
    if failed:
        first = _first_error([outcome.folder for outcome in outcomes if outcome.summary["owed"]])
        console.print(f"error: {failed} samples failed; the first: {first}", markup=False, soft_wrap=True)
        console.print("Everything else is kept. Repeat the command to try them again.")
        sys.exit(1)


def command_line() -> str:
    """The command as it was typed."""
    import shlex

    return shlex.join(["personabench", *sys.argv[1:]])


def _first_error(folders: Sequence[Path]) -> str:
    from personabench.runfolder import RunFolder

    for folder in folders:
        latest = {line.sample_id: line.error for line in RunFolder(folder).iter_predictions()}
        for sample_id, error in latest.items():
            if error:
                return f"{sample_id}: {error}"
    return "see predictions.jsonl"


def _plan(several: Sequence[Options], prices: Path | None, json: bool) -> None:
    import asyncio

    from rich import box
    from rich.table import Table

    from personabench.plan import plan, read_prices

    table = read_prices(prices) if prices else {}
    forecasts = [(each.seed, forecast) for each in several for forecast in asyncio.run(plan(each))]
    rows = [{**forecast.as_dict(table), "seed": seed} for seed, forecast in forecasts]
    if json:
        emit(rows)
        return
    console = screen()
    grid = Table(title="Plan: nothing has been called", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for column in ("task", "method", "samples", "calls", "stored", "to pay", "tokens in", "tokens out", "price"):
        grid.add_column(column, justify="left" if column in ("task", "method") else "right", overflow="fold")
    for row in rows:
        price = "–" if row["price"] is None else f"{row['price']:.4f}"
        counts = (f"{row[name]:,}" for name in ("owed", "calls", "cached", "to_pay", "input_tokens", "output_tokens"))
        method = f"{row['method']} (seed={row['seed']})" if len(several) > 1 else row["method"]
        grid.add_row(row["task"], method, *counts, price)
    console.print(grid)
    console.print(" Input tokens are estimated; output tokens are the most that can be spent.", style="dim")
    if unpriced := {row["model"] for row in rows if prices and row["price"] is None}:
        console.print(f" {prices} has no price for {', '.join(sorted(unpriced))}.", markup=False, style="dim")
