"""Execute runs: from options to scored predictions.

Opens the folder of each resolved run, predicts its pending samples, has the answers judged if the
task has a judge, and scores. A model is opened only if a run has pending samples for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from personabench.api.judged import metrics_added_by_judge
from personabench.api.task import Task
from personabench.errors import (
    DataError,
    MisfitError,
    PersonabenchError,
    RunError,
    UsageError,
)
from personabench.metrics.preload import preload
from personabench.models.backends.base import Backend
from personabench.models.budget import Budget
from personabench.models.client import Client
from personabench.models.roles import RoleName
from personabench.results.run_folder import RunFolder
from personabench.results.summary import Role, RunFacts, Summary
from personabench.run.audit import audit_in_pauses
from personabench.run.early_scores import EarlyScores
from personabench.run.first_contact import learn_dialects
from personabench.run.judging import judge, judge_options, prompt_version, unjudged
from personabench.run.openings import Openings
from personabench.run.options import Options
from personabench.run.outline import outline
from personabench.run.progress import CommandProgress, Progress, RunProgress
from personabench.run.quiet import WordlessTracebacks
from personabench.run.resolve import ResolvedRun, resolve
from personabench.run.run_facts import (
    changed_params,
    describe_edits,
    describe_subject,
    external_metrics,
    prefix_cache_totals,
    versions,
)
from personabench.run.scoring import score_run
from personabench.run.session import (
    Session,
    identified_models,
    open_cache,
    open_vector_store,
)
from personabench.run.shard_file import write_shard_file
from personabench.run.surroundings import describe_harness, describe_machine

__all__ = ["Options", "Outcome", "ResolvedRun", "resolve", "run"]

_log = logging.getLogger("personabench")

_ALLOCATIONS = 20_000
"""Objects that a run allocates between two searches for garbage."""

Watch = Callable[[str, Progress, Client], contextlib.AbstractContextManager[None]]
"""Shows the progress of calls: given a title, the counters and the client that makes the calls."""


def _unwatched(
    title: str, progress: Progress, client: Client
) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


@dataclasses.dataclass
class Outcome:
    """A run after its execution.

    Attributes:
        interrupted: an interrupt ended it early.
        missing_values: why judgements, or metrics beside the task's own, are missing; everything
            else was computed.
        ahead: samples that the command still owes in runs that it has not begun, if it was
            interrupted.
    """

    folder: Path
    summary: Summary
    interrupted: bool = False
    missing_values: str = ""
    ahead: int = 0


async def run(
    options: Options,
    *further: Options,
    backend: Backend | None = None,
    roles: Mapping[RoleName, Backend] | None = None,
    watch: Watch = _unwatched,
    announce: Callable[[Sequence[ResolvedRun]], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """Execute all runs of a command. Finished runs are only scored again.

    Args:
        further: the same options with other seeds, executed with the models, the cache and the
            embedders of `options`.
        backend, roles: backends to use in place of those of the options.
        watch: wraps everything that takes long.
        announce: called with the runs of each seed before their first call.
        tell: called with a line about each model that is not addressed plainly, or thinks first.

    Raises:
        UsageError, DataError: the options or the data are wrong; nothing was executed.
        RunError: a run had to stop; finished samples are on disk, and the message says how to
            continue.
        KeyboardInterrupt: interrupted twice; finished samples are on disk, and scored when the
            command is repeated.
    """
    options = options.guarded()
    outcomes: list[Outcome] = []
    reported: set[str] = set()
    misfits: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_rare_searches_for_garbage())
        model, role_backends = await stack.enter_async_context(
            identified_models(options, backend, roles)
        )
        budget = Budget(options.prices, options.max_cost)
        for priced in (model, *role_backends.values()):
            # Raises before the first call if a limit cannot be kept.
            budget.price(priced.identity["name"])

        openings = Openings(options, budget, tell)
        openings.recall(model, *role_backends.values())
        session = None
        command = CommandProgress()
        all_options = (options, *further)
        for number, seed_options in enumerate(all_options):
            resolve_jobs = functools.partial(resolve, seed_options, model, role_backends, reported)
            jobs = resolve_jobs()
            for job in jobs:
                if job.training:
                    job.training.require(_list_unanswered(job))
            # Only now: a command with wrong options must not create files.
            if session is None:
                cache = open_cache(options)
                if cache is not None:
                    stack.callback(cache.close)
                embedders = options.embedders(open_vector_store(options))
                stack.push_async_callback(embedders.aclose)
                session = Session(model, cache, embedders, budget, openings)
            logs: dict[Path, Path] = {}
            try:
                async with _audits(jobs):
                    jobs, logs = await learn_dialects(
                        jobs, resolve_jobs, seed_options, session, stack
                    )
            except PersonabenchError:
                # Those that were started to learn a dialect, before the audit failed.
                for job in jobs:
                    if job.folder.path in logs:
                        job.folder.discard()
                raise
            if announce:
                announce(jobs)

            def resolve_later(later: Options) -> Sequence[ResolvedRun]:
                return resolve(later, model, role_backends, reported)

            await outline(command, number, all_options, jobs, session, resolve_later)
            for job, outlined in zip(jobs, command.groups[number], strict=True):
                try:
                    log = logs.pop(job.folder.path, None) or job.folder.start(job.spec)
                    place = command, outlined
                    outcome = await _execute(job, seed_options, session, watch, log, place)
                except MisfitError as error:
                    outlined.has_ended = True
                    misfits.append(str(error))
                    _log.warning("skipped: %s", error)
                    continue
                outcomes.append(outcome)
                outlined.has_ended = True
                if outcome.interrupted:
                    outcome.ahead = command.ahead
                    return outcomes
    if misfits and not outcomes:
        raise UsageError("; ".join(dict.fromkeys(misfits)))
    return outcomes


@contextlib.contextmanager
def _rare_searches_for_garbage() -> Iterator[None]:
    """Search for unreachable cycles less often: the records that a run loads are in none."""
    before = gc.get_threshold()
    # Zero switches the searches off.
    if 0 < before[0] < _ALLOCATIONS:
        gc.set_threshold(_ALLOCATIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextlib.asynccontextmanager
async def _audits(jobs: Sequence[ResolvedRun]) -> AsyncIterator[None]:
    """Audit the data of runs while the block waits for their models.

    Raises:
        PluginError: a task's code fails.
    """

    async def audit() -> None:
        for job in jobs:
            if job.audited is not None:
                await audit_in_pauses(job.task, job.audited)

    auditing = asyncio.create_task(audit(), name="audits")
    try:
        yield
    except BaseException:
        auditing.cancel()
        raise
    await auditing


async def _execute(
    job: ResolvedRun,
    options: Options,
    session: Session,
    watch: Watch,
    log: Path,
    place: tuple[CommandProgress, RunProgress],
) -> Outcome:
    """Execute a run whose folder is started.

    Args:
        place: the command's progress, and that of the run in it.
    """
    try:
        write_shard_file(job.folder, options, job.task)
        if options.run_file:
            job.folder.write_run_file(options.run_file)
        with _logged(log, sensitive=job.task.sensitive):
            if options.environment:
                _log.info("options %s", options.environment)
            return await _Execution(job, options, session, watch, log, *place).execute()
    finally:
        job.folder.close()


class _Execution:
    """One attempt at a run: predict, judge, score."""

    def __init__(
        self,
        job: ResolvedRun,
        options: Options,
        session: Session,
        watch: Watch,
        log: Path,
        command: CommandProgress,
        outlined: RunProgress,
    ) -> None:
        self.command = command
        self.outlined = outlined
        self.job = job
        self.options = options
        self.session = session
        self.watch = watch
        self.log = log
        self.engine = session.create_engine(job, options)
        self.title = f"{job.spec.method} on {job.spec.task}"
        self.judging = Progress(command=command)
        self.durations: dict[str, float] = {}
        self.complete = False
        self.error: RunError | None = None
        self.edits: list[str] = []

    async def execute(self) -> Outcome:
        budget, model = self.session.budget, self.session.model
        # The first run pays for the probes.
        spent_before = budget.spent - self.session.openings.take_spent()
        pending = self.engine.owed(self.job.positions)
        prefix_counts = None
        if pending:
            await self._open_models()
            prefix_counts = await model.prefix_counts()
        earlier = _read_summary(self.job.folder)
        # Before anything is appended to the files.
        self.edits = describe_edits(self.job.folder, earlier)

        # While calls are in flight, loading the metrics and scoring cost no time.
        loop = asyncio.get_running_loop()
        loading = loop.run_in_executor(None, preload, self.job.task.metrics)
        early = EarlyScores(self.job.task)
        async with early.scoring(loading):
            await self._predict(pending, early)
        await loading
        positions = self._positions_to_score()
        if self.job.judge and self.complete:
            await self._judge(self.job.judge, positions)

        extra_metrics: dict[str, float | None] = {}
        problems = []
        if self.judging.failed:
            problems.append(
                f"{self.judging.failed} answers could not be judged; the first: "
                f"{self.judging.first_failure}\nRepeat the command to have them judged again."
            )
        if earlier and not pending:
            extra_metrics |= earlier.extra_metrics
        try:
            extra_metrics |= external_metrics(
                self.job.folder, self.job.dataset, positions, self.options.metrics
            )
        except UsageError as error:
            problems.append(str(error))

        facts = msgspec.structs.replace(
            self._facts(earlier),
            extra_metrics=extra_metrics,
            spent=self._spent(earlier, spent_before),
            prefix_cache=await prefix_cache_totals(
                model, prefix_counts, earlier.prefix_cache if earlier else None
            ),
        )
        summary = score_run(
            self.job.folder,
            self.job.task,
            self.job.dataset,
            self.job.spec,
            positions,
            seconds=sum(self.durations.values()) + (earlier.seconds if earlier else 0.0),
            facts=facts,
            # What a judge measures is not in them.
            early=None if self.job.judge else early,
        )
        if self._is_refreshed():
            # Not earlier: until the scores are on disk, the same command continues the refresh.
            self.job.folder.refresh.end()
        if self.error is not None:
            raise RunError(
                f"{self.error}\n{summary.n} of {len(self.job.positions)} samples are done and "
                f"kept in {self.job.folder.path}"
            )
        return Outcome(self.job.folder.path, summary, not self.complete, "\n".join(problems))

    async def _open_models(self) -> None:
        await self.session.open_backend(self.session.model, self.log)
        for role, backend in self.job.roles.items():
            # Judges are opened when answers wait for them.
            if role != "judge":
                await self.session.open_backend(backend, self.log)

    async def _predict(self, pending: Sequence[int], early: EarlyScores) -> None:
        engine = self.engine
        started = time.perf_counter()
        engine.observe = early.add
        engine.progress.score = early.describe
        engine.progress.command = self.command
        self.outlined.progress = engine.progress
        self.outlined.traffic = engine.client.traffic
        watched = self.watch(self.title, engine.progress, engine.client) if pending else None
        try:
            with self.outlined.timed(), watched or contextlib.nullcontext():
                self.complete = await engine.run(pending)
        except RunError as error:
            self.error = error
        if engine.progress.dropped:
            raise KeyboardInterrupt
        if pending:
            self.durations["predict"] = time.perf_counter() - started

    def _positions_to_score(self) -> list[int]:
        """The selected samples, and those that an earlier, larger `--limit` has answered."""
        selected = set(self.job.positions)
        return [
            position
            for position, (sample_id, _) in enumerate(self.job.dataset.index())
            if position in selected or sample_id in self.engine.finished
        ]

    async def _judge(self, key: str, positions: Sequence[int]) -> None:
        job, engine = self.job, self.engine
        refreshing = self.options.cache == "refresh"
        again = set(job.positions) if refreshing else set()
        started = time.perf_counter()
        try:
            pending = unjudged(job.folder, job.dataset, positions, key, again)
            if pending:
                if await self.session.open_backend(job.roles["judge"], self.log):
                    # Its dialect is part of the judge, who has another key now.
                    key = str(job.judge)
                    pending = unjudged(job.folder, job.dataset, positions, key, again)
                client = engine.roles["judge"]
                watched = self.watch(f"judging {self.title}", self.judging, client)
                with self.outlined.timed(), watched:
                    await judge(
                        job.folder, job.task, job.dataset, pending, key, client, self.judging
                    )
                self.complete = not self.judging.stopping
                self.durations["judge"] = time.perf_counter() - started
        except RunError as error:
            self.error = error

    def _is_refreshed(self) -> bool:
        """Whether a refresh has made everything again."""
        failed = self.error is not None or self.judging.failed or self.engine.progress.failed
        return self.options.cache == "refresh" and self.complete and not failed

    def _spent(self, earlier: Summary | None, spent_before: float) -> float | None:
        """The cost of this attempt and of earlier ones; None if prices were never given."""
        earlier_spent = earlier.spent if earlier else None
        if not self.options.prices:
            return earlier_spent
        return (earlier_spent or 0.0) + self.session.budget.spent - spent_before

    def _facts(self, earlier: Summary | None) -> RunFacts:
        job, engine, audit = self.job, self.engine, self.job.audit
        return RunFacts(
            data=str(self.options.data.resolve()) if self.options.data else None,
            subject=describe_subject(job.task, job.dataset, self.options.data),
            changed={**changed_params(job.method), **job.changed_prompts, **job.changed_profiler},
            task_changed=changed_params(job.task),
            fit="adapted" if job.differs else "faithful",
            differs=list(job.differs),
            privileged=job.method.privileged,
            rule=job.method.rule,
            provenance={
                **(earlier.provenance if earlier else {}),
                **engine.provenance,
                **self.session.openings.provenance(self.session.model),
                **engine.embedders.identities(),
                **_describe_rubric(self.options),
                **_describe_card(self.options),
                **_describe_training(job),
            },
            warnings=[*job.warnings, *self.edits],
            audit=audit.summary if audit else None,
            roles={role: self._role(role, backend) for role, backend in job.roles.items()},
            judge=job.judge,
            judge_options=judge_options(job.task) if job.judge else {},
            judge_prompt=prompt_version(job.task) if job.judge else "",
            judge_errors=self.judging.failed,
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            versions=versions(),
            command=self.options.command,
            harness=describe_harness(),
            machine=describe_machine(),
            durations=_add_durations(earlier.durations if earlier else {}, self.durations),
        )

    def _role(self, role: RoleName, backend: Backend) -> Role:
        return Role(
            model=backend.identity["name"],
            identity=dict(backend.identity),
            shared=backend.identity == self.job.spec.model,
            adds=_metrics_of_judge(self.job.task) if role == "judge" else msgspec.UNSET,
        )


def _add_durations(earlier: Mapping[str, float], current: Mapping[str, float]) -> dict[str, float]:
    """Add up the seconds of all attempts, by stage."""
    stages = {**earlier, **current}
    return {stage: round(earlier.get(stage, 0.0) + current.get(stage, 0.0), 2) for stage in stages}


def _describe_rubric(options: Options) -> dict[str, Any]:
    if options.rubric is None:
        return {}
    return {"rubric": {"sha256": options.rubric.identity, **options.rubric.to_json_object()}}


def _list_unanswered(job: ResolvedRun) -> list[int]:
    """The positions without an answer on disk: an answered run is scored without its artifacts."""
    lines = job.folder.iter_predictions()
    answered = {line.sample_id for line in lines if line.error is None}
    index = job.dataset.index()
    return [position for position in job.positions if index[position][0] not in answered]


def _describe_training(job: ResolvedRun) -> dict[str, Any]:
    facts = job.training.describe(job.positions) if job.training else {}
    # Without its artifacts, a run that is scored again keeps what it said.
    return {"training": facts} if facts else {}


def _describe_card(options: Options) -> dict[str, Any]:
    return {} if options.card is None else {"card": dict(options.card)}


def _metrics_of_judge(task: Task) -> list[str] | None:
    metrics = metrics_added_by_judge(task)
    return None if metrics is None else list(metrics)


def _read_summary(folder: RunFolder) -> Summary | None:
    """Read the summary of earlier attempts; None if it is missing or damaged."""
    try:
        return folder.summary()
    except DataError:
        # Scoring writes it again.
        return None


@contextlib.contextmanager
def _logged(path: Path, *, sensitive: bool) -> Iterator[None]:
    """Send the package's log to the file of an attempt, without words of sensitive tasks."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    if sensitive:
        handler.addFilter(WordlessTracebacks())
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
