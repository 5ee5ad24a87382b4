"""`personabench run`: predict, score, rank."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.options import (
    Adapter,
    AnyResults,
    ApiVersion,
    Backend,
    BaseUrl,
    Batch,
    CachePolicy,
    Data,
    Executor,
    Grid,
    Headers,
    History,
    Json,
    JudgeBackend,
    JudgeHeaders,
    JudgeModel,
    JudgeUrl,
    MaxCost,
    MaxTokens,
    Metrics,
    Model,
    Omit,
    Part,
    Prices,
    RayOptions,
    Rpm,
    Seed,
    Set,
    Shards,
    SimulatorBackend,
    SimulatorHeaders,
    SimulatorModel,
    SimulatorUrl,
    Split,
    Temperature,
    Timeout,
    TopP,
    Tpm,
    VllmArgs,
    Where,
    Window,
    emit,
    names,
    role_backends,
    screen,
    words,
)

if TYPE_CHECKING:
    from personabench.run.ray_executor import OnRay

if TYPE_CHECKING:
    from personabench.run.options import Options
    from personabench.run.ray_executor import OnRay
    from personabench.run.runner import ResolvedRun


_SECRET = ("--header", "--simulator-header", "--judge-header")


def run(
    method: Annotated[
        str, typer.Option("--method", "-m", help="Method or file.py[:Class]; several with commas.")
    ],
    task: Annotated[
        str, typer.Option("--task", "-t", help="Task or file.py[:Class]; several with commas.")
    ],
    split: Split = None,
    data: Data = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            help="Samples, rounded up to whole users; more goes on from less.",
        ),
    ] = None,
    backend: Backend = "local",
    model: Model = None,
    base_url: BaseUrl = None,
    window: Window = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency", "-j", min=1, help="Calls in flight; else the backend's own number."
        ),
    ] = None,
    seed: Seed = 0,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds", help="Several seeds with commas, such as 0,1,2: a run for each, pooled."
        ),
    ] = None,
    assignments: Set = None,
    grid: Grid = None,
    history: History = "own",
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = None,
    vllm_args: VllmArgs = None,
    start_timeout: Annotated[
        float,
        typer.Option("--start-timeout", min=1.0, help="Seconds that server may take to come up."),
    ] = 1800.0,
    adapter: Adapter = None,
    embedder_url: Annotated[
        str | None,
        typer.Option(
            "--embedder-base-url", help="Where an embedding server lives, if not at --base-url."
        ),
    ] = None,
    timeout: Timeout = None,
    header: Headers = None,
    api_version: ApiVersion = None,
    omit: Omit = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    batch: Batch = False,
    simulator_backend: SimulatorBackend = None,
    simulator_model: SimulatorModel = None,
    simulator_base_url: SimulatorUrl = None,
    simulator_header: SimulatorHeaders = None,
    judge_backend: JudgeBackend = None,
    judge_model: JudgeModel = None,
    judge_base_url: JudgeUrl = None,
    judge_header: JudgeHeaders = None,
    results: AnyResults = "results",
    shard: Part = None,
    executor: Where = Executor.process,
    shards: Shards = None,
    ray_options: RayOptions = None,
    cache: Annotated[
        CachePolicy,
        typer.Option("--cache", help="Use stored responses, renew them, or call never."),
    ] = CachePolicy.use,
    metric: Metrics = None,
    plan: Annotated[
        bool, typer.Option("--dry-run", help="Only print what the run would cost.")
    ] = False,
    prices: Prices = None,
    max_cost: MaxCost = None,
    json: Json = False,
) -> None:
    """Run methods on tasks and print a leaderboard.

    The same command again resumes: only what is owed is run. Without --data the task's bundled sample is used.
    """
    from personabench.errors import UsageError
    from personabench.metrics.external import PREFIX
    from personabench.models.backends import read_headers
    from personabench.models.backends.base import BackendOptions
    from personabench.models.budget import read_prices
    from personabench.run.options import Options
    from personabench.run.shards import Shard
    from personabench.types import Sampling

    for option, value in (("--method", method), ("--task", task)):
        if not names(value):
            raise UsageError(
                f"{option} '{value}' names nothing; `personabench list {option[2:]}s` says what there is"
            )
    for name in metric or []:
        if not name.startswith(PREFIX):
            raise UsageError(
                f"--metric {name}: write {PREFIX}NAME; a task's own metrics are always computed"
            )
    if max_cost is not None and prices is None:
        raise UsageError("--max-cost needs --prices FILE to know what a call costs")
    if timeout is not None and backend in ("local", "scripted"):
        raise UsageError(
            f"--timeout: a call of --backend {backend} cannot be broken off; it is for servers"
        )
    cluster = spread(executor, shard, shards, ray_options, results)
    part = Shard.read(shard) if shard else None
    home = cluster.here if cluster else part.results(Path(results)) if part else Path(results)
    urls = names(base_url or "")
    under = BackendOptions(
        model,
        urls[0] if urls else None,
        window,
        timeout or BackendOptions.timeout,
        read_headers(header or []),
        replicas=tuple(urls[1:]),
        vllm_args=words(vllm_args),
        start_timeout=start_timeout,
        adapter=adapter,
        embedder_url=embedder_url,
        rpm=rpm,
        tpm=tpm,
        api_version=api_version,
        omit=tuple(names(omit or "")),
        batch=home / "batches" if batch else None,
    )
    options = Options(
        methods=names(method),
        tasks=names(task),
        split=split,
        data=data,
        limit=limit,
        backend=backend,
        backend_options=under,
        concurrency=concurrency,
        seed=seed,
        sampling=Sampling(temperature, top_p, max_tokens),
        assignments=assignments or [],
        grid=grid or [],
        shard=part,
        history=history,
        results=home,
        cache=cache.value,
        metrics=metric or [],
        roles=role_backends(
            backend,
            under,
            {"simulator": simulator_header, "judge": judge_header},
            simulator=(simulator_backend, simulator_model, simulator_base_url),
            judge=(judge_backend, judge_model, judge_base_url),
        ),
        prices=read_prices(prices) if prices else {},
        max_cost=max_cost,
    )
    several = [
        dataclasses.replace(options, seed=each, draw=drawn) for drawn, each in _seeds(seed, seeds)
    ]
    if plan:
        _plan(several, json)
    else:
        _run(several, json, cluster)


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
        why = (
            "not together with --seed"
            if found
            else "write whole numbers with commas, such as 0,1,2"
        )
        raise UsageError(f"--seeds {seeds}: {why}")
    return [(found[0], each) for each in found]


def _run(several: Sequence[Options], json: bool, cluster: OnRay | None = None) -> None:
    import asyncio
    import functools

    from rich.console import Console

    from personabench.cli.display import watching
    from personabench.cli.tables import print_boards
    from personabench.leaderboard import BoardOptions, boards
    from personabench.results.index import Run
    from personabench.results.notices import notices
    from personabench.results.summary import to_dict
    from personabench.run import runner

    console = Console(stderr=True, highlight=False)
    options = several[0]

    announced: set[str] = set()

    def announce(jobs: Sequence[ResolvedRun]) -> None:
        if len(several) > 1:
            console.print(f"seed   {jobs[0].spec.seed}", markup=False)
        if jobs[0].spec.seed != options.seed:
            return
        for source in dict.fromkeys(job.dataset.source for job in jobs):
            console.print(f"data   {source}", markup=False)
        if options.shard:
            console.print(f"shard  {options.shard}; `personabench merge` joins them", markup=False)
        console.print(f"model  {jobs[0].spec.model['name']}", markup=False)
        for warning in dict.fromkeys(
            warning for job in jobs for warning in (*job.dataset.warnings, *job.role_warnings)
        ):
            console.print(f"warning: {warning}", style="yellow", markup=False)
            announced.add(warning)
        for job in jobs:
            if options.limit and len(job.positions) > options.limit:
                people = len({job.dataset.index()[position][1] for position in job.positions})
                users = f"{people} user{'s' * (people > 1)}"
                console.print(
                    f"limit  {options.limit} rounded up to whole users: n={len(job.positions)}, {users}"
                )
                break

    if cluster:
        outcomes = cluster.run(several, functools.partial(console.print, markup=False))
    else:
        try:
            outcomes = asyncio.run(runner.run(*several, watch=watching(console), announce=announce))
        except KeyboardInterrupt:
            console.print(
                "interrupted; what was finished is kept. Go on with the same command:",
                style="yellow",
            )
            console.print(f"  {command_line()}", markup=False, soft_wrap=True)
            sys.exit(130)
    places = [
        cluster.place(outcome.folder) if cluster else str(outcome.folder) for outcome in outcomes
    ]
    summaries = [outcome.summary for outcome in outcomes]
    if json:
        emit(
            [
                {**to_dict(summary), "folder": place}
                for summary, place in zip(summaries, places, strict=True)
            ]
        )
    else:
        finished = [Run(outcome.summary, outcome.folder) for outcome in outcomes]
        print_boards(boards(finished, options=BoardOptions(results=options.results)), screen())
        typer.echo("run folders:" if len(outcomes) > 1 else "run folder:")
        for place in places:
            typer.echo(f"  {place}")
    for warning in dict.fromkeys(warning for summary in summaries for warning in summary.warnings):
        if warning not in announced:
            console.print(f"warning: {warning}", style="yellow", markup=False)
    for notice in notices(summaries):
        console.print(f"warning: {notice}", style="yellow", markup=False, soft_wrap=True)
    if options.prices:
        console.print(
            f"spent  {sum(summary.spent or 0.0 for summary in summaries):.6g}", markup=False
        )
    if any(outcome.interrupted for outcome in outcomes):
        owed, unjudged = summaries[-1].owed, summaries[-1].counters.get("unjudged", 0)
        left = "not everything was asked anew"
        if owed or unjudged:
            left = f"{owed} samples are owed" if owed else f"{unjudged} answers are not judged"
        console.print(f"interrupted; {left}. Go on with the same command:", style="yellow")
        console.print(f"  {command_line()}", markup=False, soft_wrap=True)
        sys.exit(130)
    owed = sum(summary.owed for summary in summaries)
    if owed:
        failed = sum(summary.counters["request_errors"] for summary in summaries)
        more = f" and {owed - failed} more are owed" if owed > failed else ""
        first = _first_error([outcome.folder for outcome in outcomes if outcome.summary.owed])
        console.print(
            f"error: {failed} samples failed{more}; the first: {first}",
            markup=False,
            soft_wrap=True,
        )
        console.print("Everything else is kept. Repeat the command to try them again.")
    for trouble in dict.fromkeys(outcome.trouble for outcome in outcomes if outcome.trouble):
        console.print(f"error: {trouble}", markup=False, soft_wrap=True)
    if owed or any(outcome.trouble for outcome in outcomes):
        sys.exit(1)


def command_line() -> str:
    """The command as it was typed, without the values of headers."""
    import re
    import shlex

    shown, hidden = ["personabench"], False
    for word in sys.argv[1:]:
        option, equals, _ = word.partition("=")
        secret = hidden or (equals and option in _SECRET)
        shown.append(re.sub(r":.*", ": ***", word, flags=re.S) if secret else word)
        hidden = word in _SECRET
    return shlex.join(shown)


def _first_error(folders: Sequence[Path]) -> str:
    from personabench.results.run_folder import RunFolder

    for folder in folders:
        latest = {line.sample_id: line.error for line in RunFolder(folder).iter_predictions()}
        for sample_id, error in latest.items():
            if error:
                return f"{sample_id}: {error}"
    return "see predictions.jsonl"


def _plan(several: Sequence[Options], json: bool) -> None:
    import asyncio

    from rich import box
    from rich.table import Table

    from personabench.run.plan import plan

    prices = several[0].prices
    forecasts = [(each.seed, forecast) for each in several for forecast in asyncio.run(plan(each))]
    rows = [{**forecast.as_dict(prices), "seed": seed} for seed, forecast in forecasts]
    if json:
        emit(rows)
        return
    console = screen()
    grid = Table(
        title="Plan: nothing has been called",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    for column in (
        "task",
        "method",
        "samples",
        "calls",
        "stored",
        "to pay",
        "tokens in",
        "tokens out",
        "price",
    ):
        grid.add_column(
            column, justify="left" if column in ("task", "method") else "right", overflow="fold"
        )
    for row in rows:
        price = "–" if row["price"] is None else f"{row['price']:.4f}"
        counts = [
            f"{row[name]:,}"
            for name in ("owed", "calls", "cached", "to_pay", "input_tokens", "output_tokens")
        ]
        for at, name in ((1, "calls"), (3, "to_pay")):
            if row[f"{name}_at_most"] > row[name]:
                counts[at] += f"–{row[f'{name}_at_most']:,}"
        told = [f"{name}={value}" for name, value in row["changed"].items()]
        told += [f"seed={row['seed']}"] if len(several) > 1 else []
        method = f"{row['method']} ({', '.join(told)})" if told else row["method"]
        grid.add_row(row["task"], method, *counts, price)
    console.print(grid)
    console.print(
        " Input tokens are estimated; output tokens are the most that can be spent.", style="dim"
    )
    if any(row["calls_at_most"] > row["calls"] for row in rows):
        console.print(
            " Where the model replies with lists, calls are given from the shortest lists to the longest; tokens and "
            "price are those of the shortest.",
            style="dim",
        )
    if unpriced := {row["model"] for row in rows if prices and row["price"] is None}:
        console.print(
            f" There is no price for {', '.join(sorted(unpriced))}.", markup=False, style="dim"
        )


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
            raise UsageError(
                f"--{'shards' if shards else 'ray-options'} only goes with --executor ray"
            )
        if "://" in results:
            raise UsageError(
                f"--results {results}: a URL only goes with --executor ray; name a folder"
            )
        return None
    if shards is None or shard is not None:
        raise UsageError("--executor ray runs all shards: write --shards N, without --shard")
    try:
        options = msgspec.json.decode(ray_options or "{}", type=dict)
    except msgspec.MsgspecError as error:
        raise UsageError(f"--ray-options {ray_options}: {error}; write a JSON object") from error
    from personabench.run.ray_executor import OnRay

    return OnRay(shards, results, options)
