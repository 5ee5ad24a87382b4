"""`personabench leaderboard` and `personabench list`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personabench.cli.options import RESULTS, Json, Results, emit

if TYPE_CHECKING:
    from rich.console import Console

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
    """Rank the finished runs, a row per task, split, method, parameters and model."""
    from rich.console import Console

    from personabench.errors import UsageError
    from personabench.leaderboard import as_csv, as_json, as_markdown, boards, summaries

    found = boards(summaries(results), task)
    if not found:
        which = f" of task {task}" if task else ""
        raise UsageError(f"no finished runs{which} under {results}/runs; make one with `personabench run`")
    if json or format is Format.json:
        text = as_json(found)
    elif format is Format.md:
        text = as_markdown(found)
    elif format is Format.csv:
        text = as_csv(found)
    elif output is not None:
        with output.open("w", encoding="utf-8") as file:
            print_boards(found, Console(file=file, width=200, highlight=False))
        return
    else:
        print_boards(found, Console(highlight=False))
        return
    if output is None:
        typer.echo(text)
    else:
        try:
            output.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{output} cannot be written: {error.strerror}") from error


def print_boards(found: Sequence[Board], console: Console) -> None:
    """Boards as tables for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from personabench.leaderboard import cell

    for board in found:
        same = len({row["model"] for row in board.rows}) == 1
        title = f"{board.title}" + (f" · {board.rows[0]['model']}" if same else "")
        grid = Table(title=Text(title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
        columns = [name for name in board.columns if name not in COSTS and not (same and name == "model")]
        for name in [*columns, "tokens"]:
            words = name in ("method", "model")
            grid.add_column(Text(name), justify="left" if words else "right", overflow="fold", min_width=len(name))
        for row in board.rows:
            tokens = sum(row[name] for name in COSTS)
            grid.add_row(*(Text(cell(row.get(name))) for name in columns), _thousands(tokens))
        console.print(grid)
        for note in board.notes:
            console.print(note, markup=False, style="dim")


COSTS = ("tokens in", "tokens out")


def _thousands(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.1f}k" if count >= 1000 else str(count)


listing = typer.Typer(help="What there is: methods, tasks, backends, metrics, runs.", no_args_is_help=True)


@listing.command("methods")
def methods(json: Json = False) -> None:
    """Methods, with what they need and where they come from."""
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
            {"name": e.name, "title": e.facts.get("title", ""), "kind": e.facts.get("kind", "text"), "origin": e.origin}
            for e in entries("task").values()
        ],
        json,
    )


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

    rows = []
    for run in summaries(results):
        value = run["metrics"].get(SCORER, {}).get(run["primary"])
        rows.append(
            {
                "run": run["fingerprint"][:8],
                "task": f"{run['task']}/{run['separation']}/{run['split']}",
                "method": label(run),
                "model": run["model"],
                "n": run["n"],
                "status": run["status"],
                run["primary"] if json else "score": value
                if json or value is None
                else f"{run['primary']} {value:.4f}",
                "folder": run["folder"],
            }
        )
    _show(rows, json)


def _show(rows: Sequence[dict[str, Any]], json: bool) -> None:
    if json:
        emit(rows)
        return
    if not rows:
        typer.echo("none")
        return
    texts = [[str("yes" if v is True else "" if v in (False, None) else v) for v in row.values()] for row in rows]
    heads = list(rows[0])
    widths = [max(len(head), *(len(row[i]) for row in texts)) for i, head in enumerate(heads)]
    for row in [heads, *texts]:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
