"""`personabench leaderboard` and `personabench list`."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personabench.cli.options import RESULTS, Json, Results, emit, screen

if TYPE_CHECKING:
    from rich.console import Console

    from personabench.compatibility import Cell
    from personabench.leaderboard import Board


class Format(StrEnum):
    """How a leaderboard is written."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"


def leaderboard(
    task: Annotated[str | None, typer.Option("--task", "-t", help="Only this task.", show_default=False)] = None,
    results: Results = RESULTS,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to write it.")] = Format.table,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write to.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Rank the runs, a row per method, parameters and model."""
    from personabench.errors import UsageError
    from personabench.leaderboard import as_csv, as_json, as_markdown, boards, summaries

    runs = summaries(results)
    found = boards(runs, task)
    if not runs:
        raise UsageError(f"no runs under {results}/runs; make one with `personabench run`")
    if not found:
        there = ", ".join(sorted({run["task"] for run in runs}))
        raise UsageError(f"no runs of task '{task}' under {results}/runs; there are runs of {there}")
    if json or format is Format.json:
        text = as_json(found)
    elif format is Format.md:
        text = as_markdown(found)
    elif format is Format.csv:
        text = as_csv(found)
    elif output is None:
        print_boards(found, screen())
        return
    else:
        text = _as_text(found)
    if output is None:
        typer.echo(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error.strerror}") from error
    typer.echo(f"wrote {output}", err=True)


def print_boards(found: Sequence[Board], console: Console) -> None:
    """Boards as tables for a terminal; what is the same, or zero, in every row takes no column."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from personabench.leaderboard import WORDS, cell

    for board in found:
        models = {row["model"] for row in board.rows}
        title = f"{board.title} · {models.pop()}" if len(models) == 1 else board.title
        grid = Table(title=Text(title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
        columns = {name: heading for name, heading in board.columns.items() if name not in TOKENS}
        if " · " in title:
            del columns["model"]
        if not any(row["owed"] for row in board.rows):
            del columns["owed"]
        for name, heading in {**columns, "tokens": "tokens"}.items():
            width = max(map(len, heading.replace(" ↑", "_↑").replace(" ↓", "_↓").split()))
            grid.add_column(
                Text(heading), justify="left" if name in WORDS else "right", overflow="fold", min_width=width
            )
        for row in board.rows:
            tokens = _thousands(sum(row[name] for name in TOKENS))
            grid.add_row(*(Text(cell(name, row.get(name))) for name in columns), tokens)
        console.print(grid)
        for note in board.notes:
            console.print(f" {note}", markup=False, style="dim")


TOKENS = ("input_tokens", "output_tokens")


def _thousands(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.1f}k" if count >= 1000 else str(count)


def _as_text(found: Sequence[Board]) -> str:
    import io

    from rich.console import Console

    file = io.StringIO()
    print_boards(found, Console(file=file, width=200, highlight=False))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


listing = typer.Typer(help="List methods, tasks, their matrix, backends, metrics or runs.", no_args_is_help=True)


@listing.command("methods")
def methods(json: Json = False) -> None:
    """Methods, what they need and where they come from."""
    from personabench.registry import entries

    _show(
        [
            {"name": e.name, "needs": ", ".join(e.facts.get("needs", ())), "origin": e.origin, "about": e.about}
            for e in entries("method").values()
        ],
        json,
    )


@listing.command("tasks")
def tasks(json: Json = False) -> None:
    """Tasks, with their kind of response."""
    from personabench.registry import entries

    _show(
        [
            {"name": e.name, "kind": e.facts.get("kind", "text"), "origin": e.origin, "title": e.facts.get("title", "")}
            for e in entries("task").values()
        ],
        json,
    )


SYMBOLS = {"faithful": "●", "adapted": "○", "refused": "–"}
LEGEND = "● faithful: the method's paper has this kind of task  ○ adapted  – refused before any call"


@listing.command("matrix")
def matrix(
    task: Annotated[str | None, typer.Option("--task", "-t", help="Only this task.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Which method runs on which task: faithful, adapted, or refused and why."""
    from personabench.compatibility import matrix
    from personabench.errors import UsageError
    from personabench.registry import entries

    known = [*entries("task")]
    if task is not None and task not in known:
        raise UsageError(f"no task named '{task}'; known: {', '.join(known)}")
    methods = entries("method").values()
    cells = matrix(methods, known if task is None else [task])
    if json:
        emit([cell._asdict() for cell in cells])
        return
    for line in _grid(cells, shutil.get_terminal_size().columns):
        typer.echo(line)
    if unread := [entry.name for entry in methods if entry.origin != "built-in"]:
        typer.echo(f"\nInstalled besides, fit known when they run: {', '.join(unread)}")


def _grid(cells: Sequence[Cell], width: int) -> Iterator[str]:
    """Cells as symbols, tasks side by side as far as the width goes, then legend and reasons."""
    methods, tasks = dict.fromkeys(cell.method for cell in cells), list(dict.fromkeys(cell.task for cell in cells))
    symbols = {(cell.method, cell.task): SYMBOLS[cell.fit] for cell in cells}
    left = max(map(len, methods))
    while tasks:
        block: list[str] = []
        while tasks and (not block or left + sum(len(name) + 1 for name in [*block, tasks[0]]) <= width):
            block.append(tasks.pop(0))
        yield " ".join([" " * left, *block]).rstrip()
        for method in methods:
            row = [symbols[method, task].center(len(task)) for task in block]
            yield " ".join([method.ljust(left), *row]).rstrip()
        yield ""
    yield from textwrap.wrap(LEGEND, width)
    refusals: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        if cell.fit == "refused":
            refusals.setdefault(cell.reason, {}).setdefault(cell.method, []).append(cell.task)
    for reason, refused in refusals.items():
        where: dict[str, list[str]] = {}
        for method, names in refused.items():
            where.setdefault(", ".join(names), []).append(method)
        told = "; ".join(f"{', '.join(methods)} on {names}" for names, methods in where.items())
        yield from textwrap.wrap(f"– {told}: {reason}", width, subsequent_indent="  ")


@listing.command("backends")
def backends(json: Json = False) -> None:
    """Backends: where answers come from."""
    from personabench.backends import BACKENDS

    _show([{"name": name, "about": about} for name, (_, about) in BACKENDS.items()], json)


@listing.command("metrics")
def metrics(json: Json = False) -> None:
    """Metrics of each task, the primary one first."""
    from personabench.registry import entries, load

    rows = []
    for name in entries("task"):
        for position, metric in enumerate(load("task", name).metrics):
            better = "higher" if metric.higher_is_better else "lower"
            rows.append({"task": name, "metric": metric.name, "better": better, "primary": position == 0})
    rows.append({"task": "any", "metric": "evaluate:NAME", "better": "", "primary": False})
    _show(rows, json)


@listing.command("runs")
def runs(results: Results = RESULTS, json: Json = False) -> None:
    """Runs on disk, oldest first."""
    from personabench.leaderboard import SCORER, label, summaries

    found = summaries(results)
    rows = []
    for run in found:
        value = run["metrics"].get(SCORER, {}).get(run["primary"])
        score: dict[str, Any] = {"score": "–" if value is None else f"{run['primary']} {value:.4f}"}
        rows.append(
            {
                "run": run["fingerprint"][:8],
                "task": f"{run['task']}/{run['separation']}/{run['split']}",
                "method": label(run),
                "model": run["model"],
                "n": run["n"],
                **({run["primary"]: value} if json else score),
                "status": run["status"],
                "data": run["source"] if json or not run["sample"] else "sample",
                **({"time": run["time"], "folder": run["folder"]} if json else {}),
            }
        )
    if not rows and not json:
        typer.echo(f"no runs under {results}/runs; make one with `personabench run`")
        return
    _show(rows, json)
    if not json:
        for source in sorted({run["source"] for run in found if run["sample"]}):
            typer.echo(f"sample: {source}")


def _show(rows: Sequence[dict[str, Any]], json: bool) -> None:
    """Rows as aligned text, the last column wrapped to the terminal."""
    if json:
        emit(rows)
        return
    texts = [["yes" if v is True else "" if v in (False, None) else str(v) for v in row.values()] for row in rows]
    heads = list(rows[0])
    widths = [max(len(head), *(len(row[i]) for row in texts)) for i, head in enumerate(heads)][:-1]
    used = sum(widths) + 2 * len(widths)
    room = shutil.get_terminal_size().columns - used if sys.stdout.isatty() else 0
    for row in [heads, *texts]:
        last = textwrap.wrap(row[-1], room) if room >= 20 else [row[-1]]
        cells = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False))
        typer.echo(f"{cells}  {last[0] if last else ''}".rstrip())
        for more in last[1:]:
            typer.echo(" " * used + more)
