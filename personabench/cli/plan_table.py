"""Print the plan of a command (`--dry-run`) as a table or as JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from personabench.cli.console import emit, screen

if TYPE_CHECKING:
    from rich.console import Console

    from personabench.cli.text_table import Column
    from personabench.models.budget import Prices
    from personabench.run.options import Options
    from personabench.run.pace import Pace


# Columns of the plan: heading, and key of the count; its upper bound is `<key>_at_most`.
_PLAN_COUNTS = (
    ("samples", "owed"),
    ("calls", "calls"),
    ("to pay", "to_pay"),
    ("tokens in", "input_tokens"),
    ("tokens out", "output_tokens"),
)

# Layouts, the widest first: a text between bounds, and the longest line of a name.
_LAYOUTS = (("–", 60), ("–", 24), ("–\n", 24))


def plan_rows(options_by_seed: Sequence[Options]) -> list[dict[str, Any]]:
    """The calls, tokens, price and time of runs as plain rows, without calling a model."""
    from personabench.run.interrupts import run_command
    from personabench.run.pace import estimate_seconds
    from personabench.run.plan import plan

    rows = []
    paces: dict[str, Pace | None] = {}
    for options in options_by_seed:
        for forecast in run_command(plan(options), farewell="interrupted"):
            if forecast.model not in paces:
                concurrency = options.concurrency or forecast.concurrency
                paces[forecast.model] = _measure_pace(options, forecast.model, concurrency)
            row = {**forecast.as_dict(options.prices), "seed": options.seed}
            rows.append(row | estimate_seconds(row, paces[forecast.model]))
    return rows


def _measure_pace(options: Options, model: str, concurrency: int) -> Pace | None:
    from personabench.errors import DataError
    from personabench.results.index import read_runs
    from personabench.run.pace import measure_pace

    folder = options.shard.whole(options.results) if options.shard else options.results
    # A plan needs no earlier run, so a damaged one leaves out the time alone.
    with contextlib.suppress(DataError):
        return measure_pace((run.summary for run in read_runs(folder)), model, concurrency)
    return None


def print_plan(options_by_seed: Sequence[Options], json: bool) -> None:
    """Print the calls, tokens, price and time of runs without calling a model."""
    rows = plan_rows(options_by_seed)
    if json:
        emit(rows)
    else:
        print_rows(rows, options_by_seed[0].prices, screen())


def print_rows(rows: Sequence[Mapping[str, Any]], prices: Prices, console: Console) -> None:
    """Print the rows of a plan as a table; where it is wide, bounds stand below each other."""
    from personabench.cli.text_table import head_lines, row_lines, total_width

    layouts = [_columns(rows, prices, dash, most) for dash, most in _LAYOUTS]
    columns = next((fit for fit in layouts if total_width(fit) <= console.width), layouts[-1])
    notes = _notes(rows, prices)
    if total_width(columns) > console.width:
        columns = [column for column in columns if not column.heading.startswith("tokens")]
        notes.insert(0, "Columns of tokens hidden, --json.")

    console.print("Plan: no model has been called", style="bold")
    console.print()
    for line in head_lines(columns):
        console.print(line, soft_wrap=True)
    for number in range(len(rows)):
        for line in row_lines(columns, number):
            console.print(line, soft_wrap=True)
    console.print()
    for note in notes:
        console.print(f" {note}", markup=False, style="dim")


def _columns(
    rows: Sequence[Mapping[str, Any]], prices: Prices, dash: str, most: int
) -> list[Column]:
    """The columns of a plan, with bounds joined by a dash, and names of `most` letters a line."""
    from personabench.cli.text_table import Column

    show_seed = len({row["seed"] for row in rows}) > 1
    columns = [
        Column("task", [row["task"] for row in rows], is_name=True, most=most),
        Column("method", [_name_method(row, show_seed) for row in rows], is_name=True, most=most),
    ]
    for heading, name in _PLAN_COUNTS:
        cells = []
        for row in rows:
            bounds = row[name], row.get(f"{name}_at_most", row[name])
            cells.append(_join([f"{bound:,}" for bound in bounds], dash))
        columns.append(Column(heading, cells))
    if prices:
        cells = [_price_range(row["price"], row["price_at_most"], dash) for row in rows]
        columns.append(Column("price", cells))
    if any(row["seconds"] is not None for row in rows):
        columns.append(Column("time", [_time_range(row, dash) for row in rows]))
    return columns


def _notes(rows: Sequence[Mapping[str, Any]], prices: Prices) -> list[str]:
    notes = [
        "From the fewest, with replies of a word, to the most, with replies as long as allowed "
        "and requested again wherever they may be unreadable."
    ]
    for row in rows:
        notes += [f"{row['method']} on {row['task']}: {note}" for note in _describe_plan(row)]
    unpriced = {row["model"] for row in rows if prices and row["price"] is None}
    if unpriced:
        notes.append(f"--prices has no entry for {', '.join(sorted(unpriced))}.")

    timed = {row["model"] for row in rows if row["seconds"] is not None}
    untimed = {row["model"] for row in rows} - timed
    if timed:
        from personabench.cli.display import format_duration

        known = [row for row in rows if row["seconds"] is not None]
        least, most = (
            format_duration(sum(row[name] for row in known))
            for name in ("seconds", "seconds_at_most")
        )
        total = least if least == most else f"{least} to {most}"
        notes.append(f"Time: {total}, as fast as earlier runs of {', '.join(sorted(timed))} here.")
    if untimed:
        notes.append(
            f"No time: no run here has called {', '.join(sorted(untimed))} yet; "
            "one with --users 2 measures it."
        )
    return notes


def _describe_plan(row: Mapping[str, Any]) -> list[str]:
    """Add facts that the columns of a plan do not show."""
    notes = []
    offline = sum(row["calls_expected"].get(phase, 0) for phase in ("prepare", "profile"))
    if offline and row["calls"] != row["calls_at_most"]:
        total = sum(row["calls_expected"].values())
        notes.append(f"{total:,} calls are expected, {offline:,} of them before any question.")
    if row["over_window"]:
        notes.append(
            f"the history of {row['over_window']:,} of {row['owed']:,} samples does not fit the "
            "model's window, and a part of it is left out."
        )
    return notes


def _name_method(row: Mapping[str, Any], show_seed: bool) -> str:
    params = [f"{name}={value}" for name, value in row["changed"].items()]
    if show_seed:
        params.append(f"seed={row['seed']}")
    return f"{row['method']} ({', '.join(params)})" if params else str(row["method"])


def _join(bounds: Sequence[str], dash: str) -> str:
    """Bounds as one text, if they differ."""
    return dash.join(dict.fromkeys(bounds))


def _price_range(least: float | None, most: float | None, dash: str) -> str:
    if least is None or most is None:
        return "–"
    return _join([f"{price:.4f}" for price in (least, most)], dash)


def _time_range(row: Mapping[str, Any], dash: str) -> str:
    from personabench.cli.display import format_duration

    if row["seconds"] is None:
        return "–"
    return _join([format_duration(row[name]) for name in ("seconds", "seconds_at_most")], dash)
