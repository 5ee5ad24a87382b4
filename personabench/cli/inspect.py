"""`personabench inspect`: the inside of a run, such as a memory's items about a user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personabench.cli.console import echo, emit
from personabench.cli.help import PlainCommand
from personabench.cli.options import RESULTS, Json, Results

if TYPE_CHECKING:
    from personabench.results.memory_view import MemoryView

app = typer.Typer(help="Look inside a run: what a memory holds.", no_args_is_help=True)

_WIDTH = 200


@app.command("memory", cls=PlainCommand)
def memory(
    run: Annotated[
        str,
        typer.Argument(help="Run folder, first characters of a run id, or 'last'.", metavar="RUN"),
    ],
    user: Annotated[str, typer.Argument(help="User id.", metavar="USER")],
    log: Annotated[bool, typer.Option("--log", help="Print the edits of every batch.")] = False,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Print a user's memory: items, the records behind them, and edits.

    `+` is an addition, `~` a change and `-` a deletion, each with its place in the state.
    """
    from personabench.results.index import find_run
    from personabench.results.memory_view import read_memory

    view = read_memory(find_run(run, results), user)
    if json:
        emit(_to_dict(view))
        return
    echo(f"user     {view.user_id}")
    echo(f"batches  {view.batches:,} of {view.records:,} records")
    echo(f"items    {len(view.items):,}")
    for item in view.items:
        sources = ", ".join(item.record_ids) or "no record"
        echo(f"  {item.path}  {_write(item.fields)}  ← {sources}")
    if view.rest is not None:
        echo(f"beside   {_write(view.rest)}")
    if log:
        _print_log(view)


def _print_log(view: MemoryView) -> None:
    if not view.log:
        echo("log      none here: another run or shard ingested the history, or it is empty")
    for number, edit in enumerate(view.log, start=1):
        counts = [f"{edit.calls} calls", *(f"{name} {by:g}" for name, by in edit.flags.items())]
        echo(f"batch {number}: {', '.join(edit.record_ids)} ({', '.join(counts)})")
        for sign, path, value in edit.changes:
            echo(f"  {sign} {path}{'' if value is None else f'  {_write(value)}'}")


def _write(value: Any) -> str:
    """Write a value on one line; a mapping as its fields."""
    if isinstance(value, Mapping):
        text = "; ".join(f"{name}: {_write(part)}" for name, part in value.items())
    elif isinstance(value, list):
        text = ", ".join(map(_write, value))
    else:
        text = " ".join(str(value).split())
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def _to_dict(view: MemoryView) -> dict[str, Any]:
    return {
        "user": view.user_id,
        "batches": view.batches,
        "records": view.records,
        "items": [item._asdict() for item in view.items],
        "beside": view.rest,
        "log": [
            {
                **edit._asdict(),
                "changes": [
                    {"sign": sign, "path": path, "value": value}
                    for sign, path, value in edit.changes
                ],
            }
            for edit in view.log
        ],
        "reused": view.reused,
    }
