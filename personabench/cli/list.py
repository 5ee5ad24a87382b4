"""`personabench list`: methods, tasks, backends, metrics and runs."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personabench.cli.options import RESULTS, Json, Results, emit

if TYPE_CHECKING:
    from personabench.api.compatibility import Cell


listing = typer.Typer(
    help="List methods, tasks, matrix, backends, metrics or runs.", no_args_is_help=True
)


@listing.command("methods")
def methods(json: Json = False) -> None:
    """Methods, what they need and where they come from."""
    from personabench.api.registry import entries

    _show(
        [
            {
                "name": e.name,
                "needs": ", ".join(e.facts.get("needs", ())),
                "origin": e.origin,
                "about": e.about,
            }
            for e in entries("method").values()
        ],
        json,
    )


@listing.command("tasks")
def tasks(json: Json = False) -> None:
    """Tasks, with their kind of response."""
    from personabench.api.registry import entries

    _show(
        [
            {
                "name": e.name,
                "kind": e.facts.get("kind", "text"),
                "origin": e.origin,
                "title": e.facts.get("title", ""),
            }
            for e in entries("task").values()
        ],
        json,
    )


SYMBOLS = {"faithful": "●", "adapted": "○", "refused": "–"}


LEGEND = "● faithful: as in its paper, or made for any task  ○ adapted  – refused, no call"


@listing.command("matrix")
def matrix(
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Only this task.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Which method runs on which task, and as what."""
    from personabench.api.compatibility import matrix
    from personabench.api.registry import entries
    from personabench.errors import UsageError

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
    methods, tasks = (
        dict.fromkeys(cell.method for cell in cells),
        list(dict.fromkeys(cell.task for cell in cells)),
    )
    symbols = {(cell.method, cell.task): SYMBOLS[cell.fit] for cell in cells}
    left = max(map(len, methods))
    while tasks:
        block: list[str] = []
        while tasks and (
            not block or left + sum(len(name) + 1 for name in [*block, tasks[0]]) <= width
        ):
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
    from personabench.models.backends import BACKENDS

    _show([{"name": name, "about": about} for name, (_, about) in BACKENDS.items()], json)


@listing.command("metrics")
def metrics(json: Json = False) -> None:
    """Metrics of each task, the primary one first."""
    from personabench.api.registry import entries, load

    rows = []
    for name in entries("task"):
        for position, metric in enumerate(load("task", name).metrics):
            better = "higher" if metric.higher_is_better else "lower"
            rows.append(
                {"task": name, "metric": metric.name, "better": better, "primary": position == 0}
            )
    rows.append({"task": "any", "metric": "evaluate:NAME", "better": "", "primary": False})
    _show(rows, json)


@listing.command("runs")
def runs(results: Results = RESULTS, json: Json = False) -> None:
    """Runs on disk, oldest first."""
    from personabench.results.index import label, summaries

    found = summaries(results)
    rows = []
    for run in found:
        summary = run.summary
        value = summary.score(summary.primary)
        score: dict[str, Any] = {
            "score": "–" if value is None else f"{summary.primary} {value:.4f}"
        }
        rows.append(
            {
                "run": summary.fingerprint[:8],
                "task": f"{summary.task}/{summary.separation}/{summary.split}",
                "method": label(summary),
                "model": summary.model,
                "n": summary.n,
                **({summary.primary: value} if json else score),
                "status": summary.status,
                "data": summary.source if json or not summary.sample else "sample",
                **({"time": summary.time, "folder": str(run.path)} if json else {}),
            }
        )
    if not rows and not json:
        typer.echo(f"no runs under {results}/runs; make one with `personabench run`")
        return
    _show(rows, json)
    if not json:
        for source in sorted({run.summary.source for run in found if run.summary.sample}):
            typer.echo(f"sample: {source}")


def _show(rows: Sequence[dict[str, Any]], json: bool) -> None:
    """Rows as aligned text, the last column wrapped to the terminal."""
    if json:
        emit(rows)
        return
    texts = [
        ["yes" if v is True else "" if v in (False, None) else str(v) for v in row.values()]
        for row in rows
    ]
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
