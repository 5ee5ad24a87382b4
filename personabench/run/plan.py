"""Plans: the calls, tokens and price of a run, without a model call.

A dry run (see `dry_run`) counts the calls that are expected.  Further dry runs, with other replies,
bound calls, tokens and price.  If no call depends on a reply, one dry run bounds them alone.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from personabench.api.dataset import Dataset
from personabench.errors import RunError, UsageError
from personabench.models.backends.base import Backend
from personabench.models.backends.scripted import fill_schema
from personabench.models.budget import Budget, Prices
from personabench.models.cache import Cache, Policy, difference
from personabench.results.run_folder import RunFolder
from personabench.retrieval.embedders import Embedders
from personabench.run.dry_run import DryRunClient, FillerStyle, PlannedCall, Work
from personabench.run.engine import Engine
from personabench.run.judging import judge, unjudged
from personabench.run.openings import Openings
from personabench.run.options import Options
from personabench.run.resolve import ResolvedRun, resolve
from personabench.run.run_facts import changed_params
from personabench.run.session import create_engine, identified_models
from personabench.types import Record, Request, Response

Change = Mapping[str, Any]
"""Attributes of a filler style that differ from those of the expected way."""


@dataclass
class RunPlan(Work):
    """The work that one run still needs, as expected.

    Attributes:
        owed: samples without a prediction.
        concurrency: calls in flight, unless the options say another number.
        over_window: samples whose history does not fit the model's window.
        changed: parameters that are not at their defaults, those of the task as `task.NAME`.
        ways: the ways that the run may go, which bound it.
    """

    task: str = ""
    method: str = ""
    model: str = ""
    owed: int = 0
    concurrency: int = 1
    over_window: int = 0
    changed: dict[str, Any] = field(default_factory=dict)
    ways: Sequence[Work] = ()

    def least(self, amount: str) -> int:
        """The lower bound of an amount, such as "calls"."""
        return int(min(getattr(way, amount) for way in self.ways))

    def most(self, amount: str) -> int:
        """The upper bound of an amount."""
        return int(max(getattr(way, amount) for way in self.ways))

    def as_dict(self, prices: Prices) -> dict[str, Any]:
        """A plain row for tables and JSON: lower bounds, and upper ones as `*_at_most`."""
        row: dict[str, Any] = {
            "task": self.task,
            "method": self.method,
            "model": self.model,
            "owed": self.owed,
            "over_window": self.over_window,
            "changed": self.changed,
        }
        for name, amount in _AMOUNTS.items():
            row[name] = self.least(amount)
            row[f"{name}_at_most"] = self.most(amount)
        fewest = min(self.ways, key=lambda way: way.total)
        row |= {
            "calls_by_phase": fewest.calls,
            "calls_expected": self.calls,
            "cached": fewest.cached,
        }

        amounts = [way.price(prices) for way in self.ways]
        known = [amount for amount in amounts if amount is not None]
        is_known = len(known) == len(amounts) and (self.total or self.model in prices)
        row["price"] = min(known) if is_known else None
        row["price_at_most"] = max(known) if is_known else None
        return row


# Columns of a row by the attribute that they are read from.
_AMOUNTS = {
    "calls": "total",
    "to_pay": "to_pay",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
}


async def plan(options: Options) -> list[RunPlan]:
    """A plan for each resolved run, in their order: calls of one run are stored for the next.

    No model is called, and the results folder is not written to.

    Raises:
        UsageError, DataError: as for a real run.
        RunError: samples already fail in the dry run.
        KeyboardInterrupt: interrupted, since a part of a plan would be taken for the whole.
    """
    async with _dry_runner(options) as dry:
        plans: list[RunPlan] = []
        # What one run stores is there for the next one, if both go the same way.
        memories: dict[str, dict[str, Response]] = {}
        for job in dry.runs:
            client = await dry.run(job, memory=memories.setdefault("expected", {}))
            forecast = _describe_plan(job, client)
            ways = [client.books.least, client.books.most]
            for name, change in _other_ways(client, forecast):
                memory = memories.setdefault(name, {})
                other = await dry.run(job, memory=memory, change=change)
                ways += [other.books.least, other.books.most]
            plans.append(dataclasses.replace(forecast, ways=ways))
        return plans


async def explain(options: Options, sample_id: str) -> list[dict[str, Any]]:
    """Explain the calls of one sample: stored, or how the nearest stored call differs.

    Raises:
        UsageError: no such sample.
        RunError: it already fails in the dry run.
    """
    async with _dry_runner(options) as dry:
        client = await dry.run(dry.runs[0], sample_id)
        return [
            {
                "key": call.key,
                "phase": call.phase,
                "stored": call.stored,
                "difference": None if call.stored else _difference(client, call.request),
            }
            for call in client.planned_calls
        ]


async def preview(options: Options, sample_id: str) -> tuple[str, list[PlannedCall]]:
    """The source of the data, and the calls that one sample would make.

    Raises:
        UsageError: no such sample.
        RunError: it already fails in the dry run.
    """
    async with _dry_runner(options) as dry:
        job = dry.runs[0]
        client = await dry.run(job, sample_id)
        return job.dataset.source, client.planned_calls


def _difference(client: DryRunClient, request: Request) -> str:
    identity = client.backend.identity_of(request)
    nearest = client.cache.nearest(identity, request) if client.cache else None
    if nearest is None:
        return "everything: the cache is empty"
    return difference(request, identity, *nearest)


@dataclass
class DryRunner:
    """Dry runs, and everything that those of one command share."""

    runs: Sequence[ResolvedRun]
    model: Backend
    cache: Cache | None
    policy: Policy
    embedders: Embedders

    async def run(
        self,
        job: ResolvedRun,
        sample_id: str | None = None,
        *,
        positions: Sequence[int] | None = None,
        memory: dict[str, Response] | None = None,
        change: Change | None = None,
        give_up: float | None = None,
    ) -> DryRunClient:
        """Run a method with filler, on the owed samples or on some; return the client.

        Args:
            sample_id, positions: one sample, or the positions of several.
            memory: replies of other dry runs, to which those of this one are added.
            give_up: the time (`time.monotonic`) after which a call ends the dry run with an error.
            change: makes the filler another than the expected one; samples may then fail.
        """
        client = DryRunClient(self.model, self.cache, self.policy)
        client.give_up = give_up
        if memory is not None:
            client.memory = memory

        with tempfile.TemporaryDirectory() as temporary:
            output = RunFolder(Path(temporary))
            output.start(job.spec)
            try:
                engine = self._engine(job, client, output)
                owed = _owed(job, engine, sample_id) if positions is None else list(positions)
                client.owed = len(owed)
                client.style = dataclasses.replace(_style(job, owed), **(change or {}))
                if client.style.labels:
                    client.records_of = functools.partial(_find_records, job.dataset)
                engine.roles = {
                    role: client if backend is self.model else client.for_role(backend)
                    for role, backend in job.roles.items()
                }
                if not await engine.run(owed):
                    raise KeyboardInterrupt
                if engine.progress.failed and change is None:
                    raise _samples_fail(job, engine.progress.failed, output)
                client.over_window = sum(
                    "over_window" in prediction.flags for prediction in output.iter_predictions()
                )
                if job.judge:
                    is_part = sample_id or positions is not None
                    waiting = [] if is_part else _unjudged_answers(job, engine, owed, output)
                    positions = sorted([*owed, *waiting])
                    judge_client = engine.roles["judge"]
                    await judge(output, job.task, job.dataset, positions, job.judge, judge_client)
            finally:
                output.close()
        return client

    def _engine(self, job: ResolvedRun, client: DryRunClient, output: RunFolder) -> Engine:
        if job.folder.rounds.path.is_dir():
            shutil.copytree(job.folder.rounds.path, output.rounds.path)
        # One sample at a time, so that plans are the same every time.
        return create_engine(job, client, self.embedders, output=output)


@asynccontextmanager
async def _dry_runner(options: Options) -> AsyncIterator[DryRunner]:
    options = options.guarded()

    folders = [options.results]
    if options.shard:
        folders.append(options.shard.whole(options.results))
    # A plan creates no cache file.
    paths = [folder / "cache.sqlite" for folder in folders]
    existing = [path for path in paths if path.exists()]
    cache = Cache(*existing) if existing and options.cache != "off" else None

    embedders = options.embedders()
    async with AsyncExitStack() as stack:
        if cache is not None:
            stack.callback(cache.close)
        stack.push_async_callback(embedders.aclose)
        model, roles = await stack.enter_async_context(identified_models(options))
        # A dialect that was learnt is part of the keys; a plan learns none.
        Openings(options, Budget({})).recall(model, *roles.values())
        runs = resolve(options, model, roles)
        yield DryRunner(runs, model, cache, options.cache, embedders)


def _owed(job: ResolvedRun, engine: Engine, sample_id: str | None) -> list[int]:
    """The positions that the run owes, or that of one sample.

    Raises:
        UsageError: no such sample.
    """
    if sample_id is None:
        return engine.owed(job.positions)
    index = job.dataset.index()
    positions = [position for position, (name, _) in enumerate(index) if name == sample_id]
    if not positions:
        raise UsageError(f"{job.dataset.source} has no sample '{sample_id}'")
    return positions


def _style(job: ResolvedRun, owed: Sequence[int]) -> FillerStyle:
    """Filler that the task can read as an answer, and that no simulated user is content with.

    A user who is never content takes all the turns that the task allows, the most that it can cost.
    """
    style = FillerStyle(
        tail=job.dataset.edited_words,
        answer_tokens=job.spec.sampling.max_tokens or job.task.max_tokens,
    )
    if not job.task.labels:
        return style
    return dataclasses.replace(
        style,
        plain=job.task.labels[0],
        labels=job.task.labels,
        marked=_reads_marked_label(job, owed),
    )


def _other_ways(client: DryRunClient, forecast: RunPlan) -> Iterator[tuple[str, Change]]:
    """The ways that a run may go beside the expected one, by name."""
    is_single = forecast.total <= forecast.owed and forecast.calls.keys() <= {"predict"}
    if is_single and not client.has_repeated:
        return
    long: Change = {"is_long": True, "is_reluctant": True, "drafts_are_right": False}
    yield (
        "short",
        {
            "is_uniform": True,
            "marked": False,
            "tail": "",
            "entries": 0,
            # By this word a user who is asked accepts a draft.
            "simulated": "yes",
            "drafts_are_right": True,
        },
    )
    yield "long", long
    if any(has_list(call.request.schema) for call in client.planned_calls):
        yield "many", {**long, "is_long": False, "entries": None}


def has_list(schema: Mapping[str, Any] | None) -> bool:
    """Whether a reply of this schema holds a list of objects, whose length the model decides."""
    if schema is None or "enum" in schema:
        return False
    if schema["type"] == "array":
        return bool(schema["items"].get("type") == "object")
    if schema["type"] == "object":
        return any(has_list(value) for value in schema["properties"].values())
    return False


@functools.lru_cache(maxsize=64)
def _find_records(dataset: Dataset, user: str) -> tuple[Record, ...]:
    """All records of a user with a stimulus."""
    records: dict[str, Record] = {}
    for position, (_, owner) in enumerate(dataset.index()):
        if owner == user:
            history = dataset.load(position).history
            records |= {record.id: record for record in history if record.stimulus}
    return tuple(records.values())


def _describe_plan(job: ResolvedRun, client: DryRunClient) -> RunPlan:
    task_changes = changed_params(job.task).items()
    changed = {
        **changed_params(job.method),
        **job.changed_prompts,
        **job.changed_profiler,
        **{f"task.{name}": value for name, value in task_changes},
    }
    return RunPlan(
        **vars(client.books.expected),
        task=job.spec.task,
        method=job.spec.method,
        model=job.spec.model["name"],
        owed=client.owed,
        concurrency=job.backend.concurrency,
        over_window=client.over_window,
        changed=changed,
    )


def _samples_fail(job: ResolvedRun, failed: int, output: RunFolder) -> RunError:
    """The error in place of a plan: not all calls of samples that fail are counted."""
    predictions = list(output.iter_predictions())
    first = next(prediction for prediction in predictions if prediction.error)
    return RunError(
        f"{job.method.name} on {job.task.name}: {failed} of {len(predictions)} samples fail in the "
        "dry run, whose replies are filler, so the run cannot be planned; the first: "
        f"{first.sample_id}: {first.error}"
    )


def _unjudged_answers(
    job: ResolvedRun, engine: Engine, owed: Sequence[int], output: RunFolder
) -> list[int]:
    """Copy finished answers without a judgement into the output folder; return their positions."""
    index = job.dataset.index()
    finished = {position for position, (name, _) in enumerate(index) if name in engine.finished}
    candidates = sorted({*job.positions, *finished} - {*owed})
    again = job.positions if engine.client.policy == "refresh" else ()
    waiting = unjudged(job.folder, job.dataset, candidates, job.judge or "", again)
    for prediction in job.folder.ordered_predictions(index[position][0] for position in waiting):
        if prediction is not None:
            output.append(output.predictions_path, prediction)
    return waiting


def _reads_marked_label(job: ResolvedRun, owed: Sequence[int]) -> bool:
    """Whether the task reads its label from a reply that has a mark beside it."""
    label = job.task.labels[0]
    reply = fill_schema(None, label, "ghi")
    views = [job.dataset.load(position).view() for position in owed[:1]]
    return any(job.task.parse(reply, view, "lenient") == label for view in views)
