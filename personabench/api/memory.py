"""The `Memory` interface: a method that learns a user's history batch by batch, then is frozen.

    class Verbatim(Memory):
        "Store every record; show the newest."
        unit = "record"

        async def start(self, ctx):
            return []

        async def ingest(self, state, batch, ctx):
            text = "\\n".join(ctx.task.describe(record) for record in batch.records)
            return [*state, {"text": text, "ids": list(batch.record_ids)}]

        async def retrieve(self, state, query, ctx, now):
            return [MemoryItem(item["text"], item["ids"]) for item in reversed(state)]

The engine feeds batches in the order of time, keeps the state after every one, and continues from
it.  A memory owns neither the request for the answer nor the clock: the task asks the reader, and
`now` comes from the data.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import msgspec

from personabench.api.contracts import MEMORY, guard_methods
from personabench.api.deltas import apply_delta, make_delta
from personabench.api.guard import explain_result
from personabench.api.memory_batches import Batch, Unit, split_batches
from personabench.api.memory_items import MemoryItem
from personabench.api.method import Method, State
from personabench.errors import UsageError
from personabench.types import Record, Sample, User, to_json

if TYPE_CHECKING:
    from personabench.api.context import Context
    from personabench.types import Message

__all__ = ["Batch", "Ingested", "Memory", "MemoryItem", "Unit"]

# More than the samples in progress at once.
_OPEN_ROUNDS = 4096
_OWNED = ("predict", "profile", "update", "visible")


class Ingested(msgspec.Struct, frozen=True, omit_defaults=True):
    """A memory's state with its position in the history.

    Attributes:
        batches, records: numbers of them that were ingested.
        time: of the last record (see `Batch.time`); empty before the first.
        memory: the state that the memory made.
        final: what `finish` changed of it for questions, as a delta.
    """

    batches: int
    records: int
    time: str
    memory: Any
    final: Mapping[str, Any] = {}

    @property
    def frozen(self) -> Any:
        """The state that questions are asked of."""
        return apply_delta(self.memory, self.final)


class _Round(NamedTuple):
    """A round of an online task between the answer and the reaction."""

    question: str
    recalled: list[str]
    now: str


class Memory(Method):
    """A memory system: `start`, `ingest` each batch, then `retrieve` for each question.

    Attributes:
        unit: the records of a batch: a single record, an exchange (a record with both sides, or two
            turns in a row of different speakers), a session or a day.  A parameter `unit` wins.
        retrieval_params: parameters that only retrieval reads.  Runs that differ in these alone
            share the ingested state.
        opaque: the state lives elsewhere, so that it cannot be continued: an interrupted ingestion
            starts again.
        separator: the text between items in the request.
        external: True if it needs a server or a package of the user's, without which it cannot run.
    """

    unit: ClassVar[Unit] = "exchange"
    retrieval_params: ClassVar[Sequence[str]] = ("memory_tokens",)
    opaque: ClassVar[bool] = False
    external: ClassVar[bool] = False
    separator: ClassVar[str] = "\n"
    needs: ClassVar[Sequence[str]] = ("history|feedback",)

    @dataclasses.dataclass(frozen=True)
    class Params:
        """memory_tokens: tokens of the request that retrieved items may take; 0 for no limit."""

        memory_tokens: int = 2000

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        # Rounds that are not closed yet, by sample.
        self._rounds: dict[str, _Round] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        owned = [name for name in _OWNED if name in cls.__dict__]
        if owned:
            raise UsageError(
                f"memory {cls.__name__} defines `{owned[0]}`, which belongs to the engine: a "
                "memory has start, ingest, retrieve and size, and the task asks for the answer"
            )
        guard_methods(cls, MEMORY)

    @abstractmethod
    async def start(self, ctx: Context) -> State:
        """Return the state before the first batch, as JSON."""

    @abstractmethod
    async def ingest(self, state: State, batch: Batch, ctx: Context) -> State:
        """Return the state after a batch, as JSON; the given state may be changed in place."""

    @abstractmethod
    async def retrieve(
        self, state: State, query: str, ctx: Context, now: str
    ) -> Sequence[MemoryItem]:
        """Return the items for a question, best first; the state must stay as it is.

        Args:
            query: the text to search with.
            now: the question's date, else the time of the last record; never the clock's.
        """

    def size(self, state: State) -> Mapping[str, int]:
        """Return the number of items in a state; a list or a list under `items` by default."""
        items = state.get("items", ()) if isinstance(state, Mapping) else state
        return {"items": len(items) if isinstance(items, Mapping | list | tuple) else 0}

    async def finish(self, state: State, ctx: Context) -> State:
        """Return the state that questions are asked of, such as one with a summary of everything.

        It is called when the history has ended, and after each round of an online task.  A longer
        history continues from the state without it.
        """
        return state

    def reinforce(self, state: State, keys: Sequence[str], now: str) -> State:
        """Return the state after items were recalled, by their keys; the state itself by default.

        Only online tasks, whose rounds have an order, let questions change a state.
        """
        return state

    # The engine's part ---------------------------------------------------------------------------

    def split(self, history: Sequence[Record]) -> list[Batch]:
        """Split a history into the batches that are ingested, in the order of time."""
        return split_batches(history, getattr(self.params, "unit", self.unit))

    async def begin(self, ctx: Context) -> Ingested:
        """Return the state before the first batch."""
        return Ingested(0, 0, "", plain(await self.start(ctx)))

    async def extend(self, ingested: Ingested, batch: Batch, ctx: Context) -> Ingested:
        """Return the state after a further batch."""
        # A copy, since the memory may change it and then fail.
        state = await self.ingest(plain(ingested.memory), batch, ctx)
        return Ingested(
            ingested.batches + 1,
            ingested.records + len(batch.records),
            batch.time,
            plain(state),
        )

    async def end(self, ingested: Ingested, ctx: Context) -> Ingested:
        """Return the state with what `finish` makes of it."""
        final = await self.finish(plain(ingested.memory), ctx)
        return msgspec.structs.replace(ingested, final=make_delta(ingested.memory, plain(final)))

    async def profile(self, user: User, ctx: Context) -> State:
        """Ingest a whole history at once; a run keeps the state after every batch instead."""
        ingested = await self.begin(ctx)
        for batch in self.split(user.history):
            ingested = await self.extend(ingested, batch, ctx)
        return to_plain(await self.end(ingested, ctx))

    async def predict(self, sample: Sample, state: State, ctx: Context) -> str:
        """Retrieve from the frozen state, and have the task ask for the answer.

        Raises:
            PluginError: `retrieve` changed the state.
        """
        ingested = await self._read(state, ctx)
        if not ingested.records:
            ctx.flag("empty_profile")

        query = ctx.task.query_text(sample)
        now = sample.time or ingested.time
        items = await self._retrieve_frozen(ingested.frozen, query, ctx, now)
        shown = self._cut(items, ctx)
        messages, shown = self._fit(sample, shown, ctx)
        self._report(shown, ctx)
        recalled = [item.key for item in shown if item.key]
        self._open_round(ctx.sample_id, _Round(sample.stimulus or sample.input, recalled, now))
        response = await ctx.complete(messages, max_tokens=ctx.answer_tokens)
        return response.text.strip()

    def _open_round(self, sample_id: str, opened: _Round) -> None:
        """Remember a round until its feedback, which most tasks do not have."""
        self._rounds[sample_id] = opened
        while len(self._rounds) > _OPEN_ROUNDS:
            del self._rounds[next(iter(self._rounds))]

    async def update(self, state: State, feedback: Any, ctx: Context) -> State:
        """Ingest a round of an online task: its question with the user's reaction."""
        ingested = await self._read(state, ctx)
        question, recalled, now = self._rounds.pop(ctx.sample_id, _Round("", [], ""))
        memory = self.reinforce(plain(ingested.memory), recalled, now)
        ingested = msgspec.structs.replace(ingested, memory=plain(memory))

        record = Record(ctx.sample_id, question or None, describe_feedback(feedback))
        batch = Batch(ingested.batches, (record,), str(ingested.records + 1))
        ingested = await self.extend(ingested, batch, ctx)
        return to_plain(await self.end(ingested, ctx))

    async def _read(self, state: State, ctx: Context) -> Ingested:
        """Read a stored state; one of a user without history is begun."""
        if state is None:
            return await self.begin(ctx)
        return msgspec.convert(state, Ingested)

    async def _retrieve_frozen(
        self, memory: State, query: str, ctx: Context, now: str
    ) -> Sequence[MemoryItem]:
        before = to_json(memory)
        copy = msgspec.json.decode(before)
        items = await self.retrieve(copy, query, ctx, now)
        if to_json(copy) != before:
            problem = "it changed the state, which questions must leave as it is"
            raise explain_result(self, "retrieve", "items of a frozen state", problem)
        return items

    def _cut(self, items: Sequence[MemoryItem], ctx: Context) -> list[MemoryItem]:
        """Keep the best whole items within `memory_tokens`; flag the others."""
        budget = getattr(self.params, "memory_tokens", Memory.Params.memory_tokens)
        # The run's own limit holds for all methods alike.
        shared = ctx.sampling.memory_tokens
        if shared is not msgspec.UNSET:
            budget = min(budget, shared) if budget else shared
        filled = [item for item in items if item.text]
        if not budget:
            return filled

        # Counting every beginning as a whole would take quadratic time.
        used = 0
        shown: list[MemoryItem] = []
        for item in filled:
            tokens = ctx.tokens.count(item.text)
            if used + tokens > budget and shown:
                break
            # A first item that alone exceeds the budget must not hide the others.
            if tokens <= budget:
                shown.append(item)
                used += tokens
        while shown and self._count_tokens(shown, ctx) > budget:
            shown.pop()
        if len(shown) < len(filled):
            ctx.flag("memory_over_budget", len(filled) - len(shown))
        return shown

    def _fit(
        self, sample: Sample, items: list[MemoryItem], ctx: Context
    ) -> tuple[Sequence[Message], list[MemoryItem]]:
        """Render the task's request with as many items as fit the model's window."""
        count = 0

        def build(records: Sequence[Record]) -> Sequence[Message]:
            nonlocal count
            count = len(records)
            return ctx.word(sample, (), self._join(items[:count])).messages

        # `fit` drops records, so that every item stands in as one.
        stand_ins = [Record(str(number)) for number in range(len(items))]
        messages = ctx.fit(build, stand_ins, ctx.answer_tokens)
        return messages, items[:count]

    def _join(self, items: Sequence[MemoryItem]) -> str:
        return self.separator.join(item.text for item in items)

    def _count_tokens(self, items: Sequence[MemoryItem], ctx: Context) -> int:
        return ctx.tokens.count(self._join(items)) if items else 0

    def _report(self, shown: Sequence[MemoryItem], ctx: Context) -> None:
        """Note the sources and the tokens of the items in the request."""
        parts: dict[str, int] = {}
        for item in shown:
            parts[item.part] = parts.get(item.part, 0) + 1
        tokens = self._count_tokens(shown, ctx)
        ctx.note("memory", {"items": len(shown), "tokens": tokens, "parts": parts})
        ctx.flag("memory_tokens", tokens)
        ctx.flag("memory_items", len(shown))

        if any(item.record_ids is None for item in shown):
            ctx.cite(None)
        else:
            ids = (record_id for item in shown for record_id in item.record_ids or ())
            ctx.cite(tuple(dict.fromkeys(ids)))


def plain(value: Any) -> Any:
    """A JSON value as it would be read back from disk."""
    return msgspec.json.decode(to_json(value))


def to_plain(ingested: Ingested) -> Any:
    """Write a state with its position as plain JSON."""
    return msgspec.to_builtins(ingested)


def describe_feedback(feedback: Any) -> str:
    """Write the user's reaction as text: the edited answer, or all texts of the feedback."""
    if not isinstance(feedback, Mapping):
        return str(feedback)
    if isinstance(feedback.get("edited"), str):
        return str(feedback["edited"])
    return "\n".join(f"{name}: {value}" for name, value in feedback.items())


def days_between(earlier: str, later: str) -> float:
    """Return the days between two times; the records between them where history has no dates."""
    first, last = _read_time(earlier), _read_time(later)
    if isinstance(first, datetime) and isinstance(last, datetime):
        # An offset that one of them lacks would make them incomparable.
        difference = last.replace(tzinfo=None) - first.replace(tzinfo=None)
        return max(0.0, difference.total_seconds() / 86_400)
    if isinstance(first, float) and isinstance(last, float):
        return max(0.0, last - first)
    return 0.0


def _read_time(time: str) -> datetime | float | None:
    try:
        return float(time)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(time)
    except ValueError:
        return None
