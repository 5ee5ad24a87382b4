"""`personabench list`: methods, wrappers, tasks, backends, metrics and runs."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personabench.cli.console import echo, emit
from personabench.cli.options import RESULTS, Json, OnlyMethod, OnlyTask, Results

if TYPE_CHECKING:
    from personabench.api.compatibility import Cell
    from personabench.api.registry import Kind


listing = typer.Typer(
    help="List methods, wrappers, tasks, backends, metrics or runs.", no_args_is_help=True
)


@listing.command("methods")
def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Method name, file.py[:Class] or METHOD+WRAPPER: show its parameters.",
            metavar="METHOD",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List methods with their needs, or one with its parameters."""
    from personabench.api.registry import list_entries

    if name is not None:
        _print_plugin("method", name, json)
        return
    rows = []
    for entry in list_entries("method").values():
        needs = entry.facts.get("needs", ())
        row = {
            "name": entry.name,
            "needs": ", ".join(needs),
            "origin": entry.origin,
            "about": entry.about,
        }
        rows.append(row)
    _print_rows(rows, json)


@listing.command("wrappers")
def wrappers(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Wrapper name or file.py[:Class]: show its parameters.",
            metavar="WRAPPER",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List wrappers of methods, or one with its parameters.

    A plus sign puts a wrapper around any method: METHOD+WRAPPER.
    """
    from personabench.api.registry import list_entries

    if name is not None:
        _print_plugin("wrapper", name, json)
        return
    rows = [
        {"name": entry.name, "origin": entry.origin, "about": entry.about}
        for entry in list_entries("wrapper").values()
    ]
    _print_rows(rows, json)


@listing.command("tasks")
def tasks(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Task name, file.py[:Class] or file.toml: show its facts and parameters.",
            metavar="TASK",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List tasks with their kind, or one with its parameters."""
    from personabench.api.registry import list_entries

    if name is not None:
        _print_plugin("task", name, json)
        return
    rows = [
        {
            "name": entry.name,
            "kind": entry.facts.get("kind", "text"),
            "origin": entry.origin,
            "title": entry.facts.get("title", ""),
        }
        for entry in list_entries("task").values()
    ]
    _print_rows(rows, json)


def _print_plugin(kind: Kind, name: str, json: bool) -> None:
    from personabench.cli.plugin_facts import describe_plugin, format_plugin

    facts = describe_plugin(kind, name)
    if json:
        emit(facts)
        return
    owner = "task" if kind == "task" else facts["name"]
    for line in format_plugin(facts, owner):
        echo(line)


SYMBOLS = {"faithful": "●", "adapted": "○", "refused": "–"}

LEGEND = "● faithful with its paper's settings, or made for any task  ○ adapted  – refused, no call"

# A narrower last column than this is not wrapped: one word per line is harder to read than a wide
# line.
_MIN_WRAP_WIDTH = 20


@listing.command("matrix")
def matrix(
    task: OnlyTask = None,
    method: OnlyMethod = None,
    json: Json = False,
) -> None:
    """Show which method runs on which task, and as what."""
    from personabench.api.compatibility import matrix
    from personabench.api.registry import describe, list_entries

    methods = [describe("method", method)] if method else [*list_entries("method").values()]
    tasks = [describe("task", task)] if task else [*list_entries("task").values()]
    cells = matrix(methods, tasks)
    if json:
        emit([cell._asdict() for cell in cells])
        return

    width = shutil.get_terminal_size().columns
    for line in _format_matrix(cells, width):
        echo(line)

    # Their code is only imported when it is named, so nothing is known about them here.
    installed = [entry.name for entry in (*methods, *tasks) if not entry.described]
    if installed:
        listed = ", ".join(installed)
        echo(f"\nAlso installed; name one with --task or --method: {listed}")


def _format_matrix(cells: Sequence[Cell], width: int) -> Iterator[str]:
    """Format cells as symbols, as many tasks side by side as fit, then legend and reasons."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    symbols = {}
    for cell in cells:
        symbols[cell.method, cell.task] = SYMBOLS[cell.fit]
    method_width = max(map(len, methods))

    blank = " " * method_width
    for block in _split_columns(tasks, width - method_width):
        heading = " ".join([blank, *block])
        # A long name of one task takes the room above the methods as well.
        yield heading.rstrip() if len(heading) <= width else block[0].rjust(width)
        room = max(width - method_width - 1, 1)

        for method in methods:
            texts = [method.ljust(method_width)]
            for task in block:
                symbol = symbols[method, task]
                texts.append(symbol.center(min(len(task), room)))
            row = " ".join(texts)
            yield row.rstrip()
        yield ""

    yield from textwrap.wrap(LEGEND, width)
    yield from _format_refusals(cells, width)


def _split_columns(headings: Sequence[str], width: int) -> list[list[str]]:
    """Split columns into blocks that fit a width, with at least one column each."""
    blocks: list[list[str]] = []
    used = 0
    for heading in headings:
        needed = len(heading) + 1
        if not blocks or used + needed > width:
            blocks.append([])
            used = 0
        blocks[-1].append(heading)
        used += needed
    return blocks


def _format_refusals(cells: Sequence[Cell], width: int) -> Iterator[str]:
    """Format the reasons of refusals, with the methods and tasks that share each."""
    tasks_by_reason: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        if cell.fit == "refused":
            tasks_by_method = tasks_by_reason.setdefault(cell.reason, {})
            tasks = tasks_by_method.setdefault(cell.method, [])
            tasks.append(cell.task)

    for reason, tasks_by_method in tasks_by_reason.items():
        methods_by_tasks: dict[str, list[str]] = {}
        for method, tasks in tasks_by_method.items():
            key = ", ".join(tasks)
            methods = methods_by_tasks.setdefault(key, [])
            methods.append(method)

        pairs = []
        for joined_tasks, methods in methods_by_tasks.items():
            joined_methods = ", ".join(methods)
            pairs.append(f"{joined_methods} on {joined_tasks}")
        joined_pairs = "; ".join(pairs)
        text = f"– {joined_pairs}: {reason}"
        yield from textwrap.wrap(text, width, subsequent_indent="  ")


@listing.command("backends")
def backends(json: Json = False) -> None:
    """List backends."""
    from personabench.models.backends import BACKENDS

    rows = []
    for name, (_, about) in BACKENDS.items():
        row = {"name": name, "about": about}
        rows.append(row)
    _print_rows(rows, json)


@listing.command("metrics")
def metrics(json: Json = False) -> None:
    """List the metrics of each task, the primary one first."""
    from personabench.api.registry import list_entries, load_class

    rows = []
    for name in list_entries("task"):
        cls = load_class("task", name)
        for index, metric in enumerate(cls.metrics):
            row = {
                "task": name,
                "metric": metric.name,
                "better": "higher" if metric.higher_is_better else "lower",
                "primary": index == 0,
            }
            rows.append(row)

    external = {
        "task": "any",
        "metric": "evaluate:NAME",
        "better": "",
        "primary": False,
    }
    rows.append(external)
    _print_rows(rows, json)


@listing.command("runs")
def runs(results: Results = RESULTS, json: Json = False) -> None:
    """List runs, oldest first."""
    from personabench.results.index import label, read_runs

    recorded_runs = read_runs(results)
    rows = []
    for run in recorded_runs:
        summary = run.summary
        primary = summary.primary
        value = summary.score(primary)
        score = "–" if value is None else f"{primary} {value:.4f}"
        row: dict[str, Any] = {
            "run": summary.fingerprint[:8],
            "task": summary.title,
            "method": label(summary),
            "model": summary.model,
            "n": summary.n,
        }
        if json:
            row[primary] = value
            row["status"] = summary.status
            row["data"] = summary.source
            row["time"] = summary.time
            row["folder"] = str(run.path)
        else:
            row["score"] = score
            row["status"] = summary.status
            row["data"] = "example data" if summary.sample else _word_place(summary.source)
        rows.append(row)

    if not rows and not json:
        echo(f"no runs under {results}/runs; make one with `personabench run`")
        return
    _print_rows(rows, json)
    if json:
        return

    summaries = [run.summary for run in recorded_runs]
    sources = {summary.source for summary in summaries if summary.sample}
    for source in sorted(sources):
        echo(f"example data: {source}")


def _word_place(source: str) -> str:
    """The place of a run's data; without the folders of another machine, which are not here."""
    path = Path(source)
    return path.name if path.is_absolute() and not path.exists() else source


def _print_rows(rows: Sequence[dict[str, Any]], json: bool) -> None:
    """Print rows as aligned text, the last column wrapped to the terminal, or as JSON."""
    if json:
        emit(rows)
        return

    headings = list(rows[0])
    table = [headings]
    for row in rows:
        texts = [_format_cell(value) for value in row.values()]
        table.append(texts)

    # The last column has no fixed width.
    *columns, _ = zip(*table, strict=True)
    widths = [max(map(len, column)) for column in columns]
    indent = sum(widths) + 2 * len(widths)

    # Lines in a file or a pipe stay whole, so that `grep` and `cut` work on them.
    width = 0
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - indent

    for *texts, last_text in table:
        last = [last_text]
        if width >= _MIN_WRAP_WIDTH:
            last = textwrap.wrap(last_text, width) or [""]

        padded = []
        for text, size in zip(texts, widths, strict=True):
            padded.append(text.ljust(size))
        cells = "  ".join(padded)
        first_line = f"{cells}  {last[0]}"
        echo(first_line.rstrip())
        for line in last[1:]:
            echo(" " * indent + line)


def _format_cell(value: Any) -> str:
    """Format a cell: yes for true, empty for false or missing."""
    if value is True:
        return "yes"
    if value in (False, None):
        return ""
    return str(value)
