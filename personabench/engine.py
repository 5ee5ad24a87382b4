"""The run: owed samples in, prediction lines out.

A fixed number of workers pulls samples, in an order that keeps a user's samples together.  Each worker takes a sample
from its user's profile to its prediction and appends the line, so nothing waits for a stage to end and nothing
finished can be lost.  The first interrupt lets what is in flight finish, the second drops it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from personabench.cache import Cache
from personabench.client import Client
from personabench.context import Context
from personabench.errors import BackendError, RunError, UsageError
from personabench.hashing import digest
from personabench.method import Method, State
from personabench.population import Population
from personabench.retrieval.dense import Embedders
from personabench.runfolder import Profile, RunFolder
from personabench.spec import RunSpec
from personabench.task import Dataset, Task
from personabench.types import Call, Phase, Prediction, Sample, Usage, User, to_json

GRACE = 20.0
REMEMBERED_USERS = 4096
_log = logging.getLogger("personabench.engine")


@dataclass
class Progress:
    """Counters a display may read at any time; the engine only ever increments them."""

    total: int = 0
    before: int = 0
    done: int = 0
    failed: int = 0
    stopping: bool = False
    started: float = field(default_factory=time.monotonic)


@dataclass
class Engine:
    """One run of one method on one task.

    Attributes:
        task, dataset, method, spec: what is run.
        client, embedders, cache: what it runs on.
        folder: where it is kept, already started.
        concurrency: how many samples are under way at once.
        grace: seconds that in-flight samples get after an interrupt.
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

    def owed(self, positions: Sequence[int]) -> list[int]:
        """The positions whose samples have no successful prediction yet; `finished` then holds the others' ids.

        With the cache policy "refresh" everything is owed again.
        """
        for line in self.folder.iter_predictions():
            self._attempts[line.sample_id] = line.attempts
            (self.finished.discard if line.error else self.finished.add)(line.sample_id)
        index = self.dataset.index()
        again = self.client.policy == "refresh"
        owed = [position for position in positions if again or index[position][0] not in self.finished]
        self.progress = Progress(total=len(positions), before=len(positions) - len(owed))
        return owed

    async def run(self, owed: Sequence[int]) -> bool:
        """Predict what is owed; returns False when an interrupt cut it short.

        Raises:
            UsageError: the method needs something the data does not have.
            BackendDown: no call succeeds any more; what was finished is on disk.
            RunError: the disk is full.
        """
        check_requirements(self.method, self.dataset)
        if not owed:
            return True
        self._recorded = set() if self.client.policy == "refresh" else set(self.folder.profiles())
        if "population" in self.method.requirements():
            ctx = self._context("prepare", "")
            population = Population(self.dataset.population(), merge=not self.dataset.identified)
            self.provenance["population"] = population.hash
            await self.method.prepare(population, ctx)
            self._record("", "prepare", None, ctx)
        self._todo = owed
        samples = iter(owed)
        workers = [
            asyncio.create_task(self._work(samples), name=f"worker {number}")
            for number in range(min(self.concurrency, len(owed)))
        ]
        restore = self._listen(workers)
        try:
            done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            failed = next((task.exception() for task in done if not task.cancelled() and task.exception()), None)
            if failed is not None:
                self.progress.stopping = True
                await self._wind_down(workers)
                raise failed
        finally:
            restore()
            await self._let_go([*workers, *self._profiles.values()])
        return not self.progress.stopping

    async def _work(self, positions: Iterator[int]) -> None:
        for position in positions:
            if self.progress.stopping:
                return
            if self.method.profiles:
                self._look_ahead()
            sample = self.dataset.load(position).view()
            prediction = await self._predict(sample)
            self.folder.append(self.folder.predictions_path, prediction)
            self.progress.done += 1
            self.progress.failed += prediction.error is not None

    async def _predict(self, sample: Sample) -> Prediction:
        ctx = self._context("predict", sample.user_id)
        profile, output, parsed, error = None, None, None, None
        try:
            profile, state = await self._state(sample)
            answer = await self.method.predict(sample, state, ctx)
            if not isinstance(answer, str):
                raise TypeError(f"predict() returned {type(answer).__name__}, not text")
            output = answer
            parsed = self.task.parse(output, sample, "lenient")
            if not output.strip():
                ctx.flag("empty_output")
        except BackendError as failure:
            error = str(failure)
        except (RunError, UsageError):
            raise
        except Exception as failure:
            _log.exception("sample %s", sample.id)
            error = f"{type(failure).__name__} in {self.method.name}: {failure}"
        attempts = self._attempts.get(sample.id, 0) + 1
        usage = Usage(
            sum(call.input_tokens for call in ctx.calls),
            sum(call.output_tokens for call in ctx.calls),
            sum(call.cached_tokens for call in ctx.calls),
        )
        return Prediction(
            sample.id, sample.user_id, output, parsed, ctx.flags, tuple(ctx.calls), usage, error, attempts, profile
        )

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
                    self._studied(self.dataset.load(position).view())
                except Exception:
                    _log.exception("user %s; the samples of the user will say so", user)

    def _studied(self, sample: Sample) -> tuple[str, asyncio.Task[State]]:
        """The key of a user's profile as of a sample, and the one task that makes it."""
        user = User(sample.user_id, self.method.visible(sample))
        key = digest(
            {
                "artifact": "profile",
                "method": [self.spec.method, self.spec.method_hash, self.method.version, self.spec.params],
                "task": [self.spec.task, self.spec.task_version, self.spec.task_params],
                "model": self.spec.model,
                "sampling": self.spec.sampling,
                "seed": self.spec.seed,
                "window": self.spec.window,
                "population": self.spec.data_hash if "population" in self.method.requirements() else None,
                "user": user.id,
                "history": user.history,
            }
        )
        pending = self._profiles.get(key)
        if pending is None:
            pending = self._profiles[key] = asyncio.create_task(self._profile(key, user), name="profile")
            self._studying.add(pending)
            pending.add_done_callback(self._studying.discard)
            while len(self._profiles) > REMEMBERED_USERS:
                self._profiles.popitem(last=False)
        return key, pending

    async def _profile(self, key: str, user: User) -> State:
        if self.cache is not None and self.client.policy in ("use", "only"):
            stored = self.cache.artifact(key)
            if stored is not None:
                calls = tuple(Call(**{**call, "cached": True}) for call in stored["calls"])
                self._append_profile(Profile(user.id, key, stored["state"], calls, stored["flags"], True))
                return stored["state"]
        ctx = self._context("profile", user.id)
        state = msgspec.json.decode(to_json(await self.method.profile(user, ctx)))
        self._record(key, user.id, state, ctx)
        return state

    def _record(self, key: str, user: str, state: State, ctx: Context) -> None:
        profile = Profile(user, key, state, tuple(ctx.calls), ctx.flags)
        if key and self.cache is not None and self.client.policy != "off":
            self.cache.put_artifact(key, {"state": state, "calls": profile.calls, "flags": profile.flags})
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


def check_requirements(method: Method, dataset: Dataset) -> None:
    """Refuse, before any call, a method whose needs the data cannot meet.

    Raises:
        UsageError: what is missing and what to do instead.
    """
    if "dates" in method.requirements() and not dataset.dated:
        raise UsageError(
            f"method {method.name} sorts records by date, but {dataset.source} has records without one; "
            "use data with dates (LaMP's time separation has them) or another retriever"
        )


def select(dataset: Dataset, limit: int | None, seed: int) -> list[int]:
    """Positions of the samples to run, whole users together, in an order that depends on the seed alone.

    With a limit, users are taken from the permutation until at least `limit` samples are in, so that a smaller
    limit's samples are always the first ones of a larger limit's.
    """
    users: dict[str, list[int]] = {}
    for position, (_, user) in enumerate(dataset.index()):
        users.setdefault(user, []).append(position)
    order = sorted(users)
    random.Random(seed).shuffle(order)
    chosen: list[int] = []
    for user in order:
        if limit is not None and len(chosen) >= limit:
            break
        chosen += users[user]
    return chosen
