"""`personabench run`: predict, score and print a leaderboard."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from personabench.cli.console import screen
from personabench.cli.options import (
    Adapter,
    ApiVersion,
    Assignments,
    Backend,
    BaseUrl,
    Batch,
    Cache,
    CachePolicy,
    Concurrency,
    ContextLength,
    Data,
    DryRun,
    EmbedderUrl,
    Executor,
    ExecutorOption,
    Extra,
    Grid,
    Headers,
    Json,
    Limit,
    MaxCost,
    MaxTokens,
    Methods,
    Metrics,
    Model,
    OmitParams,
    Prices,
    RayOptions,
    Reasoning,
    RequestsPerMinute,
    ResultsOrUrl,
    SampleTimeout,
    Seed,
    Seeds,
    ShardOption,
    Shards,
    Split,
    StartTimeout,
    Temperature,
    Timeout,
    TokensPerMinute,
    TopP,
    VllmArgs,
)
from personabench.cli.own_data import (
    Columns,
    HistoryOrTable,
    Kind,
    OwnTasks,
    SaveTask,
    read_data_options,
)
from personabench.cli.parsing import (
    RoleArguments,
    read_extra,
    read_reasoning,
    role_backends,
    split_names,
    split_vllm_args,
)
from personabench.cli.plan_table import print_plan
from personabench.cli.prompt_options import PromptsFile, Wording, read_texts, read_wording
from personabench.cli.role_options import (
    JudgeBackend,
    JudgeExtra,
    JudgeHeaders,
    JudgeModel,
    JudgeOmit,
    JudgeReasoning,
    JudgeRubric,
    JudgeTemperature,
    JudgeUrl,
    SimulatorBackend,
    SimulatorExtra,
    SimulatorHeaders,
    SimulatorModel,
    SimulatorOmit,
    SimulatorReasoning,
    SimulatorTemperature,
    SimulatorUrl,
)
from personabench.cli.run_output import (
    command_line,
    create_announcer,
    describe_interrupt,
    describe_interrupted_state,
    print_failed_samples,
    print_interrupted,
    print_notices,
    print_outcomes,
)

if TYPE_CHECKING:
    from rich.console import Console

    from personabench.run.options import Options
    from personabench.run.ray_executor import RayExecutor
    from personabench.run.runner import Outcome
    from personabench.run.shards import Shard


def run(
    method: Methods,
    task: OwnTasks = None,
    split: Split = None,
    data: Data = None,
    columns: Columns = None,
    kind: Kind = None,
    save_task: SaveTask = None,
    limit: Limit = None,
    backend: Backend = "local",
    model: Model = None,
    base_url: BaseUrl = None,
    window: ContextLength = None,
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
    vllm_args: VllmArgs = None,
    start_timeout: StartTimeout = 1800.0,
    adapter: Adapter = None,
    embedder_url: EmbedderUrl = None,
    timeout: Timeout = None,
    sample_timeout: SampleTimeout = None,
    header: Headers = None,
    api_version: ApiVersion = None,
    omit: OmitParams = None,
    extra: Extra = None,
    reasoning: Reasoning = None,
    rpm: RequestsPerMinute = None,
    tpm: TokensPerMinute = None,
    batch: Batch = False,
    simulator_backend: SimulatorBackend = None,
    simulator_model: SimulatorModel = None,
    simulator_base_url: SimulatorUrl = None,
    simulator_header: SimulatorHeaders = None,
    simulator_temperature: SimulatorTemperature = None,
    simulator_omit: SimulatorOmit = None,
    simulator_extra: SimulatorExtra = None,
    simulator_reasoning: SimulatorReasoning = None,
    judge_backend: JudgeBackend = None,
    judge_model: JudgeModel = None,
    judge_base_url: JudgeUrl = None,
    judge_rubric: JudgeRubric = None,
    judge_header: JudgeHeaders = None,
    judge_temperature: JudgeTemperature = None,
    judge_omit: JudgeOmit = None,
    judge_extra: JudgeExtra = None,
    judge_reasoning: JudgeReasoning = None,
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
    json: Json = False,
) -> None:
    """Run methods on tasks and print a leaderboard.

    Repeat the command to resume a run: finished samples are kept. Without --data, the task's
    example data is used. Your own tables need no task: --data FILE --map question=COLUMN.
    """
    from personabench.metrics.judges.custom_rubric import read_rubric
    from personabench.models.backends import read_headers
    from personabench.models.backends.base import BackendOptions
    from personabench.models.budget import read_prices
    from personabench.run.options import Options
    from personabench.types import Sampling

    _check_names(method, task, metric or [])
    _check_limits(backend, timeout, prices, max_cost)
    cluster = open_cluster(executor, shard, shards, ray_options, results)
    part, folder = _find_results(Path(results), shard, cluster)
    source = read_data_options(
        task, data, history or [], columns or [], kind, save_task, Path(results)
    )
    urls = split_names(base_url or "")
    backend_options = BackendOptions(
        model,
        urls[0] if urls else None,
        window,
        timeout or BackendOptions.timeout,
        read_headers(header or []),
        replicas=tuple(urls[1:]),
        vllm_args=split_vllm_args(vllm_args),
        start_timeout=start_timeout,
        adapter=adapter,
        embedder_url=embedder_url,
        rpm=rpm,
        tpm=tpm,
        api_version=api_version,
        omit=tuple(split_names(omit or "")),
        extra=read_extra(extra or []),
        reasoning=read_reasoning(reasoning),
        batch=folder / "batches" if batch else None,
    )
    roles = role_backends(
        backend,
        backend_options,
        simulator=RoleArguments(
            simulator_backend,
            simulator_model,
            simulator_base_url,
            simulator_header,
            simulator_temperature,
            simulator_omit,
            simulator_extra,
            simulator_reasoning,
        ),
        judge=RoleArguments(
            judge_backend,
            judge_model,
            judge_base_url,
            judge_header,
            judge_temperature,
            judge_omit,
            judge_extra,
            judge_reasoning,
        ),
    )
    options = Options(
        methods=split_names(method),
        tasks=split_names(source.tasks),
        split=split,
        data=source.data,
        limit=limit,
        backend=backend,
        backend_options=backend_options,
        concurrency=concurrency,
        sample_timeout=sample_timeout,
        seed=seed,
        sampling=Sampling(temperature, top_p, max_tokens),
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
        rubric=read_rubric(judge_rubric) if judge_rubric else None,
        roles=roles,
        prices=read_prices(prices) if prices else {},
        max_cost=max_cost,
    )

    start = print_plan if dry_run else functools.partial(_run, cluster=cluster)
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


def _check_limits(
    backend: str, timeout: float | None, prices: Path | None, max_cost: float | None
) -> None:
    """Refuse limits that cannot be enforced.

    Raises:
        UsageError: a cost limit without prices, or a timeout of a backend that is no server.
    """
    from personabench.errors import UsageError

    if max_cost is not None and prices is None:
        raise UsageError("--max-cost needs the price of a call; add --prices FILE")

    # A call in this process runs in a thread, and Python cannot stop a thread.
    if timeout is not None and backend in ("local", "scripted"):
        raise UsageError(f"--timeout applies to server backends only, not to '{backend}'")


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
    options_by_seed: Sequence[Options], json: bool, cluster: RayExecutor | None = None
) -> None:
    """Execute runs and print their leaderboard, warnings and errors."""
    console = screen(err=True)
    announced: set[str] = set()
    outcomes = _execute(options_by_seed, console, announced, cluster)

    print_outcomes(outcomes, options_by_seed[0].results, json, cluster)
    print_notices(outcomes, announced, console)
    if options_by_seed[0].prices:
        spent = sum(outcome.summary.spent or 0.0 for outcome in outcomes)
        console.print(f"spent  {spent:.6g}", markup=False)
    if any(outcome.interrupted for outcome in outcomes):
        print_interrupted(console, describe_interrupted_state(outcomes[-1].summary))
        sys.exit(130)

    failed = print_failed_samples(outcomes, console)
    missing_values = dict.fromkeys(outcome.missing_values for outcome in outcomes)
    for error in filter(None, missing_values):
        console.print(f"error: {error}", markup=False, soft_wrap=True)
    if failed or any(missing_values):
        sys.exit(1)


def _execute(
    options_by_seed: Sequence[Options],
    console: Console,
    announced: set[str],
    cluster: RayExecutor | None,
) -> list[Outcome]:
    """Execute runs in this process or on a cluster; an interrupt ends the command.

    Args:
        announced: receives the warnings that were printed.
    """

    from personabench.cli.display import watching
    from personabench.run import runner
    from personabench.run.interrupts import run_command

    if cluster:
        return cluster.run(options_by_seed, functools.partial(console.print, markup=False))

    announce = create_announcer(options_by_seed, console, announced)
    try:
        return run_command(
            runner.run(
                *options_by_seed,
                watch=watching(console),
                announce=announce,
                tell=functools.partial(console.print, markup=False, soft_wrap=True),
            ),
            farewell=describe_interrupt("finished samples are kept"),
        )
    except KeyboardInterrupt:
        print_interrupted(console, "finished samples are kept")
        sys.exit(130)


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
