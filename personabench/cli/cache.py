"""`personabench cache`: what is stored, why a call is not, and making room."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from personabench.cli.options import RESULTS, Data, Json, Results, Set, Split, emit

app = typer.Typer(help="The response cache.", no_args_is_help=True)


@app.command("stats")
def stats(results: Results = RESULTS, json: Json = False) -> None:
    """How many responses are stored, for which models, in how many bytes."""
    from personabench.cache import Cache

    cache = Cache(results / "cache.sqlite")
    found = cache.stats()
    cache.close()
    if json:
        emit(found)
        return
    typer.echo(f"{found['path']}: {found['responses']:,} responses, {found['artifacts']:,} artifacts, ", nl=False)
    typer.echo(f"{found['bytes'] / 1e6:.1f} MB")
    for model, count in found["models"].items():
        typer.echo(f"  {count:>9,}  {model}")


@app.command("why")
def why(
    method: Annotated[str, typer.Option("--method", "-m")],
    task: Annotated[str, typer.Option("--task", "-t")],
    sample: Annotated[str, typer.Argument(help="The sample whose calls are looked up.")],
    split: Split = None,
    data: Data = None,
    backend: Annotated[str, typer.Option("--backend", "-b")] = "local",
    model: Annotated[str | None, typer.Option("--model")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url")] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    assignments: Set = None,
    history: Annotated[str, typer.Option("--history")] = "own",
    temperature: Annotated[float, typer.Option("--temperature")] = 0.0,
    top_p: Annotated[float, typer.Option("--top-p")] = 1.0,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens")] = None,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Say, for each call of a sample, whether it is stored, and the first field in which the nearest one differs."""
    from personabench.backends import BackendOptions
    from personabench.plan import explain
    from personabench.runner import Options
    from personabench.spec import Sampling

    options = Options(
        methods=[method],
        tasks=[task],
        split=split,
        data=data,
        backend=backend,
        backend_options=BackendOptions(model, base_url),
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
        state = "stored" if answer["stored"] else f"missing; nearest differs in {answer['difference']}"
        typer.echo(f"{answer['phase']:8} {answer['key'][:12]}  {state}")


@app.command("prune")
def prune(
    days: Annotated[float | None, typer.Option("--older-than", help="Age in days.", min=0)] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only this model's responses.")] = None,
    results: Results = RESULTS,
) -> None:
    """Delete stored responses by age or model."""
    from personabench.cache import Cache
    from personabench.errors import UsageError

    if days is None and model is None:
        raise UsageError("cache prune: say what to delete with --older-than DAYS or --model NAME")
    cache = Cache(results / "cache.sqlite")
    typer.echo(f"{cache.prune(older_than_days=days, model=model):,} responses deleted")
    cache.close()
