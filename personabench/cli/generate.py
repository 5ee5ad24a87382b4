"""`personabench generate`: write a new data set for a task with models as authors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.console import echo
from personabench.cli.execution_options import Cache, CachePolicy
from personabench.cli.model_options import ModelArguments
from personabench.cli.options import (
    RESULTS,
    ApiVersion,
    Backend,
    BaseUrl,
    Extra,
    Headers,
    Model,
    OmitParams,
    Reasoning,
    Results,
    Seed,
    Target,
)
from personabench.cli.parsing import split_names

if TYPE_CHECKING:
    from personabench.models.backends.base import BackendOptions
    from personabench.models.roles import Role


def generate(
    task: Annotated[
        str, typer.Argument(help="Task whose format the data set has.", metavar="TASK")
    ],
    source: Annotated[
        str,
        typer.Option(
            "--source",
            metavar="SOURCE",
            help="Source benchmark of the task, or a file of problems (JSON lines, CSV).",
        ),
    ],
    target: Target = Path("data"),
    problems: Annotated[
        int,
        typer.Option(
            "--problems",
            min=1,
            metavar="N",
            help="Number of problems from the source.",
        ),
    ] = 100,
    personas: Annotated[
        int,
        typer.Option(
            "--personas",
            min=1,
            metavar="N",
            help="Number of personas per problem.",
        ),
    ] = 10,
    persona_pool: Annotated[
        int,
        typer.Option(
            "--persona-pool",
            min=1,
            metavar="N",
            help="Number of personas in total, shared by the data sets of a folder.",
        ),
    ] = 100,
    backend: Backend = "local",
    model: Model = None,
    base_url: BaseUrl = None,
    header: Headers = None,
    api_version: ApiVersion = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            min=0.0,
            metavar="T",
            help="Temperature of the authors (default: set by the task).",
        ),
    ] = None,
    omit: OmitParams = None,
    extra: Extra = None,
    reasoning: Reasoning = None,
    seed: Seed = 0,
    results: Results = RESULTS,
    cache: Cache = CachePolicy.use,
) -> None:
    """Write a new data set for a task with models as authors.

    Several models, separated by commas, share the work. Repeat the command to resume it.
    """
    import asyncio

    from personabench.api.data_sources import Generative
    from personabench.api.guard import create
    from personabench.api.registry import load_class
    from personabench.errors import UsageError

    opened = create(load_class("task", task))
    if not isinstance(opened, Generative):
        raise UsageError(f"task {opened.name} makes no sets of its own")
    models: list[str | None] = [*split_names(model or "")] or [None]
    options = [
        ModelArguments(
            model=name,
            base_url=base_url,
            header=header,
            api_version=api_version,
            omit=omit,
            extra=extra,
            reasoning=reasoning,
        ).read(temperature=temperature)
        for name in models
    ]

    async def write_data_set() -> Path:
        # Another set would be asked anew for the replies that this one could not use.
        name = f"generate {task} {source} {persona_pool} {seed}"
        async with _open_authors(backend, options, results, cache, seed, name) as authors:
            path: Path = await opened.generate(
                source,
                target,
                authors,
                problems=problems,
                people=personas,
                library=persona_pool,
                seed=seed,
                notice=lambda line: echo(line, err=True),
            )
            _print_usage(authors)
            return path

    path = asyncio.run(write_data_set())
    echo(f"ready: personabench run --task {task} --data {target} --split {path.stem} --method none")


@asynccontextmanager
async def _open_authors(
    backend: str,
    options: Sequence[BackendOptions],
    results: Path,
    policy: CachePolicy,
    seed: int,
    name: str,
) -> AsyncIterator[list[Role]]:
    """Open a model for each author, with one response cache for all.

    Args:
        name: the set, for which unusable replies are kept until it is written.
    """
    import contextlib

    from personabench.models import backends
    from personabench.models.cache import Cache
    from personabench.models.client import Client
    from personabench.models.journal import Journal
    from personabench.models.probe import Dialects, probe_request
    from personabench.models.roles import Role
    from personabench.run.attempt import comes_from_models

    async with contextlib.AsyncExitStack() as stack:
        cache = None
        journal = None
        if policy is not CachePolicy.off:
            cache = Cache(results / "cache.sqlite", writing=True)
            stack.enter_context(contextlib.closing(cache))
            journal = Journal(cache, name)
            if policy is CachePolicy.refresh:
                journal.clear()

        authors = []
        for author_options in options:
            author = backends.create(backend, author_options)
            # Pushed before opening, so that a backend that fails to open is closed as well.
            stack.push_async_callback(author.aclose)
            await author.identify()
            await author.open()
            client = Client(author, cache, policy.value, author.concurrency, journal=journal)
            if policy is not CachePolicy.only:
                await Dialects(results).settle(
                    author, client.concurrency, probe_request(0, 1, seed)
                )
            authors.append(Role("simulator", client, "", seed))
        try:
            yield authors
        except Exception as error:
            # Without a usable reply, another attempt has to ask anew.
            if journal is not None and not comes_from_models(error):
                journal.clear()
            raise
        if journal is not None:
            journal.clear()


def _print_usage(authors: Sequence[Role]) -> None:
    """Print the number of calls, and the tokens of those that were paid."""
    calls = [call for author in authors for call in author.calls]
    paid = [call for call in calls if not call.cached]
    cached = len(calls) - len(paid)
    tokens = sum(call.input_tokens + call.output_tokens for call in paid)
    echo(f"{len(calls)} calls, {cached} of them cached, {tokens:,} tokens", err=True)
