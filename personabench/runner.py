"""From names to finished runs: everything between the command line and the engine.

Resolves methods, tasks, data and model into one `RunSpec` each, opens the folder that the spec names, runs what is
owed, and scores.  The model is loaded only when something is owed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from personabench import backends, params, registry
from personabench.backends import Backend, BackendOptions
from personabench.cache import Cache, Policy
from personabench.client import Client
from personabench.compatibility import Fit, verdict
from personabench.controls import controlled
from personabench.engine import Engine, check_requirements, select
from personabench.errors import PersonabenchError, RunError, UsageError
from personabench.method import Method
from personabench.metrics.external import external
from personabench.retrieval.dense import Embedders
from personabench.runfolder import RunFolder
from personabench.scoring import score_run
from personabench.spec import RunSpec, Sampling
from personabench.task import Dataset, Task

_log = logging.getLogger("personabench")


@dataclasses.dataclass(frozen=True)
class Options:
    """What `personabench run` was asked for; names as on the command line.

    Attributes:
        methods, tasks: names or paths.
        split: "user/dev", "dev", or None for the task's default.
        data: a folder with the benchmark's files; None for the bundled sample.
        limit: samples at least, whole users at a time; None for all.
        draw: the seed that draws the limit's users, where it is not `seed`: several seeds of one comparison share it.
        assignments: `[owner.]key=value` parameters; owner `task` addresses the task.
        history: the control applied to histories.
        concurrency: samples under way and calls in flight; None for the backend's own number.
    """

    methods: Sequence[str]
    tasks: Sequence[str]
    split: str | None = None
    data: Path | None = None
    limit: int | None = None
    backend: str = "local"
    backend_options: BackendOptions = BackendOptions()
    concurrency: int | None = None
    seed: int = 0
    draw: int | None = None
    sampling: Sampling = Sampling()
    assignments: Sequence[str] = ()
    history: str = "own"
    results: Path = Path("results")
    cache: Policy = "use"
    metrics: Sequence[str] = ()


@dataclasses.dataclass
class Job:
    """One run, resolved: what will be predicted with what."""

    spec: RunSpec
    task: Task
    dataset: Dataset
    method: Method
    positions: Sequence[int]
    folder: RunFolder
    fit: Fit = "faithful"


@dataclasses.dataclass
class Outcome:
    """A run as it ended: its folder, its summary, and whether an interrupt cut it short."""

    folder: Path
    summary: Mapping[str, Any]
    interrupted: bool = False


def resolve(options: Options, backend: Backend) -> list[Job]:
    """The runs asked for, checked as far as possible without a model call.

    Raises:
        UsageError, DataError: a name, option or file that cannot work.
    """
    jobs, refused = [], []
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit {options.limit}: at least 1")
    classes = {name: registry.load("method", name) for name in options.methods}
    owners = ["task", *(cls.name for cls in classes.values())]
    given = params.assignments(list(options.assignments), owners)
    shared = given.get("", {})
    used: set[str] = set()
    for task_name in options.tasks:
        task_class = registry.load("task", task_name)
        task = task_class(params.fill(task_class.Params, given.get("task", {}), f"task {task_class.name}"))
        dataset = controlled(
            task.open(options.split or task.default_split, options.data), options.history, options.seed
        )
        positions = select(dataset, options.limit, options.seed if options.draw is None else options.draw)
        for cls in classes.values():
            fields = {field.name for field in dataclasses.fields(cls.Params)}
            mine = {key: value for key, value in shared.items() if key in fields or len(classes) == 1}
            used |= mine.keys()
            fit, reason = verdict({"refuses": cls.refuses, "designed_for": cls.designed_for}, task.name)
            if fit == "refused":
                refused.append(f"method {cls.name} does not run on {task.name}: {reason}")
                continue
            method = cls(params.fill(cls.Params, mine | given.get(cls.name, {}), f"method {cls.name}"))
            check_requirements(method, dataset)
            spec = RunSpec(
                task=task.name,
                task_version=task.version,
                task_params=dataclasses.asdict(task.params),
                separation=dataset.separation,
                split=dataset.split,
                sample=dataset.sample,
                data_hash=dataset.hash,
                method=method.name,
                method_hash=registry.source_hash(cls),
                params=dataclasses.asdict(method.params),
                model=backend.identity,
                sampling=options.sampling,
                seed=options.seed,
                history=options.history,
                window=options.backend_options.window,
            )
            folder = RunFolder(RunFolder.place(options.results, spec))
            jobs.append(Job(spec, task, dataset, method, positions, folder, fit))
    if refused and not jobs:
        raise UsageError("; ".join(refused))
    for line in refused:
        _log.warning("%s; the other runs go on", line)
    if unused := sorted(set(shared) - used):
        raise UsageError(f"--set {unused[0]}: none of the methods {', '.join(classes)} has a parameter of that name")
    return jobs


async def run(
    options: Options,
    *,
    backend: Backend | None = None,
    watch: Callable[[Job, Engine], contextlib.AbstractContextManager[None]] | None = None,
    announce: Callable[[Sequence[Job]], None] | None = None,
) -> list[Outcome]:
    """Run everything asked for; a finished run is only scored again.

    `announce` is told the jobs before the first call; `watch` wraps each engine while it works.

    Raises:
        UsageError, DataError: nothing was run.
        RunError: a run had to stop; what it finished is on disk and the message says how to go on.
    """
    model = backend or backends.create(options.backend, options.backend_options)
    outcomes: list[Outcome] = []
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(model.aclose)
        await model.identify()
        jobs = resolve(options, model)
        if announce:
            announce(jobs)
        cache = None
        if options.cache != "off":
            cache = stack.enter_context(contextlib.closing(Cache(options.results / "cache.sqlite")))
        embedders = Embedders(options.backend_options.base_url)
        stack.push_async_callback(embedders.aclose)
        opened = False
        for job in jobs:
            log = job.folder.start(job.spec)
            try:
                with _logged(log):
                    engine = _engine(job, options, model, cache, embedders)
                    owed = engine.owed(job.positions)
                    if owed and not opened:
                        await model.open(log)
                        opened = True
                    outcomes.append(await _finish(job, engine, owed, options, watch))
            finally:
                job.folder.close()
            if outcomes[-1].interrupted:
                break
    return outcomes


def _engine(job: Job, options: Options, model: Backend, cache: Cache | None, embedders: Embedders) -> Engine:
    concurrency = options.concurrency or model.concurrency
    return Engine(
        task=job.task,
        dataset=job.dataset,
        method=job.method,
        spec=job.spec,
        client=Client(model, cache, options.cache, concurrency),
        embedders=embedders,
        folder=job.folder,
        cache=cache,
        concurrency=concurrency,
    )


async def _finish(
    job: Job,
    engine: Engine,
    owed: Sequence[int],
    options: Options,
    watch: Callable[[Job, Engine], contextlib.AbstractContextManager[None]] | None,
) -> Outcome:
    before: dict[str, Any] = job.folder.summary() if job.folder.summary_path.exists() else {"seconds": 0.0}
    started = time.perf_counter()
    failed: PersonabenchError | None = None
    whole = False
    try:
        with watch(job, engine) if watch and owed else contextlib.nullcontext():
            whole = await engine.run(owed)
    except RunError as error:
        failed = error
    seconds = before["seconds"] + (time.perf_counter() - started if owed else 0.0)
    selected = set(job.positions)
    scored = [at for at, (name, _) in enumerate(job.dataset.index()) if at in selected or name in engine.finished]
    extra_metrics = {} if owed else before.get("extra_metrics", {})
    try:
        extra_metrics |= _extra_metrics(job, scored, options.metrics)
    except UsageError as error:
        failed = failed or error
    summary = score_run(
        job.folder,
        job.task,
        job.dataset,
        job.spec,
        scored,
        seconds=seconds,
        extra={
            "data": options.data and str(options.data.resolve()),
            "changed": _changed(job.method),
            "task_changed": _changed(job.task),
            "fit": job.fit,
            "privileged": job.method.privileged,
            "provenance": before.get("provenance", {}) | engine.provenance | engine.embedders.used(),
            "extra_metrics": extra_metrics,
            "warnings": list(job.dataset.warnings),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": versions(),
        },
    )
    if isinstance(failed, RunError):
        raise RunError(
            f"{failed}\n{summary['n']} of {len(job.positions)} samples are done and kept in {job.folder.path}"
        )
    if failed is not None:
        raise failed
    return Outcome(job.folder.path, summary, interrupted=not whole)


def _extra_metrics(job: Job, positions: Sequence[int], names: Sequence[str]) -> dict[str, float]:
    """Metrics asked for beside the task's own, over the answers that have a gold."""
    if not names:
        return {}
    index = job.dataset.index()
    outputs, golds = [], []
    lines = job.folder.ordered_predictions(index[position][0] for position in positions)
    for position, line in zip(positions, lines, strict=True):
        references = job.dataset.load(position).references
        if line is not None and line.error is None and references:
            outputs.append(line.output or "")
            golds.append(references[0])
    return {key: value for name in names for key, value in external(name, outputs, golds).items()}


def _changed(owner: Method | Task) -> dict[str, Any]:
    """The parameters that are not at their defaults."""
    defaults = dataclasses.asdict(owner.Params())
    return {key: value for key, value in dataclasses.asdict(owner.params).items() if value != defaults[key]}


def versions() -> dict[str, str]:
    """What software made a run."""
    names = ("personabench-harness", "xllamacpp", "openai", "rouge-score", "sacrebleu", "nltk", "numpy")
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send the package's log into an attempt's file."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("personabench")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        handler.close()
