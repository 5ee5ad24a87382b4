"""The backends of a command: opened when they are first needed, their dialects learnt then."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from personabench.models import backends
from personabench.models.backends.base import Backend
from personabench.models.backends.dialect import PLAIN
from personabench.models.budget import Budget
from personabench.models.client import Client
from personabench.models.probe import Dialects, Learnt, probe_request
from personabench.models.roles import OPTION_PREFIXES
from personabench.run.judging import JUDGE_SEED
from personabench.run.options import Options
from personabench.types import Request, Sampling, to_json


class Openings:
    """Opens each backend once, with its dialect.

    Args:
        options: of the command.
        budget: the budget that probes are booked in.
        tell: is called with a line for each dialect that is not plain.
    """

    def __init__(
        self, options: Options, budget: Budget, tell: Callable[[str], None] | None = None
    ) -> None:
        whole = options.shard.whole(options.results) if options.shard else options.results
        self.budget = budget
        self._dialects = Dialects(whole)
        self._options = options
        self._tell = tell or (lambda line: None)
        self._opened: list[Backend] = []
        self._learnt: list[tuple[Backend, Learnt]] = []
        self._spent = 0.0

    def recall(self, *backends: Backend) -> None:
        """Put requests in the dialects that earlier commands learnt."""
        for backend in backends:
            learnt = self._dialects.recall(backend, self._request(backend))
            if learnt is not None:
                self._adopt(backend, learnt)

    def is_new(self, backend: Backend) -> bool:
        """Whether a dialect is still to be learnt; `--cache only` calls nothing and learns none."""
        if self._options.cache == "only" or backend.writer is None or backend in self._opened:
            return False
        return all(candidate is not backend for candidate, _ in self._learnt)

    async def open_backend(self, backend: Backend, log: Path) -> bool:
        """Open a backend and learn its dialect; return whether its identity has changed.

        Raises:
            UsageError: the model does not load.
            BackendDown: the server does not answer, or refuses what only the user may change.
        """
        if backend in self._opened:
            return False
        is_new = self.is_new(backend)
        await backend.open(log)
        self._opened.append(backend)
        if not is_new:
            return False

        before = backend.identity
        spent = self.budget.spent
        # The first client of a server sets the limit of calls in flight for all of them.
        concurrency = self._options.concurrency or backend.concurrency
        client = Client(backend, None, "off", concurrency, budget=self.budget)
        try:
            learnt = await self._dialects.learn(client, self._request(backend))
        finally:
            self._spent += self.budget.spent - spent
        self._adopt(backend, learnt)
        return backend.identity != before

    async def learn_anew(self, backend: Backend) -> Learnt:
        """Learn the dialect of an opened backend, whatever is stored."""
        client = Client(backend, None, "off", backend.concurrency, budget=self.budget)
        request = self._request(backend)
        self._dialects.forget(backend, request)
        learnt = await self._dialects.learn(client, request)
        backend.adopt(learnt.dialect)
        return learnt

    def take_spent(self) -> float:
        """Return the cost of the probes since the last time."""
        spent = self._spent
        self._spent = 0.0
        return spent

    def provenance(self, backend: Backend) -> dict[str, str]:
        """Return the entry about the dialect of a model for the provenance of its runs."""
        for candidate, learnt in self._learnt:
            if candidate is backend and _is_notable(learnt):
                return {"dialect": learnt.describe(backend.options)}
        return {}

    def _adopt(self, backend: Backend, learnt: Learnt) -> None:
        self._learnt.append((backend, learnt))
        backend.adopt(learnt.dialect)
        if _is_notable(learnt):
            name = backend.identity["name"]
            self._tell(f"dialect  {name}: {learnt.describe(backend.options)}")

    def _request(self, backend: Backend) -> Request:
        # A method's requests have the sampling of the run, whoever answers them.
        is_task_role = backend.options.role not in ("", OPTION_PREFIXES["profiler"])
        sampling = Sampling() if is_task_role else self._options.sampling
        seed = JUDGE_SEED if is_task_role else self._options.seed
        return probe_request(sampling.temperature, sampling.top_p, seed)


async def check_backend(options: Options) -> dict[str, Any]:
    """Open the model of a command, learn its dialect afresh, and return its properties.

    Raises:
        UsageError: no such model, no key.
        BackendDown: the server does not answer, or refuses what only the user may change.
    """
    options = options.guarded()
    async with contextlib.AsyncExitStack() as stack:
        # A model of this machine writes a log, of which an error quotes the telling lines.
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        model = backends.create(options.backend, options.backend_options)
        stack.push_async_callback(model.aclose)
        await model.identify()
        await model.open(Path(folder) / "model.log")

        learnt = await Openings(options, Budget({})).learn_anew(model)
        facts: dict[str, Any] = {"model": model.identity["name"]}
        if model.address:
            facts["server"] = model.address
        facts["dialect"] = learnt.describe(model.options)
        facts["window"] = model.window or "not stated"
        facts["identity"] = to_json(dict(model.identity))
        return facts


def _is_notable(learnt: Learnt) -> bool:
    return learnt.thinks or learnt.dialect != PLAIN
