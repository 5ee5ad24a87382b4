"""What a run would cost, found out by rehearsing it.

The method runs for real against a client that answers from the cache where it can and with filler where it cannot, and
counts.  No two requests get the same filler, so that what is made of replies is as different as it will be.  Calls are
exact for methods whose number of calls does not depend on what the model says.  A user who looks at drafts is content
with none, the most that such a task can take: a filler is no clear yes, and a dataset whose users judge by rule has
words that break all of its rules in `disliked`.  Where replies are lists, two more rehearsals, with empty lists and
with the longest, say between which numbers the calls will be.  Input tokens are estimated, output tokens are the
allowance, an upper bound.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from personabench.errors import RunError, UsageError
from personabench.models import backends
from personabench.models.backends.base import Backend
from personabench.models.backends.scripted import FILLER, filler, letters
from personabench.models.cache import Cache, difference, request_key
from personabench.models.client import Client
from personabench.models.tokens import EstimatedTokens, Tokens
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.run.engine import Engine
from personabench.run.judging import judge, unjudged
from personabench.types import Call, Phase, Request, Response, Usage

Bound = Literal["empty", "longest"]
ENTRY = 4
"""Tokens that no entry of a list, an object, can do without."""


@dataclass
class RunPlan:
    """What one run still needs: samples owed, calls by phase, how many are stored, tokens to pay for.

    `spent` are tokens in and out by model, the simulated user's and the judge's included.  `changed` are the parameters
    that are not at their defaults, the task's as `task.NAME`.  Lists that the model replies with have one entry;
    `bounds` are the same run with empty lists and with the longest, where it is asked for any.
    """

    task: str
    method: str
    model: str
    owed: int
    changed: dict[str, Any] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    cached: int = 0
    spent: dict[str, tuple[int, int]] = field(default_factory=dict)
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
        return sum(given for given, _ in self.spent.values())

    @property
    def output_tokens(self) -> int:
        """The allowance of the replies to pay for."""
        return sum(made for _, made in self.spent.values())

    def as_dict(self, prices: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        """A plain row; `price` is None without a price for each model that is asked.

        Where there are `bounds`, the row is that with the fewest calls, and `*_at_most` says how many there may be.
        """
        every = (self, *self.bounds)
        least = min(every, key=lambda each: each.total)
        known = all(model in prices for model in least.spent or [least.model])
        price = sum(
            given * prices[model]["input"] + made * prices[model]["output"]
            for model, (given, made) in least.spent.items()
            if known
        )
        return {
            "task": self.task,
            "method": self.method,
            "model": self.model,
            "owed": self.owed,
            "changed": self.changed,
            "calls": least.total,
            "calls_at_most": max(each.total for each in every),
            "calls_by_phase": least.calls,
            "cached": least.cached,
            "to_pay": least.to_pay,
            "to_pay_at_most": max(each.to_pay for each in every),
            "input_tokens": least.input_tokens,
            "output_tokens": least.output_tokens,
            "price": price / 1_000_000 if known else None,
        }


def has_list(schema: Mapping[str, Any] | None) -> bool:
    """Whether a reply of this form holds a list of objects, whose length the model decides."""
    if schema is None or "enum" in schema:
        return False
    if schema["type"] == "array":
        return bool(schema["items"].get("type") == "object")
    return schema["type"] == "object" and any(map(has_list, schema["properties"].values()))


class DryRunClient(Client):
    """A client that pays nothing: stored answers where there are any, filler elsewhere.

    `asked` keeps every call of the rehearsal: (key, phase, request, whether it is stored); `memory` what was answered.
    Fillers carry a mark of their request, `plain` ones only where `marked`, and those without a form end in `tail`.
    Lists in them have one entry; with a `bound` they are empty, or the longest that form and allowance hold.  What is
    asked again because a filler could not be read does not count: a model's reply can be.
    """

    forecast: RunPlan
    asked: list[tuple[str, Phase, Request, bool]]
    memory: dict[str, Response]
    plain: str = FILLER
    marked: bool = True
    tail: str = ""
    bound: Bound | None = None

    @property
    def tokens(self) -> Tokens:
        """An estimate; loading the model only to count would cost more than it tells."""
        return EstimatedTokens()

    async def complete(
        self,
        request: Request,
        phase: Phase,
        group: str,
        accept: Callable[[str], bool] | None = None,
        flag: Callable[[str], None] | None = None,
    ) -> tuple[Response, Call]:
        key = request_key(self.backend.identity, request)
        stored = None
        if self.policy in ("use", "only"):
            stored = self.memory.get(key) or (self.cache.get(key) if self.cache else None)
        before = request.repeat and request_key(
            self.backend.identity, msgspec.structs.replace(request, repeat=request.repeat - 1)
        )
        if stored is None and before in self._refused:
            response = self._refused[key] = self._refused[before]
            return self._receipt(key, phase, response, cached=True)
        self.forecast.calls[phase] = self.forecast.calls.get(phase, 0) + 1
        if stored is None:
            spent = sum(self.tokens.count(message.content) for message in request.messages)
            given, made = self.forecast.spent.get(self.backend.identity["name"], (0, 0))
            self.forecast.spent[self.backend.identity["name"]] = (
                given + spent,
                made + request.max_tokens,
            )
            mark = letters(key) if self.marked or request.schema else ""
            entries = {None: 1, "empty": 0, "longest": 1 + request.max_tokens // ENTRY}[self.bound]
            text = filler(request.schema, self.plain, mark, entries=entries)
            if self.tail and not request.schema:
                text = f"{text} {self.tail}"
            response = Response(text, usage=Usage(spent, request.max_tokens))
        else:
            self.forecast.cached += 1
            response = stored
        if stored is None and accept and not accept(response.text):
            self._refused[key] = response
        self.memory[key] = response
        self.asked.append((key, phase, request, stored is not None))
        return self._receipt(key, phase, response, cached=stored is not None)

    def played_by(self, backend: Backend) -> DryRunClient:
        """The same rehearsal for a role with a model of its own."""
        other = DryRunClient(backend, self.cache, self.policy)
        other.forecast, other.asked, other.memory = self.forecast, self.asked, self.memory
        other.plain, other.marked, other.tail, other.bound = (
            self.plain,
            self.marked,
            self.tail,
            self.bound,
        )
        return other

    def __post_init__(self) -> None:
        super().__post_init__()
        self.asked = []
        self._refused: dict[str | int, Response] = {}


async def plan(options: runner.Options) -> list[RunPlan]:
    """A forecast for each run asked for, in their order: what one has asked is stored for the next.

    Nothing is called and nothing is written.

    Raises:
        UsageError, DataError: as for a real run.
        RunError: samples fail already in the rehearsal.
        KeyboardInterrupt: interrupted; a part of a forecast would be taken for the whole.
    """
    async with _rehearsals(options) as (jobs, rehearse):
        forecasts: list[RunPlan] = []
        memory: dict[str, Response] = {}
        for job in jobs:
            before = dict(memory)
            client = await rehearse(job, None, memory)
            if any(has_list(request.schema) for _, _, request, _ in client.asked):
                client.forecast.bounds = [
                    (await rehearse(job, None, dict(before), bound=bound)).forecast
                    for bound in get_args(Bound)
                ]
            forecasts.append(client.forecast)
        return forecasts


async def explain(options: runner.Options, sample_id: str) -> list[dict[str, Any]]:
    """For each call of one sample: its key, phase, whether it is stored, and how the nearest stored call differs.

    Raises:
        UsageError: no such sample.
        RunError: it fails already in the rehearsal.
    """
    async with _rehearsals(options) as (jobs, rehearse):
        client = await rehearse(jobs[0], sample_id)
        answers = []
        for key, phase, request, stored in client.asked:
            answer: dict[str, Any] = {
                "key": key,
                "phase": phase,
                "stored": stored,
                "difference": None,
            }
            if not stored:
                identity = client.backend.identity
                nearest = client.cache.nearest(identity, request) if client.cache else None
                answer["difference"] = (
                    difference(request, identity, *nearest)
                    if nearest
                    else "everything: the cache is empty"
                )
            answers.append(answer)
        return answers


@asynccontextmanager
async def _rehearsals(
    options: runner.Options,
) -> AsyncIterator[tuple[list[runner.Job], Callable[..., Awaitable[DryRunClient]]]]:
    options = options.guarded()
    model = backends.create(options.backend, options.backend_options)
    named = {role: backends.create(name, own) for role, (name, own) in options.roles.items()}
    places = [options.results, *([options.shard.whole(options.results)] if options.shard else [])]
    caches = [place / "cache.sqlite" for place in places if (place / "cache.sqlite").exists()]
    cache = Cache(*caches) if caches and options.cache != "off" else None
    embedders = options.embedders()

    async def rehearse(
        job: runner.Job,
        sample_id: str | None,
        memory: dict[str, Response] | None = None,
        *,
        bound: Bound | None = None,
    ) -> DryRunClient:
        client = DryRunClient(model, cache, options.cache)
        client.memory, client.bound = {} if memory is None else memory, bound
        with tempfile.TemporaryDirectory() as temporary:
            rehearsed = RunFolder(Path(temporary))
            rehearsed.start(job.spec)
            if job.folder.states_path.is_dir():
                shutil.copytree(job.folder.states_path, rehearsed.states_path)
            engine = Engine(
                task=job.task,
                dataset=job.dataset,
                method=job.method,
                spec=job.spec,
                client=client,
                embedders=embedders,
                folder=job.folder,
                concurrency=1,
            )
            if sample_id is None:
                owed = engine.owed(job.positions)
            else:
                owed = [at for at, (name, _) in enumerate(job.dataset.index()) if name == sample_id]
                if not owed:
                    raise UsageError(f"{job.dataset.source} has no sample '{sample_id}'")
            if job.task.labels:
                client.plain, client.marked = job.task.labels[0], _read_with_a_mark(job, owed)
            client.tail = job.dataset.disliked
            client.forecast = RunPlan(
                job.spec.task, job.spec.method, job.spec.model["name"], len(owed)
            )
            client.forecast.changed |= runner.changed(job.method)
            client.forecast.changed |= {
                f"task.{name}": value for name, value in runner.changed(job.task).items()
            }
            engine.roles = {
                role: client if backend is model else client.played_by(backend)
                for role, backend in job.roles.items()
            }
            engine.folder = rehearsed
            try:
                if not await engine.run(owed):
                    raise KeyboardInterrupt
                if engine.progress.failed and bound is None:
                    raise _failing(job, engine.progress.failed, rehearsed)
                if job.judge:
                    left = [] if sample_id else _awaiting_a_judge(job, engine, owed, rehearsed)
                    asked = sorted([*owed, *left])
                    await judge(
                        rehearsed, job.task, job.dataset, asked, job.judge, engine.roles["judge"]
                    )
            finally:
                rehearsed.close()
        return client

    try:
        for backend in (model, *named.values()):
            await backend.identify()
        yield runner.resolve(options, model, named), rehearse
    finally:
        await embedders.aclose()
        for backend in (model, *named.values()):
            await backend.aclose()
        if cache is not None:
            cache.close()


def _failing(job: runner.Job, failed: int, rehearsed: RunFolder) -> RunError:
    """What to say instead of a forecast: the calls of samples that fail are not all counted."""
    lines = list(rehearsed.iter_predictions())
    first = next(line for line in lines if line.error)
    return RunError(
        f"{job.method.name} on {job.task.name}: {failed} of {len(lines)} samples fail in rehearsal, where replies are "
        f"filler, so nothing can be said of the run; the first: {first.sample_id}: {first.error}"
    )


def _awaiting_a_judge(
    job: runner.Job, engine: Engine, owed: Sequence[int], rehearsed: RunFolder
) -> list[int]:
    """The positions of kept answers that the judge has not seen; the answers are copied for the rehearsal."""
    index = job.dataset.index()
    done = {at for at, (name, _) in enumerate(index) if name in engine.finished}
    anew = job.positions if engine.client.policy == "refresh" else ()
    left = unjudged(
        job.folder, job.dataset, sorted({*job.positions, *done} - {*owed}), job.judge or "", anew
    )
    for line in job.folder.ordered_predictions(index[at][0] for at in left):
        if line is not None:
            rehearsed.append(rehearsed.predictions_path, line)
    return left


def _read_with_a_mark(job: runner.Job, owed: Sequence[int]) -> bool:
    """Whether the task finds its label in a reply that says a little more."""
    label = job.task.labels[0]
    reply = filler(None, label, "ghi")
    return any(
        job.task.parse(reply, job.dataset.load(at).view(), "lenient") == label for at in owed[:1]
    )
