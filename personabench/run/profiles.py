"""Profiles of users: made once, shared by a user's samples, stored under a hash of their inputs.

Within a run, a profile is made once even if others may not use it, such as one of empty or
truncated replies: a resumed run reads it from its folder.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from personabench.api.context import Context
from personabench.api.dataset import Dataset
from personabench.api.guard import TRACEBACKS
from personabench.api.memory import Memory
from personabench.api.method import Method, State
from personabench.api.shown import list_shown
from personabench.errors import BackendError
from personabench.hashing import digest
from personabench.models.cache import Cache
from personabench.models.client import Client
from personabench.results.run_folder import Profile, RunFolder
from personabench.results.spec import RunSpec
from personabench.run.attempt import comes_from_models, plain
from personabench.run.ingestion import Ingestion
from personabench.types import Call, Phase, Sample, User

REMEMBERED_USERS = 4096
"""Users whose profiles are held in memory; samples are ordered by user, so few return."""
REMEMBERED_MEMORIES = 32
"""The same for memories, whose states are as long as the history."""


class Profiles:
    """The profiles of one run.

    Args:
        new_context: makes the context that a profile is made with, given its phase and user.
        concurrency: profiles in progress at most.
    """

    def __init__(
        self,
        *,
        dataset: Dataset,
        method: Method,
        spec: RunSpec,
        folder: RunFolder,
        cache: Cache | None,
        client: Client,
        new_context: Callable[[Phase, str], Context],
        concurrency: int,
    ) -> None:
        self._dataset = dataset
        self._method = method
        self._spec = spec
        self._folder = folder
        self._cache = cache
        self._client = client
        self._new_context = new_context
        self._concurrency = concurrency
        self._tasks: OrderedDict[str, asyncio.Task[State]] = OrderedDict()
        self._in_progress: set[asyncio.Task[State]] = set()
        # Offsets of the run's own profiles, by their keys.
        self._recorded: dict[str, int] = {}
        self._upcoming: Sequence[int] = ()
        self._next = 0
        self._last_user = ""
        self._ingestion: Ingestion | None = None
        self._remembered = REMEMBERED_USERS
        if isinstance(method, Memory):
            self._remembered = REMEMBERED_MEMORIES
            self._ingestion = Ingestion(
                method=method,
                folder=folder,
                client=client,
                new_context=lambda user: new_context("profile", user),
                recorded=self._read_recorded,
                stored=self._stored,
            )

    @property
    def tasks(self) -> list[asyncio.Task[State]]:
        """The profiles in memory, finished or in progress."""
        return list(self._tasks.values())

    def start(self, positions: Sequence[int], skip_lines: int) -> None:
        """Prepare for samples; the first `skip_lines` profiles on disk are older than a refresh."""
        # The state behind an opaque one is gone with the process that made it.
        is_opaque = isinstance(self._method, Memory) and self._method.opaque
        self._recorded = {} if is_opaque else self._folder.profile_offsets(skip_lines)
        self._upcoming = positions

    async def get(self, view: Sample) -> tuple[str | None, State]:
        """The key and state of a sample's user; both None if the method keeps no profile."""
        if not self._method.profiles:
            return None, None

        key, task = self._task_for(view)
        try:
            # A sample that is cancelled must not take the profile from others that wait for it.
            return key, await asyncio.shield(task)
        except BackendError:
            # The user's next sample tries again.
            self._tasks.pop(key, None)
            raise

    def look_ahead(self) -> None:
        """Start profiles of users to come, so that offline work also keeps the model busy."""
        while self._next < len(self._upcoming) and len(self._in_progress) < self._concurrency:
            position = self._upcoming[self._next]
            self._next += 1
            user = self._dataset.index()[position][1]
            if user == self._last_user:
                continue

            self._last_user = user
            try:
                sample = self._dataset.load(position)
                self._task_for(sample.view(privileged=self._method.privileged))
            except Exception:
                TRACEBACKS.exception(
                    "profile of user %s; it fails again for each of their samples", user
                )

    def record(
        self,
        key: str,
        user: User,
        state: State,
        ctx: Context,
    ) -> None:
        """Append a profile to the run folder and store it for other runs.

        An empty key stands for work that belongs to no user.
        """
        shown = list_shown(user.history, ctx.sent) if key else None
        profile = Profile(user.id, key, state, tuple(ctx.calls), ctx.flags, shown=shown)
        self._keep(profile, ctx.is_storable)

    def _keep(self, profile: Profile, is_storable: bool) -> None:
        # A profile of empty or truncated replies serves this run only: the next one tries again.
        may_store = self._cache is not None and self._client.policy != "off"
        if profile.key and is_storable and may_store:
            artifact = {
                "state": profile.state,
                "calls": profile.calls,
                "flags": profile.flags,
                "shown": profile.shown,
            }
            assert self._cache is not None
            self._cache.put_artifact(profile.key, artifact)
        self._append(profile)

    def _task_for(self, view: Sample) -> tuple[str, asyncio.Task[State]]:
        user = User(view.user_id, self._method.visible(view))
        keys = self._list_keys(user)
        key = keys[-1]
        if key in self._tasks:
            return key, self._tasks[key]

        task = asyncio.create_task(self._make(keys, user), name="profile")
        self._tasks[key] = task
        self._in_progress.add(task)
        task.add_done_callback(self._in_progress.discard)
        while len(self._tasks) > self._remembered:
            self._tasks.popitem(last=False)
        return key, task

    def _list_keys(self, user: User) -> list[str]:
        """The key of a user's profile, after those of the states on the way to it."""
        if self._ingestion is None:
            return [self._key(user)]
        assert isinstance(self._method, Memory)
        retrieval = self._method.retrieval_params
        params = {name: value for name, value in self._spec.params.items() if name not in retrieval}
        return self._ingestion.list_keys(user, self._identify(params))

    def _key(self, user: User) -> str:
        """The hash of everything that determines a user's profile."""
        return digest(
            {
                # Another word than in earlier versions, whose states may hold a model's thoughts.
                "artifact": "profile of answers",
                **self._identify(self._spec.params),
                "user": user.id,
                "history": user.history,
            }
        )

    def _identify(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """All that determines profiles beside the user."""
        spec = self._spec
        needs_population = "population" in self._method.requirements()
        method = [spec.method, spec.method_hash, self._method.version, params]
        # Left out when unset, as in `_task_identity`.
        if spec.prompts is not msgspec.UNSET and not spec.profiler:
            method.append(spec.prompts)
        return {
            "method": method,
            "task": self._task_identity(),
            # A profile of the profiler serves every model under test.
            "model": spec.profiler or spec.model,
            # Methods see answers only, however these are scored.
            # A limit of what answers are shown leaves profiles as they are.
            "sampling": msgspec.structs.replace(
                spec.sampling, reading=msgspec.UNSET, memory_tokens=msgspec.UNSET
            ),
            "seed": spec.seed,
            "window": None if spec.profiler else spec.window,
            "population": spec.data_hash if needs_population else None,
        }

    def _task_identity(self) -> list[Any]:
        spec = self._spec
        identity = [spec.task, spec.task_hash, spec.task_version, spec.task_params]
        # Left out when unset, so that profiles of earlier versions keep their keys.
        if spec.tokenizer is not msgspec.UNSET:
            identity.append(spec.tokenizer)
        return identity

    async def _make(self, keys: Sequence[str], user: User) -> State:
        key = keys[-1]
        recorded = self._read_recorded(key)
        if recorded is not None:
            return recorded.state
        is_opaque = isinstance(self._method, Memory) and self._method.opaque
        stored = None if is_opaque else self._stored(key, user.id)
        if stored is not None:
            self._append(stored)
            return stored.state
        if self._ingestion is not None:
            profile, is_storable = await self._ingestion.ingest(user, keys)
            self._keep(profile, is_storable)
            return profile.state

        ctx = self._new_context("profile", user.id)
        try:
            state = plain(await self._method.profile(user, ctx))
        except Exception as error:
            if not comes_from_models(error):
                self._client.finish(ctx.work)
            raise
        self.record(key, user, state, ctx)
        self._client.finish(ctx.work)
        return state

    def _read_recorded(self, key: str) -> Profile | None:
        """A profile that this run has made."""
        offset = self._recorded.get(key)
        return None if offset is None else self._folder.profile(offset)

    def _stored(self, key: str, user_id: str) -> Profile | None:
        """A profile made by an earlier run."""
        if self._cache is None or self._client.policy not in ("use", "only"):
            return None

        artifact = self._cache.artifact(key)
        if artifact is None:
            return None
        calls = tuple(Call(**{**call, "cached": True}) for call in artifact["calls"])
        # Profiles that earlier versions stored do not say what they were made from.
        shown = artifact.get("shown")
        return Profile(
            user_id,
            key,
            artifact["state"],
            calls,
            artifact["flags"],
            reused=True,
            shown=None if shown is None else tuple(shown),
        )

    def _append(self, profile: Profile) -> None:
        if profile.key not in self._recorded:
            offset = self._folder.append(self._folder.profiles_path, profile)
            self._recorded[profile.key] = offset
