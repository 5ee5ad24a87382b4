"""docs/field.md names what the registry has, and everything that it has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer.main

from personabench.api import registry
from personabench.cli.app import app
from personabench.cli.judge import Protocol
from personabench.metrics.judges.custom_rubric import BUNDLED

PAGE = Path(__file__).parents[1] / "docs" / "field.md"
HEADING = "| system | granularity | technique | task | kind | here |"
KINDS = ("task", "method", "wrapper", "judge", "imported", "no")
PLUGINS: tuple[registry.Kind, ...] = ("task", "method", "wrapper")
GRANULARITIES = ("user", "persona", "global")
TECHNIQUES = ("retrieval", "prompting", "representation", "alignment", "metric", "none")
TASKS = ("text", "dialogue", "questions", "labels", "choice", "any")


class Row(NamedTuple):
    """A system of the map."""

    system: str
    granularity: str
    technique: str
    task: str
    kind: str
    here: str

    @property
    def names(self) -> list[str]:
        """What the last cell has in code."""
        return re.findall(r"`([^`]+)`", self.here)


def read_rows(text: str) -> Iterator[Row]:
    """The rows of all tables of systems."""
    for table in text.split(HEADING)[1:]:
        for line in table.strip().splitlines()[1:]:
            if not line.startswith("|"):
                break
            yield Row(*(cell.strip() for cell in line.strip("|").split(" | ")))


ROWS = list(read_rows(PAGE.read_text(encoding="utf-8")))


def find_problems(rows: list[Row]) -> list[str]:
    """Rows that the registry and the commands contradict, and plugins without a row."""
    plugins = {kind: registry.list_entries(kind) for kind in PLUGINS}
    problems = []
    for kind, entries in plugins.items():
        rows_of_kind = [row for row in rows if row.kind == kind]
        for row in rows_of_kind:
            unknown = [name for name in row.names if name not in entries]
            problems += [f"{row.system}: no {kind} named {name}" for name in unknown]
            if not row.names:
                problems.append(f"{row.system}: names no {kind}")
        named = {name for row in rows_of_kind for name in row.names}
        built_in = [name for name, entry in entries.items() if entry.origin == "built-in"]
        problems += [f"{kind} {name} has no row" for name in built_in if name not in named]
    return problems


def test_the_map_and_the_registry_agree() -> None:
    assert find_problems(ROWS) == []


def test_a_name_that_does_not_exist_and_a_plugin_without_a_row_are_found() -> None:
    rows = [row._replace(here=row.here.replace("`dpl`", "`dpl2`")) for row in ROWS]
    assert find_problems(rows) == [
        "DPL, arXiv 2503.02450: no method named dpl2",
        "method dpl has no row",
    ]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.system)
def test_every_row_has_values_of_the_axes_and_says_what_it_is(row: Row) -> None:
    assert row.kind in KINDS
    for cell, values in ((row.granularity, GRANULARITIES), (row.technique, TECHNIQUES)):
        words = [part.split()[0] for part in cell.split(", ")]
        assert set(words) <= set(values), cell
    assert row.task.split(",")[0].split()[0] in TASKS
    # One that is not built says why.
    assert row.kind in (*PLUGINS, "judge") or len(row.here.split()) > 4


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.kind == "judge"], ids=lambda row: row.system
)
def test_every_judge_is_a_command_with_options_and_names_that_exist(row: Row) -> None:
    (command,) = row.names
    verb, *words = command.split()
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {name for param in verbs[verb].params for name in param.opts}
    assert {word for word in words if word.startswith("--")} <= options
    values = dict(zip(words, [*words[1:], ""], strict=True))
    if "--protocol" in values:
        assert values["--protocol"] in list(Protocol)
    if "--judge-rubric" in values:
        assert (BUNDLED / f"{values['--judge-rubric']}.yaml").is_file()
    if "--task" in values:
        assert values["--task"] in registry.list_entries("task")


def test_rubrics_and_protocols_have_a_row() -> None:
    commands = " ".join(name for row in ROWS if row.kind == "judge" for name in row.names)
    for name in [*(path.stem for path in BUNDLED.glob("*.yaml")), *Protocol]:
        assert re.search(rf"\b{re.escape(name)}\b", commands), name
