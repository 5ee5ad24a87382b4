"""`personabench leaderboard` and `personabench list`."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personabench.cli.options import RESULTS, Json, OnlyTask, Results, emit, screen

if TYPE_CHECKING:
    from personabench.compatibility import Cell


class Format(StrEnum):
    """How a leaderboard is written."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"
    latex = "latex"
    html = "html"


def leaderboard(
    task: OnlyTask = None,
    results: Results = RESULTS,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="Row that gains are measured against; else none.")
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help="All columns: every metric, controls, users, costs.")] = False,
    curves: Annotated[
        bool, typer.Option("--curves", help="Instead: points of score against history size and parameters.")
    ] = False,
    prices: Annotated[
        Path | None,
        typer.Option("--prices", help='JSON {"MODEL": {"input": .., "output": ..}}, per million tokens.'),
    ] = None,
    queries: Annotated[
        float | None,
        typer.Option("--queries-per-user", min=1, help="Spread offline cost over so many; else as in the run."),
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to write it.")] = Format.table,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write to.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Rank the runs and what differs, a row per method and model.

    Published results are among them. Scores come with 95 % intervals over users, gains over the baseline with
    corrected p-values; --wide says more.
    """
    from personabench import leaderboard as made
    from personabench.cli.tables import board_text, curve_text, print_boards
    from personabench.errors import UsageError
    from personabench.located import named
    from personabench.registry import is_file

    form = Format.json if json else format
    runs = made.everything(results)
    asked = made.Asked(
        baseline=baseline or made.BASELINE,
        thorough=wide or form is not Format.table,
        prices=_prices(prices),
        queries=queries,
        results=results,
    )
    if not runs:
        raise UsageError(f"no runs under {results}/runs; make one with `personabench run`")
    if task is not None and is_file(task):
        task = named(task, runs)
    found = made.boards(runs, task, asked)
    if not found:
        there = ", ".join(sorted({run["task"] for run in runs}))
        raise UsageError(f"no runs of task '{task}' under {results}/runs; there are runs of {there}")
    known = {row["label"] for board in found for row in board.rows} | {run["method"] for run in runs}
    if baseline and baseline not in known:
        raise UsageError(f"--baseline {baseline}: no such row; there are {', '.join(sorted(known))}")
    if curves and form is Format.html:
        raise UsageError("--curves has no html form; `personabench report` draws them")
    if curves:
        text = curve_text(made.curves(found), form.value)
    elif form is Format.json:
        text = made.as_json(found)
    elif form is Format.md:
        text = made.as_markdown(found, wide)
    elif form is Format.latex:
        text = made.as_latex(found, wide)
    elif form is Format.csv:
        text = made.as_csv(found)
    elif form is Format.html:
        from personabench.report.board import board_page

        text = board_page(found, wide)
    elif output is None:
        print_boards(found, screen(), wide)
        return
    else:
        text = board_text(found, wide)
    _write(text, output)


def _prices(path: Path | None) -> Mapping[str, Mapping[str, float]] | None:
    if path is None:
        return None
    from personabench.plan import read_prices

    return read_prices(path)


def _write(text: str, output: Path | None) -> None:
    from personabench.errors import UsageError

    if output is None:
        typer.echo(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output {output} cannot be written: {error.strerror}") from error
    typer.echo(f"wrote {output}", err=True)


listing = typer.Typer(help="List methods, tasks, matrix, backends, metrics or runs.", no_args_is_help=True)


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
LEGEND = "● faithful: as in its paper, or made for any task  ○ adapted  – refused, no call"


@listing.command("matrix")
def matrix(
    task: Annotated[str | None, typer.Option("--task", "-t", help="Only this task.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Which method runs on which task, and as what."""
    from personabench.compatibility import matrix
    from personabench.errors import UsageError
    from personabench.registry import entries

    known = entries("task")
    if task is not None and task not in known:
        raise UsageError(f"no task named '{task}'; known: {', '.join(known)}")
    methods = entries("method").values()
    cells = matrix(methods, known.values() if task is None else [known[task]])
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
