"""Dry runs: the calls, tokens and price that a run would cost, without a model call.

The method runs for real, against a client that answers from the cache if it can and with filler if
it cannot. No two requests get the same filler, so that profiles made of replies differ as they will
in the run. Calls are exact for methods whose number of calls does not depend on replies. If replies
are lists, two more dry runs, with empty lists and with the longest possible, bound the number of
calls. Input tokens are estimated; output tokens are the full allowance, an upper bound.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from personabench.errors import RunError, UsageError
from personabench.models.backends.base import Backend
from personabench.models.backends.scripted import FILLER, fill_schema, letters
from personabench.models.budget import Budget
from personabench.models.cache import Cache, Policy, difference, request_key
from personabench.models.client import Client
from personabench.models.tokens import EstimatedTokens, Tokens
from personabench.results.run_folder import RunFolder
from personabench.retrieval.embedders import Embedders
from personabench.run import runner
from personabench.run.engine import Engine
from personabench.run.judging import judge, unjudged
from personabench.run.openings import Openings
from personabench.run.run_facts import changed_params
from personabench.run.session import create_engine, identified_models
from personabench.types import Call, Phase, Request, Response, Usage

Bound = Literal["empty", "longest"]
TOKENS_PER_ENTRY = 4
"""The fewest tokens of one entry of a list, an object: braces, a key and a value."""


class PlannedTokens(NamedTuple):
    """Tokens in and out that would be paid for."""

    input: int = 0
    output: int = 0


@dataclass
class RunPlan:
    """The work that one run still needs.

    Attributes:
        owed: samples without a prediction.
        changed: parameters that are not at their defaults, those of the task as `task.NAME`.
        calls: calls by phase; cached: how many of them are stored.
        spent: tokens to pay for by model, those of the simulator and the judge included.
        bounds: the same run with empty lists and with the longest, if any reply is a list. In the
            plan itself, lists have one entry.
    """

    task: str
    method: str
    model: str
    owed: int
    changed: dict[str, Any] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    cached: int = 0
    spent: dict[str, PlannedTokens] = field(default_factory=dict)
    bounds: Sequence[RunPlan] = ()

    @property
    def total(self) -> int:
        """Calls of all phases."""
        return sum(self.calls.values())

    @property
    def to_pay(self) -> int:
        """Calls that are not stored."""
        return self.total - self.cached

    @property
    def input_tokens(self) -> int:
        """Tokens of the requests to pay for."""
        return sum(tokens.input for tokens in self.spent.values())

    @property
    def output_tokens(self) -> int:
        """The full allowance of the replies to pay for."""
        return sum(tokens.output for tokens in self.spent.values())

    def price(self, prices: Mapping[str, Mapping[str, float]]) -> float | None:
        """The price of the calls to pay for; None without a price for every model."""
        models = list(self.spent) or [self.model]
        if any(model not in prices for model in models):
            return None
        total = 0.0
        for model, tokens in self.spent.items():
            total += tokens.input * prices[model]["input"]
            total += tokens.output * prices[model]["output"]
        return total / 1_000_000

    def as_dict(self, prices: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        """A plain row for tables and JSON.

        With `bounds` the row has the fewest calls, and `*_at_most` the largest numbers.
        """
        candidates = (self, *self.bounds)
        least = min(candidates, key=lambda candidate: candidate.total)
        return {
            "task": self.task,
            "method": self.method,
            "model": self.model,
            "owed": self.owed,
            "changed": self.changed,
            "calls": least.total,
            "calls_at_most": max(candidate.total for candidate in candidates),
            "calls_by_phase": least.calls,
            "cached": least.cached,
            "to_pay": least.to_pay,
            "to_pay_at_most": max(candidate.to_pay for candidate in candidates),
            "input_tokens": least.input_tokens,
            "output_tokens": least.output_tokens,
            "price": least.price(prices),
        }


def has_list(schema: Mapping[str, Any] | None) -> bool:
    """Whether a reply of this schema holds a list of objects, whose length the model decides."""
    if schema is None or "enum" in schema:
        return False
    if schema["type"] == "array":
        return bool(schema["items"].get("type") == "object")
    if schema["type"] == "object":
        return any(has_list(value) for value in schema["properties"].values())
    return False


class PlannedCall(NamedTuple):
    """One call of a dry run; `stored`: the cache holds its response."""

    key: str
    phase: Phase
    request: Request
    stored: bool


@dataclass
class FillerStyle:
    """How replies are filled in.

    Attributes:
        plain: the text of replies without a schema.
        marked: whether it carries a mark of its request.
        tail: text added to replies without a schema.
        bound: the length of lists; None for one entry.
    """

    plain: str = FILLER
    marked: bool = True
    tail: str = ""
    bound: Bound | None = None

    def entries(self, max_tokens: int) -> int:
        """The number of entries of a list in a reply of at most `max_tokens`."""
        if self.bound is None:
            return 1
        return 0 if self.bound == "empty" else 1 + max_tokens // TOKENS_PER_ENTRY

    def reply(self, key: str, request: Request) -> str:
        """Filler for a request, different for every key."""
        mark = letters(key) if self.marked or request.schema else ""
        entries = self.entries(request.max_tokens)
        text = fill_schema(request.schema, self.plain, mark, entries=entries)
        return f"{text} {self.tail}" if self.tail and not request.schema else text


class DryRunClient(Client):
    """A client that pays nothing: stored responses if there are any, filler otherwise.

    Attributes:
        forecast: the plan that calls are booked in.
        planned_calls: every call so far.
        memory: responses given so far, as if they had been stored.
        booked: the keys of the calls of this run, each of which is booked once.
        style: how replies are filled in.
    """

    forecast: RunPlan
    planned_calls: list[PlannedCall]
    memory: dict[str, Response]
    booked: set[str]
    style: FillerStyle

    def __post_init__(self) -> None:
        super().__post_init__()
        self.planned_calls = []
        self.memory = {}
        self.booked = set()
        self.style = FillerStyle()
        self._refused: dict[str | int, Response] = {}

    @property
    def tokens(self) -> Tokens:
        """An estimate of token counts."""
        # Loading the model only to count would take longer than the rest of the dry run.
        return EstimatedTokens()

    async def complete(
        self,
        request: Request,
        phase: Phase,
        group: str,
        accept: Callable[[str], bool] | None = None,
        flag: Callable[[str], None] | None = None,
        work: str = "",
    ) -> tuple[Response, Call]:
        key = request_key(self.backend.identity_of(request), request)
        stored = self._stored(key)
        previous = self._previous_repeat(request)
        if stored is None and previous in self._refused:
            # A method repeats the request since it cannot read the filler.  It can read a real
            # reply, so the repetition is no call of the plan.
            response = self._refused[key] = self._refused[previous]
            return self._receipt(key, phase, response, cached=True)

        if stored is not None and key in self.booked:
            return self._receipt(key, phase, stored, cached=True)
        self.booked.add(key)
        self.forecast.calls[phase] = self.forecast.calls.get(phase, 0) + 1
        if stored is None:
            response = self._fill(key, request)
            if accept and not accept(response.text):
                self._refused[key] = response
        else:
            response = stored
            self.forecast.cached += 1
        self.memory[key] = response
        self.planned_calls.append(PlannedCall(key, phase, request, stored is not None))
        return self._receipt(key, phase, response, cached=stored is not None)

    def _stored(self, key: str) -> Response | None:
        if self.policy not in ("use", "only"):
            return None
        if key in self.memory:
            return self.memory[key]
        return self.cache.get(key) if self.cache else None

    def _previous_repeat(self, request: Request) -> str | int:
        """The key of the repetition before this one, or 0 for the first."""
        if not request.repeat:
            return 0
        previous = msgspec.structs.replace(request, repeat=request.repeat - 1)
        return request_key(self.backend.identity_of(previous), previous)

    def _fill(self, key: str, request: Request) -> Response:
        input_tokens = sum(self.tokens.count(message.content) for message in request.messages)
        model = self.backend.identity["name"]
        output_tokens = request.max_tokens + self.allowance
        booked = self.forecast.spent.get(model, PlannedTokens())
        self.forecast.spent[model] = PlannedTokens(
            booked.input + input_tokens, booked.output + output_tokens
        )
        usage = Usage(input_tokens, output_tokens)
        return Response(self.style.reply(key, request), usage=usage)

    def for_role(self, backend: Backend) -> DryRunClient:
        """A client for a role with its own model that books in the same plan."""
        client = DryRunClient(backend, self.cache, self.policy)
        client.forecast = self.forecast
        client.planned_calls = self.planned_calls
        client.memory = self.memory
        client.booked = self.booked
        client.style = self.style
        return client


async def plan(options: runner.Options) -> list[RunPlan]:
    """A plan for each resolved run, in their order: calls of one run are stored for the next.

    No model is called, and the results folder is not written to.

    Raises:
        UsageError, DataError: as for a real run.
        RunError: samples already fail in the dry run.
        KeyboardInterrupt: interrupted, since a part of a plan would be taken for the whole.
    """
    async with _dry_runner(options) as dry:
        plans: list[RunPlan] = []
        memory: dict[str, Response] = {}
        for job in dry.runs:
            # The bounds start from what was stored before this run, as the run itself does.
            before = dict(memory)
            client = await dry.run(job, memory=memory)
            if any(has_list(call.request.schema) for call in client.planned_calls):
                client.forecast.bounds = [
                    (await dry.run(job, memory=dict(before), bound=bound)).forecast
                    for bound in get_args(Bound)
                ]
            plans.append(client.forecast)
        return plans


async def explain(options: runner.Options, sample_id: str) -> list[dict[str, Any]]:
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


async def preview(options: runner.Options, sample_id: str) -> tuple[str, list[PlannedCall]]:
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
class _DryRunner:
    """Everything that the dry runs of one command share."""

    runs: Sequence[runner.ResolvedRun]
    model: Backend
    cache: Cache | None
    policy: Policy
    embedders: Embedders

    async def run(
        self,
        job: runner.ResolvedRun,
        sample_id: str | None = None,
        *,
        memory: dict[str, Response] | None = None,
        bound: Bound | None = None,
    ) -> DryRunClient:
        """Run a method with filler, on the owed samples or on one; return the client."""
        client = DryRunClient(self.model, self.cache, self.policy)
        if memory is not None:
            client.memory = memory

        with tempfile.TemporaryDirectory() as temporary:
            output = RunFolder(Path(temporary))
            output.start(job.spec)
            try:
                engine = self._engine(job, client, output)
                owed = _owed(job, engine, sample_id)
                client.style = _style(job, owed, bound)
                client.forecast = _empty_plan(job, len(owed))
                engine.roles = {
                    role: client if backend is self.model else client.for_role(backend)
                    for role, backend in job.roles.items()
                }
                if not await engine.run(owed):
                    raise KeyboardInterrupt
                if engine.progress.failed and bound is None:
                    raise _samples_fail(job, engine.progress.failed, output)
                if job.judge:
                    waiting = [] if sample_id else _unjudged_answers(job, engine, owed, output)
                    positions = sorted([*owed, *waiting])
                    judge_client = engine.roles["judge"]
                    await judge(output, job.task, job.dataset, positions, job.judge, judge_client)
            finally:
                output.close()
        return client

    def _engine(self, job: runner.ResolvedRun, client: DryRunClient, output: RunFolder) -> Engine:
        if job.folder.rounds.path.is_dir():
            shutil.copytree(job.folder.rounds.path, output.rounds.path)
        # One sample at a time, so that plans are the same every time.
        return create_engine(job, client, self.embedders, output=output)


@asynccontextmanager
async def _dry_runner(options: runner.Options) -> AsyncIterator[_DryRunner]:
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
        runs = runner.resolve(options, model, roles)
        yield _DryRunner(runs, model, cache, options.cache, embedders)


def _owed(job: runner.ResolvedRun, engine: Engine, sample_id: str | None) -> list[int]:
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


def _style(job: runner.ResolvedRun, owed: Sequence[int], bound: Bound | None) -> FillerStyle:
    """Filler that the task can read as an answer, and that no simulated user is content with.

    A user who is never content takes all the turns that the task allows, the most that it can cost.
    """
    style = FillerStyle(tail=job.dataset.edited_words, bound=bound)
    if job.task.labels:
        style.plain = job.task.labels[0]
        style.marked = _reads_marked_label(job, owed)
    return style


def _empty_plan(job: runner.ResolvedRun, owed: int) -> RunPlan:
    task_changes = changed_params(job.task).items()
    changed = {
        **changed_params(job.method),
        **job.changed_prompts,
        **job.changed_profiler,
        **{f"task.{name}": value for name, value in task_changes},
    }
    return RunPlan(job.spec.task, job.spec.method, job.spec.model["name"], owed, changed)


def _samples_fail(job: runner.ResolvedRun, failed: int, output: RunFolder) -> RunError:
    """The error in place of a plan: not all calls of samples that fail are counted."""
    predictions = list(output.iter_predictions())
    first = next(prediction for prediction in predictions if prediction.error)
    return RunError(
        f"{job.method.name} on {job.task.name}: {failed} of {len(predictions)} samples fail in the "
        "dry run, whose replies are filler, so the run cannot be planned; the first: "
        f"{first.sample_id}: {first.error}"
    )


def _unjudged_answers(
    job: runner.ResolvedRun, engine: Engine, owed: Sequence[int], output: RunFolder
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


def _reads_marked_label(job: runner.ResolvedRun, owed: Sequence[int]) -> bool:
    """Whether the task reads its label from a reply that has a mark beside it."""
    label = job.task.labels[0]
    reply = fill_schema(None, label, "ghi")
    views = [job.dataset.load(position).view() for position in owed[:1]]
    return any(job.task.parse(reply, view, "lenient") == label for view in views)
