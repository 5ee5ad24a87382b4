"""The engine of a run: pending samples in, prediction lines out.

A fixed number of workers pulls samples, in an order that keeps a user's samples together.  A worker
takes a sample from its user's profile to its prediction and appends the line, so no stage waits for
another and no finished sample is lost. In an online task the unit of work is a user: rounds follow
one another, and the state after each round is kept before its line.  The first interrupt lets calls
in flight finish, the second drops them.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from personabench.api.artifacts import Artifacts
from personabench.api.compatibility import check_requirements
from personabench.api.context import Context, Profiler
from personabench.api.dataset import Dataset, load_sample
from personabench.api.dialogue import DialogueTask
from personabench.api.guard import TRACEBACKS, describe_error, find_plugin_call
from personabench.api.method import Method
from personabench.api.online import OnlineTask
from personabench.api.population import Population, read_population
from personabench.api.prompts import Prompts
from personabench.api.task import Task
from personabench.errors import (
    BackendDown,
    BackendError,
    BrokenOff,
    MisfitError,
    PluginError,
    Refused,
    RunError,
    UsageError,
)
from personabench.models.backends.base import Backend
from personabench.models.backends.windows import refused_window
from personabench.models.cache import Cache
from personabench.models.call_order import number_tasks
from personabench.models.client import Client, encodable
from personabench.models.roles import Role, RoleName
from personabench.results.refresh import RefreshState
from personabench.results.rounds import Round
from personabench.results.run_folder import RunFolder
from personabench.results.spec import RunSpec
from personabench.retrieval.embedders import Embedders
from personabench.run.attempt import (
    Act,
    Attempt,
    SingleSamples,
    comes_from_models,
    group_by_user,
    plain,
    require_text,
)
from personabench.run.interrupts import GRACE, cancel_all, on_interrupt, suspended_stack
from personabench.run.profiles import Profiles
from personabench.run.progress import Progress
from personabench.run.quiet import describe, withhold
from personabench.run.training import MappedAdapters
from personabench.run.watchdog import LIMIT, warn, watch_loop
from personabench.types import ONLY_TRY, Phase, Prediction, Sample, Try, User

_log = logging.getLogger("personabench")


@dataclass
class Engine:
    """One run of one method on one task.

    Attributes:
        task, dataset, method, spec: the run.
        client, embedders, cache: the model under test and its memory.
        folder: the run folder, already started.
        output: the folder that is written to, if not `folder`: a dry run reads one and writes
            another.
        roles: the clients of the simulator, the judge and the profiler; the model under test plays
            a role without one.
        concurrency: samples in progress at once.
        grace: seconds that calls in flight get after an interrupt.
        sample_timeout: seconds that a sample may take; None for no limit.
        block_limit: seconds after which plugin code that blocks the event loop is reported.
        judged: a judge follows, so a refresh does not end with the last prediction.
        observe: called with the position, the sample and its prediction, once it is written.
        prompts: the texts of the method's prompts; profiler_prompts: the same for the profiler.
        artifacts: those of a method that was trained.
        finished: the ids of samples with a prediction, valid after `owed`.
        provenance: the run's inputs beside its spec, such as the population's hash.
    """

    task: Task
    dataset: Dataset
    method: Method
    spec: RunSpec
    client: Client
    embedders: Embedders
    folder: RunFolder
    cache: Cache | None = None
    concurrency: int = 8
    grace: float = GRACE
    sample_timeout: float | None = None
    block_limit: float = LIMIT
    roles: Mapping[RoleName, Client] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    output: RunFolder | None = None
    observe: Callable[[int, Sample, Prediction], None] | None = None
    prompts: Prompts = field(default_factory=Prompts)
    profiler_prompts: Prompts = field(default_factory=Prompts)
    artifacts: Artifacts | None = None

    def __post_init__(self) -> None:
        self.finished: set[str] = set()
        self.provenance: dict[str, str] = {}
        self._population: Population | None = None
        self._attempts: dict[str, int] = {}
        self._stubborn: set[str] = set()
        self._rounds: dict[str, Round] = {}
        self._unwritten: list[Prediction] = []
        self._output = self.output or self.folder
        self._profiles = Profiles(
            dataset=self.dataset,
            method=self.method,
            spec=self.spec,
            folder=self._output,
            cache=self.cache,
            client=self.client,
            new_context=self._new_context,
            concurrency=self.concurrency,
        )

    @functools.cached_property
    def _index(self) -> Sequence[tuple[str, str]]:
        # A dataset may build its index at every call.
        return self.dataset.index()

    @functools.cached_property
    def _mapped_adapters(self) -> MappedAdapters:
        return MappedAdapters(self.client.backend.options.adapter_map)

    @property
    def _online(self) -> bool:
        return self.task.protocol == "online"

    @property
    def _refreshing(self) -> bool:
        return self.client.policy == "refresh"

    def owed(self, positions: Sequence[int]) -> list[int]:
        """The positions whose samples have no successful prediction yet.

        With the cache policy "refresh" every sample is owed again, except those that the refresh in
        progress has made. In an online task a user's rounds are finished up to the last one whose
        state was kept.
        """
        refresh = self.folder.refresh.read() if self._refreshing else RefreshState(0, 0)
        done = self._read_rounds(refresh) if self._online else self._read_predictions(refresh)
        index = self.dataset.index()
        pending = [position for position in positions if index[position][0] not in done]
        self.progress = Progress(
            total=len(positions),
            before=len(positions) - len(pending),
            sensitive=self.task.sensitive,
        )
        return pending

    def _read_predictions(self, refresh: RefreshState | None) -> set[str]:
        """The ids of samples that need no new prediction; sets `finished` to all that have one."""
        fresh: set[str] = set()
        for number, prediction in enumerate(self.folder.iter_predictions()):
            sample_id = prediction.sample_id
            self._attempts[sample_id] = prediction.attempts
            if prediction.error:
                # A failed attempt appended later replaces a success.
                self.finished.discard(sample_id)
                continue
            self.finished.add(sample_id)
            if refresh is not None and number >= refresh.predictions:
                fresh.add(sample_id)
        return self.finished & fresh

    def _read_rounds(self, refresh: RefreshState | None) -> set[str]:
        """Resume every user's trajectory after its last kept round; returns the ids of finished
        samples.

        A refresh that begins now (None) restarts them all.
        """
        samples_of: dict[str, list[str]] = {}
        for sample_id, user in self.dataset.index():
            samples_of.setdefault(user, []).append(sample_id)

        if refresh is not None:
            for user, sample_ids in samples_of.items():
                last = self.folder.rounds.read(user)
                if last is not None:
                    self._rounds[user] = last
                    self.finished.update(sample_ids[: last.round])

        # The state is kept before the line is written, so a kill between the two leaves a line to
        # write.
        predictions = {last.prediction.sample_id: last.prediction for last in self._rounds.values()}
        written: dict[str, Prediction] = {}
        for prediction in self.folder.iter_predictions():
            self._attempts[prediction.sample_id] = prediction.attempts
            if prediction.sample_id in predictions:
                written[prediction.sample_id] = prediction
        self._unwritten = [
            prediction
            for sample_id, prediction in predictions.items()
            if written.get(sample_id) != prediction
        ]
        return self.finished

    async def run(self, owed: Sequence[int]) -> bool:
        """Predict the owed samples; returns False if an interrupt ended the run early.

        Raises:
            UsageError: the method needs something that the data does not have.
            BackendDown: no call succeeds any more; finished samples are on disk.
            RunError: the disk is full, or the method's `prepare` fails.
        """
        check_requirements(self.method, self.dataset)
        number_tasks()
        for prediction in self._unwritten:
            self._output.append(self._output.predictions_path, prediction)

        if owed:
            with watch_loop(self.block_limit):
                await self._prepare(owed)
                try:
                    await self._run_workers(owed)
                except BackendDown as failure:
                    if not self.task.sensitive:
                        raise
                    raise BackendDown(withhold(failure)) from None
                finally:
                    await self.method.close()

        return not self.progress.stopping

    async def _prepare(self, owed: Sequence[int]) -> None:
        """Everything before the first sample."""
        if self._refreshing and not self._rounds:
            self._output.rounds.delete()
        older_profiles = self._begin_refresh().profiles if self._refreshing else 0
        self._profiles.start(owed, skip_lines=older_profiles)

        if "population" in self.method.requirements():
            ctx = self._new_context("prepare", "")
            try:
                population = read_population(self.dataset)
                self.provenance["population"] = population.hash
                await self.method.prepare(population, ctx)
            except PluginError as fault:
                raise RunError(str(fault)) from fault
            self._population = population
            self._profiles.record("", User("prepare", ()), None, ctx)

    def _begin_refresh(self) -> RefreshState:
        # An interrupted run may have left replies, which are older than a refresh that begins now.
        if self.client.journal is not None and self._output.refresh.read() is None:
            self.client.journal.clear()
        return self._output.refresh.begin()

    async def _run_workers(self, owed: Sequence[int]) -> None:
        batches: Sequence[Sequence[int]] = SingleSamples(owed)
        if self._online:
            batches = group_by_user(self.dataset, owed)
        pending = iter(batches)
        workers = [
            asyncio.create_task(self._work(pending), name=f"worker {number}")
            for number in range(min(self.concurrency, len(batches)))
        ]
        working = asyncio.create_task(self._first_failure(workers), name="workers")
        endings: list[asyncio.Task[None]] = []

        def wind_down() -> None:
            self.progress.stopping = True
            endings.append(asyncio.create_task(self._stop(workers, working, self.grace)))

        def drop() -> None:
            self.progress.dropped = True
            endings.append(asyncio.create_task(self._stop(workers, working, 0.0)))

        try:
            with on_interrupt(wind_down, drop):
                await asyncio.wait([working])
        finally:
            await cancel_all([working, *endings])
            await self._abandon([*workers, *self._profiles.tasks])
        if not working.cancelled():
            working.result()

    async def _first_failure(self, workers: Sequence[asyncio.Task[None]]) -> None:
        """Wait for all workers, or let the others finish their current samples and raise the
        first failure."""
        done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        for worker in done:
            failure = None if worker.cancelled() else worker.exception()
            if failure is not None:
                self.progress.stopping = True
                await asyncio.wait(workers, timeout=self.grace)
                raise failure

    async def _stop(
        self,
        workers: Sequence[asyncio.Task[None]],
        working: asyncio.Task[None],
        grace: float,
    ) -> None:
        """End the workers after a time of grace, and the wait for those that cannot be ended."""
        await asyncio.wait(workers, timeout=grace)
        await self._abandon(workers)
        working.cancel()

    async def _abandon(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        """Cancel tasks; a plugin that swallows its cancellation is named once."""
        for call in await cancel_all(tasks):
            if call not in self._stubborn:
                self._stubborn.add(call)
                warn(f"{call} swallows its cancellation; catch `Exception`, not `BaseException`")

    async def _work(self, batches: Iterator[Sequence[int]]) -> None:
        for positions in batches:
            if self.progress.stopping:
                return
            if self._online:
                await self._run_trajectory(positions)
                continue

            if self.method.profiles and self.task.protocol == "static":
                self._profiles.look_ahead()
            act = self._converse if self.task.protocol == "dialogue" else self._answer
            self._finish(positions[0], *await self._predict(positions[0], act))

    def _finish(self, position: int, sample: Sample, prediction: Prediction) -> None:
        self._output.append(self._output.predictions_path, prediction)
        if prediction.error is None:
            self.client.finish(prediction.sample_id)
        self.progress.done += 1
        self.progress.failed += prediction.error is not None
        if self.observe is not None:
            self.observe(position, sample, prediction)

    async def _answer(
        self, sample: Sample, attempt: Attempt, ctx: Context | None = None
    ) -> tuple[str, Mapping[str, Any]]:
        view = self._view(sample)
        self._mapped_adapters.check(view)
        attempt.profile, state = await self._profiles.get(view)
        return await self.method.predict(view, state, ctx or attempt.ctx), {}

    async def _converse(self, sample: Sample, whole: Attempt) -> tuple[str, Mapping[str, Any]]:
        async def reply(
            variant: Sample, /, attempt: Try = ONLY_TRY, temperature: float | None = None
        ) -> str:
            whole.history = variant.history
            ctx = whole.ctx.repeating(attempt, temperature)
            answer, _ = await self._answer(variant, whole, ctx)
            whole.ctx.cited = ctx.cited
            return encodable(require_text(answer))

        if not isinstance(self.task, DialogueTask):
            raise UsageError(
                f"task {self.task.name} has protocol 'dialogue' but no method `converse`"
            )
        return await self.task.converse(sample, reply, whole.ctx, whole.simulator)

    async def _run_trajectory(self, positions: Sequence[int]) -> None:
        """A user's owed rounds.

        A failed round ends them, since the next one builds on its feedback.
        """
        user = self.dataset.index()[positions[0]][1]
        last = self._rounds.get(user)
        number = 0 if last is None else last.round
        state = None if last is None else last.state

        async def act(sample: Sample, attempt: Attempt) -> tuple[str, Mapping[str, Any]]:
            nonlocal state
            view = self._view(sample)
            if number == 0:
                attempt.profile, state = await self._profiles.get(view)

            # States pass through JSON before and after, so that a resumed trajectory sees the same
            # values.
            current = plain(state)
            answer = await self.method.predict(view, current, attempt.ctx)
            output = encodable(require_text(answer))
            if not isinstance(self.task, OnlineTask):
                raise UsageError(
                    f"task {self.task.name} has protocol 'online' but no method `react`"
                )
            feedback, interaction = await self.task.react(sample, output, attempt.simulator)
            state = plain(await self.method.update(current, feedback, attempt.learning))
            return output, interaction

        for position in positions:
            if self.progress.stopping:
                return
            sample, prediction = await self._predict(position, act)
            if prediction.error is None:
                number += 1
                self._output.rounds.write(Round(user, number, state, prediction))
            self._finish(position, sample, prediction)
            if prediction.error is not None:
                return

    async def _predict(self, position: int, act: Act) -> tuple[Sample, Prediction]:
        """A sample and its prediction; by a second attempt if the first taught the window."""
        sample, fault = self._load(position)
        attempt = self._new_attempt(sample)
        prediction = await self._make_prediction(sample, fault, act, attempt)
        # Another sample may have taught it meanwhile, so the two attempts' windows are compared.
        if attempt.is_too_long and attempt.windows != self._windows():
            refusal = prediction.error
            attempt = self._new_attempt(sample)
            prediction = await self._make_prediction(sample, fault, act, attempt)
            if prediction.error is not None and prediction.error != refusal:
                error = f"{prediction.error} (fitted after a refusal: {refusal})"
                prediction = msgspec.structs.replace(prediction, error=error)
        return sample, prediction

    def _learn_window(self, refusal: Refused, attempt: Attempt) -> None:
        """Note the context window that a refusal states, if prompts were not fitted to it."""
        window = refused_window(refusal.text)
        for client, fitted_to in zip(self._method_clients(), attempt.windows, strict=True):
            model = client.backend
            if model is not refusal.model or window is None or window >= (fitted_to or window + 1):
                continue
            attempt.is_too_long = True
            self._note_window(model, window)

    def _note_window(self, model: Backend, window: int) -> None:
        if model.window is None or window < model.window:
            model.window = window
            model.fit_thoughts()
            _log.info("the server states a window of %d tokens; prompts are fitted to it", window)

    async def _make_prediction(
        self, sample: Sample, fault: PluginError | None, act: Act, attempt: Attempt
    ) -> Prediction:
        """One attempt at a sample.

        Its own failures become part of the prediction; those of the run are raised.
        """
        output, parsed, error = None, None, None
        interaction: Mapping[str, Any] = {}
        shown: tuple[str, ...] | None = None
        try:
            if fault is not None:
                raise fault
            answer, interaction = await self._within_limit(act, sample, attempt)
            output = attempt.read_answer(encodable(require_text(answer)))
            parsed = self.task.parse(output, sample.view(), "lenient")
            if not output.strip():
                attempt.ctx.flag("empty_output")
            if attempt.notes:
                interaction = plain({**interaction, "method": attempt.notes})
            shown = attempt.list_shown(sample)
        except BackendError as failure:
            error = describe(failure, sensitive=self.task.sensitive)
            if not comes_from_models(failure):
                self.client.finish(sample.id)
            if isinstance(failure, BrokenOff):
                attempt.ctx.flag("interrupted")
            if isinstance(failure, Refused):
                self._learn_window(failure, attempt)
        except PluginError as failure:
            self.client.finish(sample.id)
            error = encodable(describe(failure, sensitive=self.task.sensitive))
        except _SampleTimeout as failure:
            attempt.ctx.flag("timed_out")
            error = str(failure)
        except UsageError as failure:
            # The model's options concern every run; anything else is about this method.
            if comes_from_models(failure):
                raise
            raise MisfitError(f"method {self.method.name}: {failure}") from failure
        except RunError:
            raise
        except Exception as failure:
            TRACEBACKS.exception("sample %s", sample.id)
            self.client.finish(sample.id)
            reason = withhold(failure) if self.task.sensitive else describe_error(failure)
            error = encodable(f"{self.method.name}: {reason}")

        attempts = self._attempts.get(sample.id, 0) + 1
        return attempt.prediction(sample, output, parsed, interaction, shown, error, attempts)

    def _load(self, position: int) -> tuple[Sample, PluginError | None]:
        """Load a sample; one that the task fails to load is empty and comes with the fault."""
        try:
            sample = load_sample(self.dataset, position, self._index)
            if self._population is not None:
                sample = self._population.share_history(sample)
            return sample, None
        except PluginError as fault:
            sample_id, user_id = self._index[position]
            return Sample(sample_id, user_id, ""), fault

    async def _within_limit(
        self, act: Act, sample: Sample, attempt: Attempt
    ) -> tuple[str, Mapping[str, Any]]:
        """Answer a sample within the time that it may take.

        Raises:
            _SampleTimeout: it takes longer; the answer is not waited for.
        """
        if self.sample_timeout is None:
            return await act(sample, attempt)

        started = time.monotonic()
        answering = asyncio.create_task(_start(act, sample, attempt), name=f"sample {sample.id}")
        try:
            await asyncio.wait([answering], timeout=self.sample_timeout)
            call = find_plugin_call(suspended_stack(answering))
        finally:
            if not answering.done():
                await self._abandon([answering])

        # An answer that blocked the loop arrives late, although it was not interrupted.
        if time.monotonic() - started > self.sample_timeout:
            raise _SampleTimeout(
                f"{call or type(self.method).__name__}: the sample took longer than "
                f"--sample-timeout {self.sample_timeout:g}"
            )
        return answering.result()

    def _method_clients(self) -> list[Client]:
        """The clients of the models that a method calls."""
        profilers = [self.roles["profiler"]] if "profiler" in self.roles else []
        return [self.client, *profilers]

    def _windows(self) -> list[int | None]:
        """The windows that prompts of the method are fitted to, by model."""
        return [client.window for client in self._method_clients()]

    def _new_attempt(self, sample: Sample) -> Attempt:
        user_id, sample_id = sample.user_id, sample.id
        simulator = self.roles.get("simulator", self.client)
        seed = self.spec.seed
        return Attempt(
            ctx=self._new_context("predict", user_id, sample_id),
            create_simulator=lambda: Role("simulator", simulator, user_id, seed, sample_id),
            create_learning=lambda: self._new_context("update", user_id, sample_id),
            windows=self._windows(),
        )

    def _view(self, sample: Sample) -> Sample:
        return sample.view(privileged=self.method.privileged)

    def _new_context(self, phase: Phase, unit: str, sample_id: str = "") -> Context:
        profiler = None
        if "profiler" in self.roles:
            profiler = Profiler(self.roles["profiler"], self.profiler_prompts)
        return Context(
            task=self.task,
            client=self.client,
            embedders=self.embedders,
            sampling=self.spec.sampling,
            seed=self.spec.seed,
            phase=phase,
            unit=unit,
            sample_id=sample_id,
            prompts=self.prompts,
            profiler=profiler,
            may_profile=self.method.uses_profiler or self.method.profiles,
            artifacts=self.artifacts,
        )


class _SampleTimeout(Exception):
    """A sample that took longer than it may."""


async def _start(act: Act, sample: Sample, attempt: Attempt) -> tuple[str, Mapping[str, Any]]:
    """Call a protocol as a coroutine, of which a task can be made."""
    return await act(sample, attempt)
