"""Models, cache, embedders and budget that all runs of one command share."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from personabench.models import backends
from personabench.models.backends.base import Backend
from personabench.models.budget import Budget
from personabench.models.cache import Cache
from personabench.models.client import Client
from personabench.models.journal import Journal
from personabench.models.roles import RoleName
from personabench.results.run_folder import RunFolder
from personabench.retrieval.embedders import Embedders
from personabench.retrieval.vector_store import VectorStore
from personabench.run.engine import Engine
from personabench.run.openings import Openings
from personabench.run.options import Options
from personabench.run.resolve import ResolvedRun


@dataclasses.dataclass
class Session:
    """Resources that all runs of one command share.

    Attributes:
        model: the model under test, identified.
        cache: the response cache, or None with `--cache off`.
        budget: the cost of the command so far, and its limit.
        openings: opens models, and learns what their servers do not take.
    """

    model: Backend
    cache: Cache | None
    embedders: Embedders
    budget: Budget
    openings: Openings

    async def open_backend(self, backend: Backend, log: Path) -> bool:
        """Load a model or attach to its server, the first time that a run needs it.

        Returns:
            whether its identity changed, since its dialect was learnt.
        """
        return await self.openings.open_backend(backend, log)

    def create_engine(self, run: ResolvedRun, options: Options) -> Engine:
        """Create the engine of a run, with clients of its models."""
        concurrency = options.concurrency or self.model.concurrency
        client = Client(
            self.model,
            self.cache,
            options.cache,
            concurrency,
            budget=self.budget,
            scores_thoughts=run.spec.sampling.reading == "raw",
            journal=Journal(self.cache, run.spec.fingerprint) if self.cache else None,
        )
        clients = {}
        for role, backend in run.roles.items():
            # A role played by the model under test shares its client, and so its limits.
            clients[role] = client
            if backend is not self.model:
                clients[role] = dataclasses.replace(
                    client,
                    backend=backend,
                    concurrency=options.concurrency or backend.concurrency,
                    scores_thoughts=False,
                )
        return create_engine(
            run,
            client,
            self.embedders,
            roles=clients,
            cache=self.cache,
            concurrency=concurrency,
            sample_timeout=options.sample_timeout,
        )


def create_engine(
    run: ResolvedRun,
    client: Client,
    embedders: Embedders,
    *,
    roles: Mapping[RoleName, Client] | None = None,
    cache: Cache | None = None,
    output: RunFolder | None = None,
    concurrency: int = 1,
    sample_timeout: float | None = None,
) -> Engine:
    """Create the engine of a run, a dry run or a trial: the one place that puts it together.

    Args:
        client: calls the model under test.
        roles: the clients of the roles.
        output: the folder to write to, if it is not the run's own.
        concurrency: samples in progress.
        sample_timeout: seconds that a sample may take; None for no limit.
    """
    return Engine(
        task=run.task,
        dataset=run.dataset,
        method=run.method,
        spec=run.spec,
        client=client,
        embedders=embedders,
        folder=run.folder,
        output=output,
        cache=cache,
        concurrency=concurrency,
        sample_timeout=sample_timeout,
        roles=roles or {},
        prompts=run.prompts,
        profiler_prompts=run.profiler_prompts,
        artifacts=run.training.artifacts if run.training else None,
    )


@contextlib.asynccontextmanager
async def identified_models(
    options: Options,
    backend: Backend | None = None,
    roles: Mapping[RoleName, Backend] | None = None,
) -> AsyncIterator[tuple[Backend, dict[RoleName, Backend]]]:
    """Create and identify the model under test and the models of roles; close them at the end.

    Args:
        backend, roles: backends to use in place of those of the options.

    Raises:
        UsageError: a model cannot be identified.
    """
    async with contextlib.AsyncExitStack() as stack:
        model = backend or backends.create(options.backend, options.backend_options)
        stack.push_async_callback(model.aclose)
        await model.identify()

        role_backends = dict(roles or {})
        for role, (name, backend_options) in options.roles.items():
            if role not in role_backends:
                role_backends[role] = backends.create(name, backend_options)
        for role_backend in role_backends.values():
            stack.push_async_callback(role_backend.aclose)
            await role_backend.identify()
        yield model, role_backends


def open_cache(options: Options) -> Cache | None:
    """Open the response cache; a shard also reads that of the whole results folder."""
    if options.cache == "off":
        return None
    shared = None
    if options.shard:
        shared = options.shard.whole(options.results) / "cache.sqlite"
    return Cache(options.results / "cache.sqlite", shared, writing=True)


def open_vector_store(options: Options) -> VectorStore | None:
    """Open the vectors of the results folder, under the same policy as the response cache."""
    if options.cache == "off":
        return None
    return VectorStore(options.results / "vectors.sqlite", reads=options.cache != "refresh")
