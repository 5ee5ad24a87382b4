"""Trying methods and tasks without a model: the scripted backend on a task's bundled sample.

from personabench.testing import trial
result = trial(MyMethod(), limit=4)
assert all(line.error is None for line in result.predictions)
"""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from personabench.api import registry
from personabench.api.dataset import Dataset
from personabench.api.method import Method
from personabench.api.task import Task
from personabench.api.users import open_split
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted, echo
from personabench.models.cache import Cache
from personabench.models.client import Client
from personabench.models.roles import RoleName
from personabench.results.run_folder import Profile, RunFolder
from personabench.results.spec import RunSpec
from personabench.results.summary import RunFacts, Summary
from personabench.retrieval.embedders import Embedders
from personabench.run.controls import controlled
from personabench.run.engine import Engine
from personabench.run.judging import judge, judge_key
from personabench.run.scoring import score_run
from personabench.run.selection import select
from personabench.types import Prediction, Request, Sampling


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a method did: its predictions in file order, the requests it made, users' profiles, and the summary."""

    predictions: Sequence[Prediction]
    requests: Sequence[Request]
    profiles: Sequence[Profile]
    summary: Summary | None


def trial(
    method: Method,
    task: str | Task | None = None,
    *,
    limit: int | None = None,
    answer: Callable[[Request], str] = echo,
    concurrency: int = 4,
    seed: int = 0,
    history: str = "own",
    window: int | None = None,
    latency: float = 0.0,
    dataset: Dataset | None = None,
    scored: bool = True,
    roles: Mapping[RoleName, Callable[[Request], str]] | None = None,
) -> Trial:
    """Run a method with scripted answers, on a task's bundled sample unless a dataset is given.

    Without a task, an example stands in.

    `roles` answers for the simulated user and the judge; a role without an answer is the model under test.

    Raises:
        PersonabenchError: as a real run would.
        KeyboardInterrupt: interrupted.
    """
    chosen = (
        task if isinstance(task, Task) else registry.load("task", task or registry.example_task())()
    )
    data = controlled(dataset or open_split(chosen, chosen.default_split, None), history, seed)
    backend = Scripted(answer=answer, latency=latency, window=window)
    cast = dict[RoleName, Scripted](dict.fromkeys(chosen.roles, backend))
    cast |= {
        role: Scripted(BackendOptions(model=role), reply) for role, reply in (roles or {}).items()
    }
    spec = RunSpec(
        task=chosen.name,
        task_version=chosen.version,
        task_hash=registry.source_hash(type(chosen)),
        task_params=dataclasses.asdict(chosen.params),
        separation=data.separation,
        split=data.split,
        sample=data.sample,
        data_hash=data.hash,
        method=method.name,
        method_hash=registry.source_hash(type(method)),
        params=dataclasses.asdict(method.params),
        model=backend.identity,
        sampling=Sampling(),
        seed=seed,
        history=history,
        window=window,
        simulator=cast["simulator"].identity if "simulator" in cast else msgspec.UNSET,
    )

    async def go() -> Trial:
        with tempfile.TemporaryDirectory() as temporary:
            cache = Cache(Path(temporary) / "cache.sqlite")
            folder = RunFolder(Path(temporary) / "run")
            folder.start(spec)
            clients = {
                role: Client(player, cache, concurrency=concurrency)
                for role, player in cast.items()
            }
            engine = Engine(
                task=chosen,
                dataset=data,
                method=method,
                spec=spec,
                client=Client(backend, cache, concurrency=concurrency),
                embedders=Embedders(),
                folder=folder,
                cache=cache,
                concurrency=concurrency,
                roles=clients,
            )
            positions = select(data, limit, seed)
            if not await engine.run(engine.owed(positions)):
                raise KeyboardInterrupt
            key = judge_key(chosen, cast["judge"].identity) if "judge" in cast and scored else None
            if key:
                await judge(folder, chosen, data, sorted(positions), key, clients["judge"])
            summary = (
                score_run(
                    folder, chosen, data, spec, positions, seconds=0, facts=RunFacts(judge=key)
                )
                if scored
                else None
            )
            ids = [data.index()[position][0] for position in sorted(positions)]
            lines = [line for line in folder.ordered_predictions(ids) if line is not None]
            result = Trial(lines, list(backend.requests), list(folder.profiles().values()), summary)
            folder.close()
            cache.close()
            return result

    return asyncio.run(go())
