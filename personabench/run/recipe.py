"""Recipes: one TOML file for each table of a paper, with what to run and the published numbers.

    title = "DPL on book reviews"
    source = "arXiv 2507.20849"
    task = "reviews"
    split = "Books/test"
    metric = "rouge-1"

    [model]
    name = "Qwen/Qwen2.5-7B-Instruct"
    backend = "vllm"

    [[rows]]
    method = "dpl"
    set = { preset = "paper" }
    published = { rouge-1 = 0.3194 }

A recipe is turned into the options of `personabench run`, so that it is resolved, executed and
ranked like any other command.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

import msgspec

from personabench.api.params import format_value
from personabench.api.registry import load_class
from personabench.errors import UsageError
from personabench.models.roles import RoleName
from personabench.run.options import Options
from personabench.types import Sampling

BUILT_IN = Path(__file__).parent / "recipes"


class RecipeModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model that a paper used.

    Attributes:
        name: as a server or the hub names it; empty if the paper names none.
        backend: backend of `personabench run` that serves it.
        how: how to get it, in one sentence.
    """

    name: str = ""
    backend: str = "openai"
    how: str = ""


class Decoding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sampling of every row that does not set its own by `preset=paper`."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int | None = None


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of the paper's table.

    Attributes:
        label: the row's name in the paper; empty for the method's.
        method: the method to run; empty for a row that is only quoted.
        task, split: as in `Recipe`, if this row has others.
        set: parameters of the method.
        published: the paper's numbers, by the metric's name in this project.
    """

    label: str = ""
    method: str = ""
    task: str = ""
    split: str = ""
    set: dict[str, Any] = {}
    published: dict[str, float] = {}

    def __post_init__(self) -> None:
        if not self.label and not self.method:
            raise ValueError("a row needs a method to run, or a label to quote")

    @property
    def name(self) -> str:
        """The row's name in tables."""
        return self.label or self.method

    @property
    def owner(self) -> str:
        """The name of the method, also of one that is given as a file.

        Raises:
            UsageError: there is no such method.
        """
        name: str = load_class("method", self.method).name
        return name


class Smoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Changes of `--scale`, which runs without the paper's model and often without its data.

    Attributes:
        set: assignments as of `--set`, applied after those of the rows.
        max_tokens: of answers, since a small model may not end its own.
    """

    set: tuple[str, ...] = ()
    max_tokens: int | None = None


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a paper as runs.

    Attributes:
        title: its content, in a few words.
        source: where the numbers are published.
        task, split: of every row that names no other; `split` as of `--split`.
        metric: the metric whose gains over `baseline` are compared.
        baseline: the method that gains are measured against.
        model: the model under test; roles: models of the simulator, the judge and the profiler.
        task_params: options of the tasks.
        limit: number of samples that the paper drew; None for all.
        tolerance: by metric, by how much published repetitions of one row differ.
        caveats: what cannot be had, or is not known, each in a sentence.
        data: how to get the data, if `personabench download` does not.
        folder: where it is looked for; default: `data/RECIPE`.
        rows: the rows, in the paper's order.
    """

    title: str
    source: str
    task: str
    split: str | None = None
    metric: str
    baseline: str = "none"
    model: RecipeModel = RecipeModel()
    roles: dict[str, RecipeModel] = {}
    decoding: Decoding = Decoding()
    task_params: dict[str, Any] = {}
    limit: int | None = None
    tolerance: dict[str, float] = {}
    caveats: tuple[str, ...] = ()
    data: str = ""
    folder: str = ""
    smoke: Smoke = Smoke()
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        if not any(row.method for row in self.rows):
            raise ValueError("no row has a method to run")
        unknown = sorted(set(self.roles) - set(get_args(RoleName)))
        if unknown:
            raise ValueError(f"role '{unknown[0]}' is none of {', '.join(get_args(RoleName))}")

    @property
    def runnable(self) -> list[Row]:
        """The rows that are run, with their tasks and splits filled in."""
        return [row for row in self.filled if row.method]

    @property
    def filled(self) -> list[Row]:
        """All rows, with their tasks and splits filled in."""
        return [
            msgspec.structs.replace(
                row, task=row.task or self.task, split=row.split or self.split or ""
            )
            for row in self.rows
        ]

    def restrict(self, tasks: Sequence[str]) -> Recipe:
        """The recipe with the rows of some of its tasks.

        Raises:
            UsageError: a task that no row has.
        """
        present = list(dict.fromkeys(row.task for row in self.filled))
        for task in tasks:
            if task not in present:
                raise UsageError(f"--task {task}: the recipe has {', '.join(present)}")
        rows = tuple(row for row in self.filled if row.task in tasks)
        return msgspec.structs.replace(self, rows=rows)


def list_recipes() -> dict[str, Recipe]:
    """The built-in recipes by name."""
    return {name: read_recipe(BUILT_IN / f"{name}.toml") for name in _list_names()}


def _list_names() -> list[str]:
    return sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def find_recipe(name: str) -> tuple[str, Recipe]:
    """A built-in recipe by name, or one from a file; with its name.

    Raises:
        UsageError: there is none, or the file is wrong.
    """
    path = Path(name)
    if path.suffix == ".toml":
        return path.stem, read_recipe(path)

    built_in = BUILT_IN / f"{name}.toml"
    if not built_in.is_file():
        raise UsageError(
            f"no recipe '{name}'; there are {', '.join(_list_names())}, "
            "and FILE.toml names your own"
        )
    return name, read_recipe(built_in)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        UsageError: the file cannot be read, or is no recipe; the message names the field.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(tables, Recipe)
    except OSError as error:
        raise UsageError(f"recipe {path}: {error.strerror}") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise UsageError(f"recipe {path}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows that one command of `personabench run` makes.

    Attributes:
        options: of that command; rows: one for each of its methods, in their order.
    """

    options: Options
    rows: Sequence[Row]


def build_groups(
    recipe: Recipe,
    common: Options,
    *,
    scale: int | None = None,
    assignments: Sequence[str] = (),
) -> list[Group]:
    """Build the commands of a recipe: rows of one task and split together, a method once in each.

    Args:
        common: model, data, results and execution; without data, the example data's own splits.
        scale: number of samples of a smoke run; None for the recipe's own.
        assignments: further ones, which win.
    """
    groups = []
    for rows in _group_rows(recipe.runnable, common.data is None):
        first = rows[0]
        set_by_rows = [
            f"{row.owner}.{key}={format_value(value)}"
            for row in rows
            for key, value in row.set.items()
        ]
        set_by_task = [
            f"task.{key}={format_value(value)}" for key, value in recipe.task_params.items()
        ]
        set_by_smoke = recipe.smoke.set if scale else ()
        decoding = recipe.decoding
        max_tokens = (recipe.smoke.max_tokens if scale else None) or decoding.max_tokens
        options = dataclasses.replace(
            common,
            methods=[row.method for row in rows],
            tasks=[first.task],
            split=common.split or (None if common.data is None else first.split or None),
            limit=scale or recipe.limit,
            sampling=Sampling(decoding.temperature, decoding.top_p, max_tokens),
            assignments=[
                *set_by_task,
                *set_by_rows,
                *_select(set_by_smoke, rows),
                *_select(assignments, rows),
            ],
        )
        groups.append(Group(options, rows))
    return groups


def _group_rows(rows: Sequence[Row], is_example: bool) -> list[list[Row]]:
    groups: list[list[Row]] = []
    seen: list[Row] = []
    for row in rows:
        # The example data stand for every split of a task, and are run once.
        data = msgspec.structs.replace(row, split="") if is_example else row
        run = msgspec.structs.replace(data, label="", published={})
        if run in seen:
            continue
        seen.append(run)
        for group in groups:
            first = group[0]
            same_data = row.task == first.task and (is_example or row.split == first.split)
            if same_data and row.method not in [member.method for member in group]:
                group.append(row)
                break
        else:
            groups.append([row])
    return groups


def _select(assignments: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Those of the assignments whose owner is part of a command."""
    owners = {"", "task", *(row.owner for row in rows)}
    return [text for text in assignments if text.partition("=")[0].rpartition(".")[0] in owners]


def describe_departures(recipe: Recipe, options: Options, scale: int | None) -> list[str]:
    """Why numbers cannot be compared with the paper's, as far as the command decides."""
    departures = []
    if scale:
        departures.append(f"smoke size (--scale {scale})")
        changes = list(recipe.smoke.set)
        if recipe.smoke.max_tokens:
            changes.append(f"max_tokens={recipe.smoke.max_tokens}")
        if changes:
            departures.append(f"smoke settings ({', '.join(changes)})")
    if not is_same_model(options.backend_options.model or "", recipe.model.name):
        paper = recipe.model.name or "a model that it does not name"
        departures.append(f"another model than the paper's, {paper}")
    for role, model in recipe.roles.items():
        named = options.roles.get(cast(RoleName, role))
        if named is None or not is_same_model(named[1].model or "", model.name):
            departures.append(f"another {role} than the paper's, {model.name}")
    return departures


def is_same_model(name: str, paper: str) -> bool:
    """Whether a model is the paper's, whatever folder or organisation is before its name.

    A dated release of the same name counts.
    """
    short, wanted = (text.rstrip("/").rpartition("/")[2].casefold() for text in (name, paper))
    rest = short.removeprefix(wanted)
    return bool(wanted) and short.startswith(wanted) and not rest.strip("-0123456789")
