"""`personabench cache`: count, explain and delete stored responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.console import echo, emit
from personabench.cli.help import PanelCommand
from personabench.cli.model_options import ModelArguments
from personabench.cli.options import (
    RESULTS,
    Adapter,
    Assignments,
    Backend,
    BaseUrl,
    ContextLength,
    Data,
    Extra,
    History,
    Json,
    MaxTokens,
    Method,
    Model,
    OmitParams,
    Reasoning,
    Results,
    Seed,
    Split,
    Task,
    Temperature,
    TopP,
    VllmArgs,
)
from personabench.cli.prompt_options import PromptsFile, Wording, read_texts, read_wording

if TYPE_CHECKING:
    from pathlib import Path

    from personabench.models.cache import Cache

app = typer.Typer(help="Count, explain or delete stored responses.", no_args_is_help=True)


@app.command("stats")
def stats(results: Results = RESULTS, json: Json = False) -> None:
    """Count stored responses by model."""
    cache = _open_cache(results)
    stats = cache.stats()
    cache.close()
    if json:
        emit(stats)
        return

    counts = f"{stats['responses']:,} responses, {stats['artifacts']:,} artifacts"
    echo(f"{stats['path']}: {counts}, {stats['bytes'] / 1e6:.1f} MB")
    for model, count in stats["models"].items():
        echo(f"  {count:>9,}  {model}")


@app.command("why", cls=PanelCommand)
def why(
    method: Method,
    task: Task,
    sample: Annotated[str, typer.Argument(help="Sample id.", metavar="SAMPLE")],
    split: Split = None,
    data: Data = None,
    backend: Backend = "local",
    model: Model = None,
    base_url: BaseUrl = None,
    adapter: Adapter = None,
    omit: OmitParams = None,
    extra: Extra = None,
    reasoning: Reasoning = None,
    vllm_args: VllmArgs = None,
    window: ContextLength = None,
    seed: Seed = 0,
    assignments: Assignments = None,
    history: History = "own",
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = None,
    results: Results = RESULTS,
    wording: Wording = None,
    prompts: PromptsFile = None,
    json: Json = False,
) -> None:
    """Show which calls of a sample are stored, and why others are not.

    For a call that is not stored, the first field is shown in which the nearest stored call
    differs.
    """
    import asyncio

    from personabench.run.options import Options
    from personabench.run.plan import explain
    from personabench.types import Sampling

    arguments = ModelArguments(
        model=model,
        base_url=base_url,
        window=window,
        vllm_args=vllm_args,
        omit=omit,
        extra=extra,
        reasoning=reasoning,
    )
    options = Options(
        methods=[method],
        tasks=[task],
        split=split,
        data=data,
        backend=backend,
        backend_options=arguments.read(adapter=adapter),
        seed=seed,
        sampling=Sampling(temperature, top_p, max_tokens),
        assignments=assignments or [],
        wording=read_wording(wording),
        prompts=read_texts(prompts),
        history=history,
        results=results,
    )
    answers = asyncio.run(explain(options, sample))
    if json:
        emit(answers)
        return
    for answer in answers:
        state = "stored"
        if not answer["stored"]:
            state = f"missing; nearest differs in {answer['difference']}"
        echo(f"{answer['phase']:8} {answer['key'][:12]}  {state}")


@app.command("prune")
def prune(
    days: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            min=0,
            metavar="DAYS",
            help="Only responses older than this.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Only responses of this model."),
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Delete stored responses by age or model."""
    from personabench.errors import UsageError

    if days is None and model is None:
        raise UsageError("cache prune: choose responses with --older-than DAYS or --model NAME")

    # Without a condition every paid response would be deleted.
    cache = _open_cache(results)
    deleted = cache.prune(older_than_days=days, model=model)
    cache.close()
    echo(f"{deleted:,} responses deleted")


def _open_cache(results: Path) -> Cache:
    """Open the response cache of a results folder.

    Raises:
        UsageError: there is none.
    """
    from personabench.errors import UsageError
    from personabench.models.cache import Cache

    path = results / "cache.sqlite"
    if not path.is_file():
        raise UsageError(f"no response cache at {path}; `personabench run` creates one")
    return Cache(path)
