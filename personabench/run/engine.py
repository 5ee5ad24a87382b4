"""The run: owed samples in, prediction lines out.

A fixed number of workers pulls samples, in an order that keeps a user's samples together.  Each worker takes a sample
from its user's profile to its prediction and appends the line, so nothing waits for a stage to end and nothing
finished can be lost.  In an online task the unit is a user: rounds come one after the other, and the state after each
is kept before its line is.  The first interrupt lets what is in flight finish, the second drops it.
"""

from __future__ import annotations

import asyncio
import signal
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from personabench.api.compatibility import check_requirements
from personabench.api.context import Context
from personabench.api.dataset import Dataset
from personabench.api.dialogue import DialogueTask
from personabench.api.guard import TRACEBACKS, plugin_guard
from personabench.api.method import Method, State
from personabench.api.online import OnlineTask
from personabench.api.population import Population
from personabench.api.task import Task
from personabench.errors import BackendError, BrokenOff, RunError, UsageError
from personabench.hashing import digest
from personabench.models.cache import Cache
from personabench.models.client import Client, encodable
from personabench.models.roles import Role, RoleName
from personabench.results.run_folder import Profile, RefreshState, Round, RunFolder
from personabench.results.spec import RunSpec
from personabench.retrieval.embedders import Embedders
from personabench.run.attempt import Act, Attempt, SingleSamples, by_user, plain, require_text
from personabench.run.progress import Progress
from personabench.types import Call, Phase, Prediction, Sample, User

GRACE = 20.0
REMEMBERED_USERS = 4096


@dataclass
class Engine:
    """One run of one method on one task.

    Attributes:
        task, dataset, method, spec: what is run.
        client, embedders, cache: what it runs on.
        folder: where it is kept, already started.
        roles: the clients of the simulated user and the judge; a role without one asks the model under test.
        concurrency: how many samples are under way at once.
        grace: seconds that in-flight samples get after an interrupt.
        judged: a judge follows, so a refresh does not end with the last prediction.
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
    roles: Mapping[RoleName, Client] = field(default_factory=dict)
    judged: bool = False
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        self._profiles: OrderedDict[str, asyncio.Task[State]] = OrderedDict()
        self._studying: set[asyncio.Task[State]] = set()
        self._todo: Sequence[int] = ()
        self._ahead = 0
        self._last_seen = ""
        self._recorded: set[str] = set()
        self.finished: set[str] = set()
        self.provenance: dict[str, str] = {}
        self._attempts: dict[str, int] = {}
        self._rounds: dict[str, Round] = {}
        self._unwritten: list[Prediction] = []

    def owed(self, positions: Sequence[int]) -> list[int]:
        """The positions whose samples have no successful prediction yet; `finished` then holds the others' ids.

        With the cache policy "refresh" everything is owed again but what a refresh under way has made already.  In an
        online task only rounds up to a user's last kept one are finished.
        """
        latest: dict[str, Prediction] = {}
        index, fresh = self.dataset.index(), set[str]()
        renewal = self.folder.renewal() if self.client.policy == "refresh" else RefreshState(0, 0)
        again = renewal is None
        if self.task.protocol == "online":
            self._resume(index, again)
        kept = {each.prediction.sample_id for each in self._rounds.values()}
        for number, line in enumerate(self.folder.iter_predictions()):
            self._attempts[line.sample_id] = line.attempts
            if line.sample_id in kept:
                latest[line.sample_id] = line
            if self.task.protocol != "online":
                (self.finished.discard if line.error else self.finished.add)(line.sample_id)
                if renewal and number >= renewal.predictions and not line.error:
                    fresh.add(line.sample_id)
        self._unwritten = [
            each.prediction
            for each in self._rounds.values()
            if latest.get(each.prediction.sample_id) != each.prediction
        ]
        made = self.finished if self.task.protocol == "online" else self.finished & fresh
        owed = [position for position in positions if index[position][0] not in made]
        self.progress = Progress(total=len(positions), before=len(positions) - len(owed))
        return owed

    def _resume(self, index: Sequence[tuple[str, str]], again: bool) -> None:
        """Take up every user's trajectory after the last round that was kept, or from its start."""
        rounds: dict[str, list[str]] = {}
        for sample_id, user in index:
            rounds.setdefault(user, []).append(sample_id)
        self._rounds = (
            {}
            if again
            else {user: kept for user in rounds if (kept := self.folder.round(user)) is not None}
        )
        for user, kept in self._rounds.items():
            self.finished.update(rounds[user][: kept.round])

    async def run(self, owed: Sequence[int]) -> bool:
        """Predict what is owed; returns False when an interrupt cut it short.

        Raises:
            UsageError: the method needs something the data does not have.
            BackendDown: no call succeeds any more; what was finished is on disk.
            RunError: the disk is full, or the method's `prepare` fails.
        """
        check_requirements(self.method, self.dataset)
        for prediction in self._unwritten:
            self.folder.append(self.folder.predictions_path, prediction)
        refresh = self.client.policy == "refresh"
        if not owed:
            if refresh and not self.judged:
                self.folder.renewed()
            return True
        if refresh and not self._rounds:
            self.folder.delete_rounds()
        self._recorded = set(self.folder.profiles(self.folder.renew().profiles if refresh else 0))
        if "population" in self.method.requirements():
            ctx = self._context("prepare", "")
            population = Population(self.dataset.population())
            self.provenance["population"] = population.hash
            with plugin_guard(type(self.method), "prepare", RunError):
                await self.method.prepare(population, ctx)
            self._record("", "prepare", None, ctx)
        self._todo = owed
        batches = (
            by_user(self.dataset, owed) if self.task.protocol == "online" else SingleSamples(owed)
        )
        pending = iter(batches)
        workers = [
            asyncio.create_task(self._work(pending), name=f"worker {number}")
            for number in range(min(self.concurrency, len(batches)))
        ]
        restore = self._listen(workers)
        try:
            done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            failed = next(
                (task.exception() for task in done if not task.cancelled() and task.exception()),
                None,
            )
            if failed is not None:
                self.progress.stopping = True
                await self._wind_down(workers)
                raise failed
        finally:
            restore()
            await self._let_go([*workers, *self._profiles.values()])
        if refresh and not self.judged and not self.progress.stopping and not self.progress.failed:
            self.folder.renewed()
        return not self.progress.stopping

    async def _work(self, batches: Iterator[Sequence[int]]) -> None:
        for positions in batches:
            if self.progress.stopping:
                return
            if self.task.protocol == "online":
                await self._trajectory(positions)
                continue
            if self.method.profiles and self.task.protocol == "static":
                self._look_ahead()
            act = self._converse if self.task.protocol == "dialogue" else self._answer
            self._finish(await self._predict(self.dataset.load(positions[0]), act))

    def _finish(self, prediction: Prediction) -> None:
        self.folder.append(self.folder.predictions_path, prediction)
        self.progress.done += 1
        self.progress.failed += prediction.error is not None

    async def _answer(self, sample: Sample, turn: Attempt) -> tuple[str, Mapping[str, Any]]:
        view = self._view(sample)
        turn.profile, state = await self._state(view)
        return await self.method.predict(view, state, turn.ctx), {}

    async def _converse(self, sample: Sample, turn: Attempt) -> tuple[str, Mapping[str, Any]]:
        async def reply(variant: Sample) -> str:
            view = self._view(variant)
            turn.profile, state = await self._state(view)
            return encodable(require_text(await self.method.predict(view, state, turn.ctx)))

        if not isinstance(self.task, DialogueTask):
            raise UsageError(
                f"task {self.task.name} has protocol 'dialogue' but no method `converse`"
            )
        return await self.task.converse(sample, reply, turn.ctx, turn.simulator)

    async def _trajectory(self, positions: Sequence[int]) -> None:
        """A user's owed rounds; a round that fails ends them, since the next one would lack what it taught."""
        user = self.dataset.index()[positions[0]][1]
        kept = self._rounds.get(user)
        number, state = (0, None) if kept is None else (kept.round, kept.state)

        async def act(sample: Sample, turn: Attempt) -> tuple[str, Mapping[str, Any]]:
            nonlocal state
            view = self._view(sample)
            if number == 0:
                turn.profile, state = await self._state(view)
            current = plain(state)
            output = encodable(require_text(await self.method.predict(view, current, turn.ctx)))
            if not isinstance(self.task, OnlineTask):
                raise UsageError(
                    f"task {self.task.name} has protocol 'online' but no method `react`"
                )
            feedback, record = await self.task.react(sample, output, turn.simulator)
            state = plain(await self.method.update(current, feedback, turn.learning))
            return output, record

        for position in positions:
            if self.progress.stopping:
                return
            prediction = await self._predict(self.dataset.load(position), act)
            if prediction.error is None:
                number += 1
                self.folder.keep(Round(user, number, state, prediction))
            self._finish(prediction)
            if prediction.error is not None:
                return

    async def _predict(self, sample: Sample, act: Act) -> Prediction:
        turn = Attempt(
            self._context("predict", sample.user_id),
            Role(
                "simulator",
                self.roles.get("simulator", self.client),
                sample.user_id,
                self.spec.seed,
            ),
            self._context("update", sample.user_id),
        )
        output, parsed, error = None, None, None
        record: Mapping[str, Any] = {}
        try:
            answer, record = await act(sample, turn)
            output = encodable(require_text(answer))
            parsed = self.task.parse(output, sample.view(), "lenient")
            if not output.strip():
                turn.ctx.flag("empty_output")
            if turn.notes:
                record = plain({**record, "method": turn.notes})
        except BackendError as failure:
            error = str(failure)
            if isinstance(failure, BrokenOff):
                turn.ctx.flag("interrupted")
        except (RunError, UsageError):
            raise
        except Exception as failure:
            TRACEBACKS.exception("sample %s", sample.id)
            error = encodable(f"{type(failure).__name__} in {self.method.name}: {failure}")
        attempts = self._attempts.get(sample.id, 0) + 1
        return turn.prediction(sample, output, parsed, record, error, attempts)

    def _view(self, sample: Sample) -> Sample:
        return sample.view(privileged=self.method.privileged)

    async def _state(self, sample: Sample) -> tuple[str | None, State]:
        if not self.method.profiles:
            return None, None
        key, pending = self._studied(sample)
        try:
            return key, await asyncio.shield(pending)
        except BackendError:
            self._profiles.pop(key, None)
            raise

    def _look_ahead(self) -> None:
        """Start the profiles of users to come, so that offline work fills the model as well as online work does."""
        while self._ahead < len(self._todo) and len(self._studying) < self.concurrency:
            position = self._todo[self._ahead]
            self._ahead += 1
            user = self.dataset.index()[position][1]
            if user != self._last_seen:
                self._last_seen = user
                try:
                    self._studied(self._view(self.dataset.load(position)))
                except Exception:
                    TRACEBACKS.exception("user %s; the samples of the user will say so", user)

    def _studied(self, sample: Sample) -> tuple[str, asyncio.Task[State]]:
        """The key of a user's profile as of a sample, and the one task that makes it."""
        user = User(sample.user_id, self.method.visible(sample))
        key = digest(
            {
                "artifact": "profile of answers",  # states of older keys may hold what the model thought
                "method": [
                    self.spec.method,
                    self.spec.method_hash,
                    self.method.version,
                    self.spec.params,
                ],
                "task": [
                    self.spec.task,
                    self.spec.task_hash,
                    self.spec.task_version,
                    self.spec.task_params,
                ],
                "model": self.spec.model,
                "sampling": self.spec.sampling,
                "seed": self.spec.seed,
                "window": self.spec.window,
                "population": self.spec.data_hash
                if "population" in self.method.requirements()
                else None,
                "user": user.id,
                "history": user.history,
            }
        )
        pending = self._profiles.get(key)
        if pending is None:
            pending = self._profiles[key] = asyncio.create_task(
                self._profile(key, user), name="profile"
            )
            self._studying.add(pending)
            pending.add_done_callback(self._studying.discard)
            while len(self._profiles) > REMEMBERED_USERS:
                self._profiles.popitem(last=False)
        return key, pending

    async def _profile(self, key: str, user: User) -> State:
        renewed = self.client.policy == "refresh" and key in self._recorded
        if self.cache is not None and (renewed or self.client.policy in ("use", "only")):
            stored = self.cache.artifact(key)
            if stored is not None:
                calls = tuple(Call(**{**call, "cached": True}) for call in stored["calls"])
                self._append_profile(
                    Profile(user.id, key, stored["state"], calls, stored["flags"], True)
                )
                return stored["state"]
        ctx = self._context("profile", user.id)
        state = plain(await self.method.profile(user, ctx))
        self._record(key, user.id, state, ctx)
        return state

    def _record(self, key: str, user: str, state: State, ctx: Context) -> None:
        profile = Profile(user, key, state, tuple(ctx.calls), ctx.flags)
        if key and ctx.settled and self.cache is not None and self.client.policy != "off":
            self.cache.put_artifact(
                key, {"state": state, "calls": profile.calls, "flags": profile.flags}
            )
        self._append_profile(profile)

    def _append_profile(self, profile: Profile) -> None:
        if profile.key not in self._recorded:
            self._recorded.add(profile.key)
            self.folder.append(self.folder.profiles_path, profile)

    def _context(self, phase: Phase, unit: str) -> Context:
        return Context(
            task=self.task,
            client=self.client,
            embedders=self.embedders,
            sampling=self.spec.sampling,
            seed=self.spec.seed,
            phase=phase,
            unit=unit,
        )

    def _listen(self, workers: Sequence[asyncio.Task[None]]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        winding: list[asyncio.Task[None]] = []

        def interrupted() -> None:
            if self.progress.stopping:
                self.progress.dropped = True
                for worker in workers:
                    worker.cancel()
                return
            self.progress.stopping = True
            winding.append(asyncio.create_task(self._wind_down(workers)))

        handled = []
        for name in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(name, interrupted)
                handled.append(name)
            except (NotImplementedError, RuntimeError, ValueError):
                continue

        def restore() -> None:
            for name in handled:
                loop.remove_signal_handler(name)
            for task in winding:
                task.cancel()

        return restore

    async def _wind_down(self, workers: Sequence[asyncio.Task[None]]) -> None:
        await asyncio.wait(workers, timeout=self.grace)
        await self._let_go(workers)

    async def _let_go(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        """Cancel what still runs and hear what failed, so that nothing outlives the run or complains later."""
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
