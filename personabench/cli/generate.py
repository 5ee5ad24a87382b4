"""`personabench generate`: a new data set of a task's form, written by models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from personabench.cli.options import (
    RESULTS,
    ApiVersion,
    Backend,
    BaseUrl,
    CachePolicy,
    Headers,
    Model,
    Results,
    Seed,
)


def generate(
    task: Annotated[str, typer.Argument(help="The task whose form the set has.")],
    source: Annotated[
        str,
        typer.Option(
            "--source",
            help="A source benchmark of the task, or a file of problems (JSON lines, CSV).",
        ),
    ],
    target: Annotated[Path, typer.Option("--target", help="Folder that receives the set.")] = Path(
        "data"
    ),
    problems: Annotated[
        int, typer.Option("--problems", min=1, help="Problems taken from the source.")
    ] = 100,
    personas: Annotated[
        int, typer.Option("--personas", min=1, help="People for each problem.")
    ] = 10,
    library: Annotated[
        int, typer.Option("--persona-pool", min=1, help="People in all, shared by a folder's sets.")
    ] = 100,
    backend: Backend = "local",
    model: Model = None,
    base_url: BaseUrl = None,
    header: Headers = None,
    api_version: ApiVersion = None,
    seed: Seed = 0,
    results: Results = RESULTS,
    cache: Annotated[
        CachePolicy,
        typer.Option("--cache", help="Use stored responses, renew them, or call never."),
    ] = CachePolicy.use,
) -> None:
    """Write a new data set for a task with models as authors.

    Several models, with commas, share the work. Repeating the command goes on where it stopped.
    """
    import asyncio

    from personabench.api.data_sources import Generative
    from personabench.api.registry import load
    from personabench.cli.options import names
    from personabench.errors import UsageError
    from personabench.models.backends import read_headers
    from personabench.models.backends.base import BackendOptions

    found = load("task", task)()
    if not isinstance(found, Generative):
        raise UsageError(f"task {found.name} makes no sets of its own")
    wanted: list[str | None] = [*names(model or "")] or [None]
    options = [
        BackendOptions(each, base_url, headers=read_headers(header or []), api_version=api_version)
        for each in wanted
    ]

    async def go() -> Path:
        import contextlib

        from personabench.models import backends
        from personabench.models.cache import Cache
        from personabench.models.client import Client
        from personabench.models.roles import Role

        async with contextlib.AsyncExitStack() as stack:
            stored = None
            if cache != "off":
                stored = stack.enter_context(
                    contextlib.closing(Cache(results / "cache.sqlite", writing=True))
                )
            authors = []
            for each in options:
                author = backends.create(backend, each)
                stack.push_async_callback(author.aclose)
                await author.identify()
                await author.open()
                authors.append(
                    Role(
                        "simulator",
                        Client(author, stored, cache.value, author.concurrency),
                        "",
                        seed,
                    )
                )
            made: Path = await found.generate(
                source,
                target,
                authors,
                problems=problems,
                people=personas,
                library=library,
                seed=seed,
                notice=lambda line: typer.echo(line, err=True),
            )
            calls = [call for author in authors for call in author.calls]
            cached = sum(call.cached for call in calls)
            tokens = sum(
                call.input_tokens + call.output_tokens for call in calls if not call.cached
            )
            typer.echo(f"{len(calls)} calls, {cached} of them cached, {tokens:,} tokens", err=True)
            return made

    made = asyncio.run(go())
    typer.echo(
        f"ready: personabench run --task {task} --data {target} --split {made.stem} --method none"
    )
