"""`personabench reproduce`: repeat a table of a paper, and set our numbers beside the published."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.console import echo, emit, screen
from personabench.cli.execution import conclude, execute
from personabench.cli.execution_options import Cache, CachePolicy, Concurrency
from personabench.cli.model_options import Judge, Profiler, Simulator, role_backends
from personabench.cli.option_groups import grouped
from personabench.cli.options import (
    RESULTS,
    Assignments,
    BaseUrl,
    ContextLength,
    Data,
    DryRun,
    EmbedderUrl,
    Headers,
    Json,
    MaxCost,
    Prices,
    Results,
    Split,
    VllmArgs,
)
from personabench.cli.parsing import split_names, split_vllm_args
from personabench.cli.prompt_options import PromptsFile, Wording, read_texts, read_wording

if TYPE_CHECKING:
    from personabench.models.backends.base import BackendOptions
    from personabench.models.roles import RoleName
    from personabench.run.options import Options
    from personabench.run.recipe import Group, Recipe, RecipeModel
    from personabench.run.runner import ResolvedRun

Roles = dict["RoleName", tuple[str, "BackendOptions"]]


@grouped
def reproduce(
    simulator: Simulator,
    judge: Judge,
    profiler: Profiler,
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="Recipe, or a recipe file of your own, FILE.toml (default: list the recipes).",
            metavar="[RECIPE]",
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            "--scale",
            min=1,
            metavar="N",
            help="Smoke run: N samples, by default with the packaged model on example data.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task", "-t", metavar="TASK,..", help="Only these tasks.", show_default=False
        ),
    ] = None,
    data: Data = None,
    split: Split = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            "-b",
            metavar="BACKEND",
            help="Backend of another model (default: the recipe's; local with --scale).",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Another model, or the paper's under another name.",
            show_default=False,
        ),
    ] = None,
    base_url: BaseUrl = None,
    window: ContextLength = None,
    header: Headers = None,
    vllm_args: VllmArgs = None,
    embedder_url: EmbedderUrl = None,
    assignments: Assignments = None,
    wording: Wording = None,
    prompts: PromptsFile = None,
    concurrency: Concurrency = None,
    cache: Cache = CachePolicy.use,
    results: Results = RESULTS,
    dry_run: DryRun = False,
    prices: Prices = None,
    max_cost: MaxCost = None,
    json: Json = False,
) -> None:
    """Repeat a table of a paper beside its published numbers.

    Checks that data and model are there, prints the cost, runs, and compares. The same command
    resumes. --scale N is a smoke run, which is labelled as such and gets no verdict.
    """
    from personabench.models.backends import read_headers
    from personabench.models.backends.base import BackendOptions
    from personabench.models.budget import read_prices
    from personabench.run.options import Options
    from personabench.run.recipe import build_groups, find_recipe

    if recipe is None:
        _list_recipes(json)
        return

    name, content = find_recipe(recipe)
    if task is not None:
        content = content.restrict(split_names(task))
    urls = split_names(base_url or "")
    is_paper_model = not scale and backend is None
    chosen_backend = backend or ("local" if scale else content.model.backend)
    model_options = BackendOptions(
        model or ((content.model.name or None) if is_paper_model else None),
        urls[0] if urls else None,
        window,
        headers=read_headers(header or []),
        replicas=tuple(urls[1:]),
        vllm_args=split_vllm_args(vllm_args),
        embedder_url=embedder_url,
    )
    named_roles = role_backends(
        chosen_backend,
        model_options,
        {"simulator": simulator, "judge": judge, "profiler": profiler},
    )
    options = Options(
        methods=[],
        tasks=[],
        split=split,
        data=_find_data(name, content, data, is_smoke=bool(scale)),
        backend=chosen_backend,
        backend_options=model_options,
        concurrency=concurrency,
        wording=read_wording(wording),
        prompts=read_texts(prompts),
        # Apart from other results: a smoke run must not appear in their tables.
        results=results / "reproduce" / (f"{name}-smoke" if scale else name),
        cache=cache.value,
        roles={**({} if scale else _recipe_roles(content)), **named_roles},
        prices=read_prices(prices) if prices else {},
        max_cost=max_cost,
    )
    _check_model(name, content, options)
    groups = build_groups(content, options, scale=scale, assignments=assignments or [])
    _reproduce(name, content, groups, scale, dry_run=dry_run, json=json)


def _reproduce(
    name: str,
    recipe: Recipe,
    groups: Sequence[Group],
    scale: int | None,
    *,
    dry_run: bool,
    json: bool,
) -> None:
    """Print the plan, execute the runs, and print the comparison."""
    from personabench.cli.plan_table import plan_rows, print_rows
    from personabench.cli.reproduction_table import print_reproduction, to_json
    from personabench.errors import DataError
    from personabench.leaderboard import BoardOptions, boards
    from personabench.leaderboard.reproduction import compare_with_paper, list_run_departures
    from personabench.results.index import Run
    from personabench.run.recipe import describe_departures

    console = screen(err=True)
    options = groups[0].options
    all_options = [group.options for group in groups]
    departures = describe_departures(recipe, options, scale)
    console.print(_title(name, recipe, scale), style="bold", markup=False, soft_wrap=True)

    try:
        rows = plan_rows(all_options)
    except DataError as error:
        raise DataError(f"{error}\n{_describe_data(name, recipe, options.data)}") from error
    if not json:
        print_rows(rows, options.prices, screen())
    if dry_run:
        if json:
            emit(rows)
        return

    folders: dict[int, Path] = {}
    # Runs are announced in the order of the groups.
    waiting = list(groups)

    def note_folders(runs: Sequence[ResolvedRun]) -> None:
        group = waiting.pop(0)
        by_method = {run.method.name: run.folder.path for run in runs}
        for row in group.rows:
            position = recipe.filled.index(row)
            if row.owner in by_method:
                folders[position] = by_method[row.owner]

    announced: set[str] = set()
    outcomes = execute(all_options, console, announced, notify=note_folders)
    runs = [Run(outcome.summary, outcome.folder) for outcome in outcomes]
    unique = list({run.path: run for run in runs}.values())
    ranked = boards(
        unique, options=BoardOptions(recipe.baseline, thorough=True, results=options.results)
    )
    departures += list_run_departures(unique)
    reproduction = compare_with_paper(recipe, folders, ranked, departures, smoke=bool(scale))
    if json:
        emit({"recipe": name, "plan": rows, **to_json(reproduction)})
    else:
        print_reproduction(_title(name, recipe, scale), reproduction, screen())
        echo(f"runs: personabench leaderboard --results {shlex.quote(str(options.results))}")
    conclude(outcomes, options, announced, console)


def _title(name: str, recipe: Recipe, scale: int | None) -> str:
    title = f"{name}: {recipe.title}"
    return f"SMOKE RUN, no reproduction · {title}" if scale else title


def _list_recipes(json: bool) -> None:
    """Print the built-in recipes."""
    from personabench.run.recipe import list_recipes

    recipes = list_recipes()
    if json:
        emit(recipes)
        return
    width = max(map(len, recipes))
    for name, recipe in recipes.items():
        echo(f"{name.ljust(width)}  {recipe.title} · {recipe.model.name or 'any model'}")
    echo("\npersonabench reproduce RECIPE --scale 6 tries one with the packaged model.")


def _recipe_roles(recipe: Recipe) -> Roles:
    """The backends of the recipe's simulator and judge."""
    from typing import cast

    from personabench.models.backends.base import BackendOptions

    return cast(
        Roles,
        {
            role: (model.backend, BackendOptions(model.name or None, role=role))
            for role, model in recipe.roles.items()
        },
    )


def _find_data(name: str, recipe: Recipe, data: Path | None, *, is_smoke: bool) -> Path | None:
    """The folder of the data; None for example data, which only a smoke run uses.

    Raises:
        UsageError: there is none.
    """
    from personabench.errors import UsageError

    if data is not None or is_smoke:
        return data
    folder = _data_folder(name, recipe)
    if not folder.is_dir():
        raise UsageError(f"{folder} does not exist\n{_describe_data(name, recipe, folder)}")
    return folder


def _data_folder(name: str, recipe: Recipe) -> Path:
    return Path(recipe.folder or f"data/{name}")


def _describe_data(name: str, recipe: Recipe, folder: Path | None) -> str:
    """Say how to get the data of a recipe."""
    from personabench.api.data_sources import Downloadable
    from personabench.api.registry import load_class

    target = str(folder or _data_folder(name, recipe))
    lines = [f"{name} needs the data of {recipe.task}:"]
    for task, split in dict.fromkeys((row.task, row.split) for row in recipe.runnable):
        if issubclass(load_class("task", task), Downloadable):
            words = ["personabench", "download", task]
            words += ["--split", split] if split else []
            lines.append(f"  {shlex.join([*words, '--target', target])}")
    if recipe.data:
        lines.append(f"  {recipe.data}")
    lines.append("or name your own copy with --data DIR")
    lines.append(f"smoke run on example data: personabench reproduce {name} --scale 6")
    return "\n".join(lines)


def _check_model(name: str, recipe: Recipe, options: Options) -> None:
    """Check that the models can be had, as far as that is possible without a call.

    Raises:
        UsageError: one cannot; the message says how to get it.
    """
    from personabench.errors import PersonabenchError, UsageError
    from personabench.models.backends import vllm_server
    from personabench.run.interrupts import run_command
    from personabench.run.session import identified_models

    async def identify() -> None:
        async with identified_models(options.guarded()):
            pass

    try:
        served = options.backend_options
        if options.backend == "vllm" and served.base_url is None:
            # Port 1: the command is only looked up, not started.
            vllm_server.command(served.model or "", served.vllm_args, served.window, 1)
        run_command(identify(), farewell="interrupted")
    except PersonabenchError as error:
        raise UsageError(f"{error}\n{_describe_model(name, recipe)}") from error


def _describe_model(name: str, recipe: Recipe) -> str:
    """Say how to get the models of a recipe."""
    models: dict[str, RecipeModel] = {"model under test": recipe.model, **recipe.roles}
    lines = [
        f"{name} needs {model.name or 'a model that you name'} ({role}): {model.how}".rstrip(": ")
        for role, model in models.items()
    ]
    lines.append(
        "a running server is named with --base-url URL, another model with --backend and --model; "
        f"smoke run with the packaged model: personabench reproduce {name} --scale 6"
    )
    return "\n".join(lines)
