"""Ingestion: feed a user's history to a memory batch by batch, and keep every state.

The key of a state is a hash of all that determines it, the ingested records included, so that the
keys of a history's beginnings name the states to continue from: those of this run's profiles, of
its journal, or of earlier runs.  Parameters that only retrieval reads are no part of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from personabench.api.context import Context
from personabench.api.memory import Batch, Ingested, Memory, to_plain
from personabench.api.shown import list_shown
from personabench.hashing import digest
from personabench.models.client import Client
from personabench.results.memory_journal import JournalLine, MemoryJournal
from personabench.results.run_folder import Profile, RunFolder
from personabench.run.attempt import comes_from_models
from personabench.types import Call, User, to_json


@dataclass
class _Work:
    """A memory in progress: its state, and the work on it so far.

    Attributes:
        batches: number of batches that are in the state.
        is_storable: whether other runs may use the state.
    """

    ingested: Ingested
    batches: int
    calls: list[Call] = field(default_factory=list)
    flags: Counter[str] = field(default_factory=Counter)
    shown: dict[str, None] = field(default_factory=dict)
    is_storable: bool = True

    def add(self, line: JournalLine) -> None:
        self.calls += line.calls
        self.flags.update(line.flags)
        self.shown.update(dict.fromkeys(line.shown))
        self.is_storable &= line.is_storable

    def snapshot(self, key: str) -> JournalLine:
        """A line that stands for all batches so far."""
        return JournalLine(
            key,
            state=to_plain(self.ingested),
            calls=tuple(self.calls),
            flags=dict(self.flags),
            shown=tuple(self.shown),
            is_storable=self.is_storable,
        )


class Ingestion:
    """The ingestions of one run.

    Args:
        new_context: makes the context of a batch, given the user.
        recorded: finds a profile of this run by the key of its state; stored: one of an earlier
            run, for a user.
    """

    def __init__(
        self,
        *,
        method: Memory,
        folder: RunFolder,
        client: Client,
        new_context: Callable[[str], Context],
        recorded: Callable[[str], Profile | None],
        stored: Callable[[str, str], Profile | None],
    ) -> None:
        self._method = method
        self._folder = folder
        self._client = client
        self._new_context = new_context
        self._recorded = recorded
        self._stored = stored
        # A user's histories follow one another, so that a longer one continues a shorter one.
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def list_keys(self, user: User, identity: Mapping[str, Any]) -> list[str]:
        """List the keys of the states of a user: before the first batch, and after each.

        Args:
            identity: all that determines a state beside the records.
        """
        keys = [digest({"artifact": "memory", **identity, "user": user.id})]
        for batch in self._method.split(user.history):
            keys.append(digest([keys[-1], batch.records]))
        return keys

    async def ingest(self, user: User, keys: Sequence[str]) -> tuple[Profile, bool]:
        """Ingest a user's history; return the profile, and whether other runs may use it."""
        async with self._locks[user.id]:
            return await self._ingest(user, keys)

    async def _ingest(self, user: User, keys: Sequence[str]) -> tuple[Profile, bool]:
        journal = MemoryJournal(MemoryJournal.path_of(self._folder.path, user.id))
        work = None
        if not self._method.opaque:
            work = self._continue(journal, user, keys)
        if work is None:
            work = await self._begin(journal, user, keys[0])

        batches = self._method.split(user.history)
        for batch in batches[work.batches :]:
            await self._add_batch(journal, work, batch, user, keys[batch.number + 1])

        await self._end(work, user)
        flags: dict[str, float] = {**work.flags, **self._measure(work.ingested, user)}
        profile = Profile(
            user.id,
            keys[-1],
            to_plain(work.ingested),
            tuple(work.calls),
            flags,
            shown=tuple(work.shown),
        )
        return profile, work.is_storable and not self._method.opaque

    async def _begin(self, journal: MemoryJournal, user: User, key: str) -> _Work:
        ctx = self._new_context(user.id)
        try:
            work = _Work(await self._method.begin(ctx), 0)
        except Exception as error:
            self._forget_replies(ctx, error)
            raise
        work.add(_describe_work(key, (), ctx))
        if not self._method.opaque:
            journal.begin(work.snapshot(key))
        self._client.finish(ctx.work)
        return work

    async def _add_batch(
        self, journal: MemoryJournal, work: _Work, batch: Batch, user: User, key: str
    ) -> None:
        ctx = self._new_context(user.id)
        try:
            work.ingested = await self._method.extend(work.ingested, batch, ctx)
        except Exception as error:
            self._forget_replies(ctx, error)
            raise
        work.batches += 1
        line = _describe_work(key, batch.records, ctx)
        work.add(line)

        if not self._method.opaque:
            state = to_plain(work.ingested)
            has_outgrown = journal.append(msgspec.structs.replace(line, state=state))
            if has_outgrown:
                journal.begin(work.snapshot(key))
        # Only now are the batch's replies not needed any more.
        self._client.finish(ctx.work)

    async def _end(self, work: _Work, user: User) -> None:
        ctx = self._new_context(user.id)
        try:
            work.ingested = await self._method.end(work.ingested, ctx)
        except Exception as error:
            self._forget_replies(ctx, error)
            raise
        work.add(_describe_work("", user.history, ctx))
        self._client.finish(ctx.work)

    def _forget_replies(self, ctx: Context, error: Exception) -> None:
        """Forget the replies that a plugin failed on, which would make it fail again."""
        if not comes_from_models(error):
            self._client.finish(ctx.work)

    def _continue(self, journal: MemoryJournal, user: User, keys: Sequence[str]) -> _Work | None:
        """Find the state of the longest beginning of a history that was ingested before."""
        journal.repair()
        work, is_last = self._read_journal(journal, keys)
        done = work.batches if work else -1
        for count in range(len(keys) - 1, done, -1):
            profile = self._recorded(keys[count]) or self._stored(keys[count], user.id)
            if profile is not None:
                work, is_last = _resume_profile(profile, count), False
                break
        if work is None:
            return None

        if is_last:
            journal.resume(to_plain(work.ingested))
        elif work.batches < len(keys) - 1:
            journal.begin(work.snapshot(keys[work.batches]))
        return work

    def _read_journal(
        self, journal: MemoryJournal, keys: Sequence[str]
    ) -> tuple[_Work | None, bool]:
        """Read the last state that belongs to a history, and whether the journal ends with it."""
        counts = {key: count for count, key in enumerate(keys)}
        lines: list[JournalLine] = []
        last: tuple[int, int, Any] | None = None
        for line, state in journal.replay():
            lines.append(line)
            if line.key in counts:
                last = len(lines), counts[line.key], state
        if last is None:
            return None, False

        length, count, state = last
        work = _Work(_read_state(state), count)
        for line in lines[:length]:
            work.add(line)
        # A profile of this run may already have booked these calls.
        if self._recorded(keys[count]) is not None:
            work.calls = [_as_cached(call) for call in work.calls]
        return work, length == len(lines)

    def _measure(self, ingested: Ingested, user: User) -> dict[str, int]:
        """Measure a history and the state it became."""
        ctx = self._new_context(user.id)
        size = self._method.size(ingested.frozen)
        text = to_json(ingested.frozen)
        amounts = {"tokens": ctx.tokens.count(text), "bytes": len(text.encode()), **size}
        records = (ctx.task.describe(record) for record in user.history)
        return {
            "history_tokens": sum(map(ctx.tokens.count, records)),
            **{f"memory_state_{name}": amount for name, amount in amounts.items()},
        }


def _describe_work(key: str, records: Sequence[Any], ctx: Context) -> JournalLine:
    return JournalLine(
        key,
        record_ids=tuple(record.id for record in records),
        calls=tuple(ctx.calls),
        flags=dict(ctx.flags),
        shown=list_shown(records, ctx.sent),
        is_storable=ctx.is_storable,
    )


def _resume_profile(profile: Profile, count: int) -> _Work:
    work = _Work(_read_state(profile.state), count)
    work.calls = [_as_cached(call) for call in profile.calls]
    work.flags = Counter(
        {
            name: amount
            for name, amount in profile.flags.items()
            if name != "history_tokens" and not name.startswith("memory_state_")
        }
    )
    work.shown = dict.fromkeys(profile.shown or ())
    return work


def _read_state(state: Any) -> Ingested:
    # Through JSON, so that keys are in the order that they have in a state read from disk.
    ingested = msgspec.convert(msgspec.json.decode(to_json(state)), Ingested)
    return msgspec.structs.replace(ingested, final={})


def _as_cached(call: Call) -> Call:
    return msgspec.structs.replace(call, cached=True)
