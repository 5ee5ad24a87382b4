"""From options to finished runs: everything between the command line and the engine.

Opens the folder of each run that `jobs` resolved, runs what is owed, has it judged where the task has a judge, and
scores.  A model is loaded only when something is owed to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import platform
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from personabench.api.dataset import Dataset
from personabench.api.judged import metrics_added_by_judge
from personabench.api.method import Method
from personabench.api.task import Task
from personabench.errors import DataError, RunError, UsageError
from personabench.metrics.external import compute_external
from personabench.models import backends
from personabench.models.backends.base import Backend
from personabench.models.budget import Budget
from personabench.models.cache import Cache
from personabench.models.client import Client
from personabench.models.roles import RoleName
from personabench.results.run_folder import RunFolder
from personabench.results.summary import Number, Role, RunFacts, Summary
from personabench.retrieval.embedders import Embedders
from personabench.run.engine import Engine
from personabench.run.judging import judge, unjudged
from personabench.run.openings import Openings
from personabench.run.options import Options
from personabench.run.progress import Progress
from personabench.run.resolve import ResolvedRun, resolve
from personabench.run.scoring import score_run
from personabench.run.shard_record import mark

__all__ = ["Options", "Outcome", "ResolvedRun", "resolve", "run", "versions"]

Watch = Callable[[str, Progress, Client], contextlib.AbstractContextManager[None]]


def _unwatched(
    title: str, progress: Progress, client: Client
) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


@dataclasses.dataclass
class Outcome:
    """A run as it ended: its folder, its summary, whether an interrupt cut it short, and what metrics could not be had.

    `trouble` is why judgements, or metrics that were asked for beside the task's own, are missing; everything else is
    there.
    """

    folder: Path
    summary: Summary
    interrupted: bool = False
    trouble: str = ""


async def run(
    options: Options,
    *others: Options,
    backend: Backend | None = None,
    roles: Mapping[RoleName, Backend] | None = None,
    watch: Watch = _unwatched,
    announce: Callable[[Sequence[ResolvedRun]], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """Run everything asked for; a finished run is only scored again.

    `others` ask the same with other seeds: backend, cache and embedders are those of `options`.  `announce` is told
    the jobs of each before their first call; `watch` wraps what takes its time, given a title, counters and the client.
    `tell` is told the dialect of each server, if it is not plain.

    Raises:
        UsageError, DataError: nothing was run.
        RunError: a run had to stop; what it finished is on disk and the message says how to go on.
        KeyboardInterrupt: interrupted twice; what was finished is on disk, and scored when the command is repeated.
    """
    options = options.guarded()
    model = backend or backends.create(options.backend, options.backend_options)
    outcomes: list[Outcome] = []
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(model.aclose)
        await model.identify()
        named = await _named(options, roles, stack)
        budget = Budget(options.prices, options.max_cost)
        for each_model in (model, *named.values()):
            budget.price(each_model.identity["name"])
        cache, embedders = None, None
        openings = Openings(options, budget, tell)
        openings.recall(model, *named.values())
        for each in (options, *others):
            jobs = resolve(each, model, named)
            log_paths: dict[Path, Path] = {}
            if pending := _first_pending(jobs, each, openings):
                jobs, log_paths = await _learn_dialects(
                    pending, each, model, named, openings, stack
                )
            if announce:
                announce(jobs)
            if embedders is None:
                if options.cache != "off":
                    older = (
                        options.shard.whole(options.results) / "cache.sqlite"
                        if options.shard
                        else None
                    )
                    cache = Cache(options.results / "cache.sqlite", older, writing=True)
                    stack.callback(cache.close)
                embedders = options.embedders()
                stack.push_async_callback(embedders.aclose)
            for job in jobs:
                log = log_paths.pop(job.folder.path, None) or job.folder.start(job.spec)
                try:
                    mark(job.folder, each, job.task)
                    with _logged(log):
                        engine = _engine(job, each, model, cache, embedders, budget)
                        owed = engine.owed(job.positions)
                        ready = functools.partial(openings.ready, log=log)
                        if owed:
                            await ready(model)
                        if owed and "simulator" in job.roles:
                            await ready(job.roles["simulator"])
                        outcomes.append(
                            await _finish(job, engine, owed, each, watch, ready, openings)
                        )
                finally:
                    job.folder.close()
                if outcomes[-1].interrupted:
                    return outcomes
    return outcomes


def _first_pending(
    jobs: Sequence[ResolvedRun], options: Options, openings: Openings
) -> ResolvedRun | None:
    """Return the first run with samples to do, if it needs a server whose dialect is not known."""
    for job in jobs:
        if not any(map(openings.is_new, (job.backend, *job.roles.values()))):
            continue
        # The plan of work alone: nothing of it is used.
        engine = _engine(job, options, job.backend, None, options.embedders(), openings.budget)
        if engine.owed(job.positions):
            return job
    return None


async def _learn_dialects(
    pending: ResolvedRun,
    options: Options,
    model: Backend,
    named: Mapping[RoleName, Backend],
    openings: Openings,
    stack: contextlib.AsyncExitStack,
) -> tuple[list[ResolvedRun], dict[Path, Path]]:
    """Open the servers of a run and learn their dialects, which may be part of its identity.

    Returns:
        the runs, resolved anew if an identity has changed, and the log of the one already started.
    """
    folder = pending.folder
    log = folder.start(pending.spec)
    stack.callback(folder.close)
    changed = False
    with _logged(log):
        for backend in (model, *pending.roles.values()):
            changed |= await openings.ready(backend, log=log)

    jobs = resolve(options, model, named)
    if not changed:
        return jobs, {folder.path: log}

    # The run that was started has another name now; what it logged goes with it.
    folder.close()
    for job in jobs:
        if (job.spec.method, job.spec.task) == (pending.spec.method, pending.spec.task):
            folder.rename(job.folder.path)
            break
    return jobs, {}


async def _named(
    options: Options, given: Mapping[RoleName, Backend] | None, stack: contextlib.AsyncExitStack
) -> dict[RoleName, Backend]:
    """The roles' own backends, identified."""
    named = dict(given or {})
    for role, (name, own) in options.roles.items():
        if role not in named:
            named[role] = backends.create(name, own)
    for backend in named.values():
        stack.push_async_callback(backend.aclose)
        await backend.identify()
    return named


def _engine(
    job: ResolvedRun,
    options: Options,
    model: Backend,
    cache: Cache | None,
    embedders: Embedders,
    budget: Budget,
) -> Engine:
    concurrency = options.concurrency or model.concurrency
    client = Client(model, cache, options.cache, concurrency, budget=budget)
    return Engine(
        task=job.task,
        dataset=job.dataset,
        method=job.method,
        spec=job.spec,
        client=client,
        embedders=embedders,
        folder=job.folder,
        cache=cache,
        concurrency=concurrency,
        sample_timeout=options.sample_timeout,
        judged=job.judge is not None,
        roles={
            role: client
            if backend is model
            else dataclasses.replace(
                client, backend=backend, concurrency=options.concurrency or backend.concurrency
            )
            for role, backend in job.roles.items()
        },
    )


async def _finish(
    job: ResolvedRun,
    engine: Engine,
    owed: Sequence[int],
    options: Options,
    watch: Watch,
    ready: Callable[[Backend], Awaitable[bool]],
    openings: Openings,
) -> Outcome:
    title = f"{job.spec.method} on {job.spec.task}"
    before = _before(job.folder)
    counted = await engine.client.backend.prefix_counts() if owed else None
    budget = openings.budget
    # The first run pays for the probes.
    already = budget.spent - openings.take_spent()
    started = time.perf_counter()
    failed: RunError | None = None
    whole = False
    try:
        with watch(title, engine.progress, engine.client) if owed else contextlib.nullcontext():
            whole = await engine.run(owed)
    except RunError as error:
        failed = error
    if engine.progress.dropped:
        raise KeyboardInterrupt
    earlier_spent = before.spent if before else None
    seconds = (before.seconds if before else 0.0) + (time.perf_counter() - started if owed else 0.0)
    selected = set(job.positions)
    scored = [
        at
        for at, (name, _) in enumerate(job.dataset.index())
        if at in selected or name in engine.finished
    ]
    judging = Progress()
    if job.judge and whole:
        started = time.perf_counter()
        try:
            anew = selected if options.cache == "refresh" else ()
            if left := unjudged(job.folder, job.dataset, scored, job.judge, anew):
                if await ready(job.roles["judge"]):
                    left = unjudged(job.folder, job.dataset, scored, job.judge, anew)
                with watch(f"judging {title}", judging, client := engine.roles["judge"]):
                    await judge(job.folder, job.task, job.dataset, left, job.judge, client, judging)
                whole = not judging.stopping
                seconds += time.perf_counter() - started
            if anew and whole and not judging.failed and not engine.progress.failed:
                job.folder.end_refresh()
        except RunError as error:
            failed = error
    extra_metrics: dict[str, float | None] = {}
    if before and not owed:
        extra_metrics |= before.extra_metrics
    trouble = []
    if judging.failed:
        trouble.append(
            f"{judging.failed} answers could not be judged; the first: {judging.first_failure}\n"
            "Repeat the command to have them judged again."
        )
    try:
        extra_metrics |= external_metrics(job.folder, job.dataset, scored, options.metrics)
    except UsageError as error:
        trouble.append(str(error))
    summary = score_run(
        job.folder,
        job.task,
        job.dataset,
        job.spec,
        scored,
        seconds=seconds,
        facts=RunFacts(
            data=str(options.data.resolve()) if options.data else None,
            changed=changed(job.method),
            task_changed=changed(job.task),
            fit=job.fit,
            privileged=job.method.privileged,
            provenance={
                **(before.provenance if before else {}),
                **engine.provenance,
                **openings.provenance(engine.client.backend),
                **engine.embedders.identities(),
            },
            extra_metrics=extra_metrics,
            spent=(earlier_spent or 0.0) + budget.spent - already
            if options.prices
            else earlier_spent,
            prefix_cache=await _prefix_cache(
                engine.client.backend, counted, before.prefix_cache if before else None
            ),
            warnings=[*job.dataset.warnings, *job.role_warnings],
            roles={
                role: Role(
                    model=backend.identity["name"],
                    identity=dict(backend.identity),
                    shared=backend.identity == job.spec.model,
                    adds=_judge_adds(job.task) if role == "judge" else msgspec.UNSET,
                )
                for role, backend in job.roles.items()
            },
            judge=job.judge,
            judge_errors=judging.failed,
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            versions=versions(),
        ),
    )
    if failed is not None:
        raise RunError(
            f"{failed}\n{summary.n} of {len(job.positions)} samples are done and kept in {job.folder.path}"
        )
    return Outcome(job.folder.path, summary, interrupted=not whole, trouble="\n".join(trouble))


def _judge_adds(task: Task) -> list[str] | None:
    added = metrics_added_by_judge(task)
    return None if added is None else list(added)


def _before(folder: RunFolder) -> Summary | None:
    """The summary of earlier attempts; None if it is missing or damaged, since scoring writes it again."""
    try:
        return folder.summary()
    except DataError:
        return None


async def _prefix_cache(
    model: Backend, then: tuple[int, int] | None, before: dict[str, Number] | None
) -> dict[str, Number] | None:
    """Prompt tokens that the model's prefix cache held and those it was asked for, in this attempt and those before."""
    now = then and await model.prefix_counts()
    if then is None or now is None:
        return before
    start = before or {"hits": 0, "queries": 0}
    hits, queries = (max(0, after - earlier) for earlier, after in zip(then, now, strict=True))
    return {"hits": start["hits"] + hits, "queries": start["queries"] + queries}


def external_metrics(
    folder: RunFolder, dataset: Dataset, positions: Sequence[int], names: Sequence[str]
) -> dict[str, float]:
    """Metrics asked for beside the task's own, over the answers that have a gold."""
    if not names:
        return {}
    index = dataset.index()
    outputs, golds = [], []
    lines = folder.ordered_predictions(index[position][0] for position in positions)
    for position, line in zip(positions, lines, strict=True):
        references = dataset.load(position).references
        if line is not None and line.error is None and references:
            outputs.append(line.output or "")
            golds.append(references[0])
    return {
        key: value
        for name in names
        for key, value in compute_external(name, outputs, golds).items()
    }


def changed(owner: Method | Task) -> dict[str, Any]:
    """The parameters that are not at their defaults."""
    defaults = dataclasses.asdict(owner.Params())
    return {
        key: value
        for key, value in dataclasses.asdict(owner.params).items()
        if value != defaults[key]
    }


def versions() -> dict[str, str]:
    """What software made a run."""
    names = (
        "personabench-harness",
        "xllamacpp",
        "openai",
        "rouge-score",
        "sacrebleu",
        "nltk",
        "numpy",
    )
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send the package's log into an attempt's file."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
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
