"""`personabench run`: predict, score and print a leaderboard."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from personabench.cli.console import echo, emit, screen
from personabench.cli.execution import conclude, execute
from personabench.cli.execution_options import (
    Cache,
    CachePolicy,
    Concurrency,
    Executor,
    ExecutorOption,
    RayOptions,
    SampleTimeout,
    ShardOption,
    Shards,
)
from personabench.cli.interruption import command_line
from personabench.cli.model_options import (
    Judge,
    JudgeRubric,
    Profiler,
    RunModelArguments,
    Simulator,
    role_backends,
)
from personabench.cli.option_groups import grouped
from personabench.cli.options import (
    Assignments,
    Data,
    DryRun,
    Grid,
    Json,
    Limit,
    MaxCost,
    MaxTokens,
    Methods,
    Metrics,
    Prices,
    Quiet,
    Reading,
    ReadingOption,
    Refusals,
    RefusalsOption,
    ResultsOrUrl,
    RunFile,
    SaveRunFile,
    Seed,
    Seeds,
    Split,
    Temperature,
    TopP,
    Users,
)
from personabench.cli.own_data import (
    Columns,
    HistoryOrTable,
    Kind,
    OwnTasks,
    SaveTask,
    read_data_options,
)
from personabench.cli.parsing import read_sampling, split_names
from personabench.cli.plan_table import print_plan
from personabench.cli.prompt_options import (
    MemoryTokens,
    PromptsFile,
    Wording,
    read_texts,
    read_wording,
)
from personabench.cli.run_command import read_given_options, save_run_file
from personabench.cli.user_choice import UserChoice

if TYPE_CHECKING:
    from personabench.run.options import Options
    from personabench.run.ray_executor import RayExecutor
    from personabench.run.runner import Outcome
    from personabench.run.shards import Shard


@grouped
def run(
    ctx: typer.Context,
    method: Methods,
    model: RunModelArguments,
    simulator: Simulator,
    judge: Judge,
    profiler: Profiler,
    file: RunFile = None,
    judge_rubric: JudgeRubric = None,
    task: OwnTasks = None,
    split: Split = None,
    data: Data = None,
    columns: Columns = None,
    kind: Kind = None,
    save_task: SaveTask = None,
    limit: Limit = None,
    users: Users = None,
    concurrency: Concurrency = None,
    seed: Seed = 0,
    seeds: Seeds = None,
    assignments: Assignments = None,
    grid: Grid = None,
    wording: Wording = None,
    prompts: PromptsFile = None,
    history: HistoryOrTable = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = None,
    reading: ReadingOption = Reading.answer,
    refusals: RefusalsOption = Refusals.reply,
    memory_tokens: MemoryTokens = None,
    sample_timeout: SampleTimeout = None,
    results: ResultsOrUrl = "results",
    shard: ShardOption = None,
    executor: ExecutorOption = Executor.process,
    shards: Shards = None,
    ray_options: RayOptions = None,
    cache: Cache = CachePolicy.use,
    metric: Metrics = None,
    dry_run: DryRun = False,
    prices: Prices = None,
    max_cost: MaxCost = None,
    quiet: Quiet = False,
    save: SaveRunFile = None,
    json: Json = False,
) -> None:
    """Run methods on tasks and print a leaderboard.

    Repeat the command to resume a run: finished samples are kept. Without --data, the task's
    example data is used. Your own tables need no task: --data FILE --map question=COLUMN. Options
    may also stand in a run file, FILE.toml (`personabench init` writes one); typed ones win.
    """
    from personabench.metrics.judges.custom_rubric import read_rubric
    from personabench.models.budget import read_prices
    from personabench.run.options import Options

    _check_names(method, task, metric or [])
    _check_limits(model, prices, max_cost)
    _check_selection(limit, users)
    cluster = open_cluster(executor, shard, shards, ray_options, results)
    part, folder = _find_results(Path(results), shard, cluster)
    source = read_data_options(
        task, data, history or [], columns or [], kind, save_task, Path(results)
    )
    backend_options = model.read_for_run(folder)
    roles = role_backends(
        model.backend,
        backend_options,
        {"simulator": simulator, "judge": judge, "profiler": profiler},
    )
    given = read_given_options(ctx)
    options = Options(
        methods=split_names(method),
        tasks=split_names(source.tasks),
        split=split,
        data=source.data,
        limit=limit,
        users=users.number if users else None,
        longest=users is not None and users.longest,
        backend=model.backend,
        backend_options=backend_options,
        concurrency=concurrency,
        sample_timeout=sample_timeout,
        seed=seed,
        sampling=read_sampling(temperature, top_p, max_tokens, reading, refusals, memory_tokens),
        assignments=assignments or [],
        grid=grid or [],
        wording=read_wording(wording),
        prompts=read_texts(prompts),
        shard=part,
        history=source.history,
        results=folder,
        cache=cache.value,
        metrics=metric or [],
        command=command_line(),
        run_file=given.run_file,
        environment=given.environment,
        rubric=read_rubric(judge_rubric) if judge_rubric else None,
        roles=roles,
        prices=read_prices(prices) if prices else {},
        max_cost=max_cost,
    )

    # Only now: a command that cannot work leaves no file.
    if save:
        save_run_file(save, given.run_file)
        if not quiet:
            echo(f"run file   {save}; repeat it with: personabench run {save}", err=True)
    if dry_run and given.environment:
        echo(given.environment, err=True)
    start = print_plan if dry_run else functools.partial(_run, cluster=cluster, quiet=quiet)
    start(_repeat_for_seeds(options, seeds), json)


def _find_results(
    results: Path, shard: str | None, cluster: RayExecutor | None
) -> tuple[Shard | None, Path]:
    """The shard to run, if there is one, and the folder that this process writes to."""
    from personabench.run.shards import Shard

    part = Shard.read(shard) if shard else None
    if cluster:
        return part, cluster.local_results
    return part, part.results(results) if part else results


def _repeat_for_seeds(options: Options, seeds: str | None) -> list[Options]:
    """The same options for each seed of `--seeds`, or for their own."""
    # All seeds take the users that the first seed draws, so that their runs can be pooled.
    numbers = _read_seeds(options.seed, seeds)
    options = dataclasses.replace(options, draw=numbers[0])
    return [dataclasses.replace(options, seed=number) for number in numbers]


def _check_names(methods: str, tasks: str | None, metrics: Sequence[str]) -> None:
    """Refuse empty lists of methods and tasks, and unknown further metrics."""
    _require_names("--method", methods)
    if tasks is not None:
        _require_names("--task", tasks)
    _require_external(metrics)


def _require_names(option: str, value: str) -> None:
    """Refuse a list of names that is empty.

    Raises:
        UsageError: it is.
    """
    from personabench.errors import UsageError

    if not split_names(value):
        raise UsageError(
            f"{option} '{value}' contains no name; "
            f"run `personabench list {option[2:]}s` to see them"
        )


def _require_external(metrics: Sequence[str]) -> None:
    """Refuse a metric of a task, since these are always computed.

    Raises:
        UsageError: a metric has no prefix.
    """
    from personabench.errors import UsageError
    from personabench.metrics.external import PREFIX

    for metric in metrics:
        if not metric.startswith(PREFIX):
            raise UsageError(
                f"--metric {metric}: write {PREFIX}NAME; the task's own metrics are always computed"
            )


def _check_limits(model: RunModelArguments, prices: Path | None, max_cost: float | None) -> None:
    """Refuse limits that cannot be enforced.

    Raises:
        UsageError: a cost limit without prices, or a timeout of a backend that is no server.
    """
    from personabench.errors import UsageError

    if max_cost is not None and prices is None:
        raise UsageError("--max-cost needs the price of a call; add --prices FILE")

    # A call in this process runs in a thread, and Python cannot stop a thread.
    if model.timeout is not None and model.backend in ("local", "scripted"):
        raise UsageError(f"--timeout applies to server backends only, not to '{model.backend}'")


def _check_selection(limit: int | None, users: UserChoice | None) -> None:
    """Refuse two numbers for one selection.

    Raises:
        UsageError: samples and users are both limited.
    """
    from personabench.errors import UsageError

    if limit is not None and users is not None:
        raise UsageError(
            f"--users {users} cannot be used together with --limit {limit}: both choose whole "
            "users, by their number or by that of their samples"
        )


def _read_seeds(seed: int, seeds: str | None) -> list[int]:
    """Read the seeds of a command from `--seed` and `--seeds`.

    Raises:
        UsageError: both options are given, or `--seeds` is not a list of whole numbers.
    """
    from personabench.errors import UsageError

    if seeds is None:
        return [seed]

    try:
        numbers = [int(text) for text in split_names(seeds)]
    except ValueError:
        numbers = []
    if not numbers:
        raise UsageError(f"--seeds {seeds}: write whole numbers with commas, such as 0,1,2")
    if seed:
        raise UsageError(f"--seeds {seeds}: cannot be used together with --seed")
    return list(dict.fromkeys(numbers))


def _run(
    options_by_seed: Sequence[Options],
    json: bool,
    cluster: RayExecutor | None = None,
    quiet: bool = False,
) -> None:
    """Execute runs and print their leaderboard, warnings and errors; if quiet, no warnings."""
    console = screen(err=True)
    announced: set[str] = set()
    outcomes = execute(options_by_seed, console, announced, cluster, quiet=quiet)

    print_outcomes(outcomes, options_by_seed[0].results, json, cluster, quiet=quiet)
    conclude(outcomes, options_by_seed[0], announced, console, quiet=quiet)


def print_outcomes(
    outcomes: Sequence[Outcome],
    results: Path,
    json: bool,
    cluster: RayExecutor | None = None,
    *,
    quiet: bool = False,
) -> None:
    """Print summaries as JSON, or the leaderboard and, unless quiet, the run folders."""
    from personabench.cli.tables import print_boards
    from personabench.leaderboard import BoardOptions, boards
    from personabench.results.index import Run
    from personabench.results.summary import to_dict

    paths = [str(outcome.folder) for outcome in outcomes]
    if cluster:
        paths = [cluster.locate(outcome.folder) for outcome in outcomes]
    if json:
        summaries = [to_dict(outcome.summary) for outcome in outcomes]
        emit([{**summary, "folder": path} for summary, path in zip(summaries, paths, strict=True)])
        return

    finished = [Run(outcome.summary, outcome.folder) for outcome in outcomes]
    print_boards(boards(finished, options=BoardOptions(results=results)), screen())
    if quiet:
        return
    echo("run folders:" if len(outcomes) > 1 else "run folder:")
    for path in paths:
        echo(f"  {path}")


def open_cluster(
    executor: Executor, shard: str | None, shards: int | None, ray_options: str | None, results: str
) -> RayExecutor | None:
    """Return the Ray cluster of a run, or None to run in this process.

    Raises:
        UsageError: options that exclude each other, or Ray options that are not a JSON object.
    """
    import msgspec

    from personabench.errors import UsageError

    if executor is Executor.process:
        if shards is not None or ray_options is not None:
            option = "--shards" if shards else "--ray-options"
            raise UsageError(f"{option} can only be used with --executor ray")
        if "://" in results:
            raise UsageError(
                f"--results {results}: a URL can only be used with --executor ray; name a folder"
            )
        return None

    if shards is None or shard is not None:
        raise UsageError("--executor ray runs all shards: write --shards N, without --shard")
    try:
        options = msgspec.json.decode(ray_options or "{}", type=dict)
    except msgspec.MsgspecError as error:
        raise UsageError(f"--ray-options {ray_options}: {error}; write a JSON object") from error

    # Imported last, so that a usage error needs no Ray.
    from personabench.run.ray_executor import RayExecutor

    return RayExecutor(shards, results, options)
