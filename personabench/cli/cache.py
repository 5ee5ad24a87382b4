"""`personabench cache`: what is stored, why a call is not, and making room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.options import (
    RESULTS,
    Adapter,
    Backend,
    BaseUrl,
    Data,
    History,
    Json,
    MaxTokens,
    Method,
    Model,
    Omit,
    Results,
    Seed,
    Set,
    Split,
    Task,
    Temperature,
    TopP,
    VllmArgs,
    Window,
    emit,
    names,
    words,
)

if TYPE_CHECKING:
    from pathlib import Path

    from personabench.models.cache import Cache

app = typer.Typer(help="Stored responses: count, explain, delete.", no_args_is_help=True)


@app.command("stats")
def stats(results: Results = RESULTS, json: Json = False) -> None:
    """Count stored responses by model."""
    cache = _opened(results)
    found = cache.stats()
    cache.close()
    if json:
        emit(found)
        return
    typer.echo(
        f"{found['path']}: {found['responses']:,} responses, {found['artifacts']:,} artifacts, ",
        nl=False,
    )
    typer.echo(f"{found['bytes'] / 1e6:.1f} MB")
    for model, count in found["models"].items():
        typer.echo(f"  {count:>9,}  {model}")


@app.command("why")
def why(
    method: Method,
    task: Task,
    sample: Annotated[str, typer.Argument(help="The sample whose calls are looked up.")],
    split: Split = None,
    data: Data = None,
    backend: Backend = "local",
    model: Model = None,
    base_url: BaseUrl = None,
    adapter: Adapter = None,
    omit: Omit = None,
    vllm_args: VllmArgs = None,
    window: Window = None,
    seed: Seed = 0,
    assignments: Set = None,
    history: History = "own",
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = None,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Explain which calls of a sample are stored, and why not.

    For a call that is not stored, the first field in which the nearest stored call differs.
    """
    import asyncio

    from personabench.models.backends.base import BackendOptions
    from personabench.run.options import Options
    from personabench.run.plan import explain
    from personabench.types import Sampling

    options = Options(
        methods=[method],
        tasks=[task],
        split=split,
        data=data,
        backend=backend,
        backend_options=BackendOptions(
            model,
            base_url,
            window,
            vllm_args=words(vllm_args),
            adapter=adapter,
            omit=tuple(names(omit or "")),
        ),
        seed=seed,
        sampling=Sampling(temperature, top_p, max_tokens),
        assignments=assignments or [],
        history=history,
        results=results,
    )
    answers = asyncio.run(explain(options, sample))
    if json:
        emit(answers)
        return
    for answer in answers:
        state = (
            "stored" if answer["stored"] else f"missing; nearest differs in {answer['difference']}"
        )
        typer.echo(f"{answer['phase']:8} {answer['key'][:12]}  {state}")


@app.command("prune")
def prune(
    days: Annotated[float | None, typer.Option("--older-than", help="Age in days.", min=0)] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Only this model's responses.")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Delete stored responses by age or model."""
    from personabench.errors import UsageError

    if days is None and model is None:
        raise UsageError("cache prune: say what to delete with --older-than DAYS or --model NAME")
    cache = _opened(results)
    typer.echo(f"{cache.prune(older_than_days=days, model=model):,} responses deleted")
    cache.close()


def _opened(results: Path) -> Cache:
    from personabench.errors import UsageError
    from personabench.models.cache import Cache

    path = results / "cache.sqlite"
    if not path.is_file():
        raise UsageError(f"no response cache at {path}; `personabench run` makes one")
    return Cache(path)
