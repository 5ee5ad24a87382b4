"""Print the plan of a command (`--dry-run`) as a table or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from personabench.cli.console import emit, screen

if TYPE_CHECKING:
    from rich.console import Console

    from personabench.models.budget import Prices
    from personabench.run.options import Options


# Columns of the plan: heading, and key of the count; its upper bound is `<key>_at_most`.
_PLAN_COUNTS = (
    ("samples", "owed"),
    ("calls", "calls"),
    ("to pay", "to_pay"),
    ("tokens in", "input_tokens"),
    ("tokens out", "output_tokens"),
)


def plan_rows(options_by_seed: Sequence[Options]) -> list[dict[str, Any]]:
    """The calls, tokens and price of runs as plain rows, without calling a model."""
    from personabench.run.interrupts import run_command
    from personabench.run.plan import plan

    prices = options_by_seed[0].prices
    return [
        {**forecast.as_dict(prices), "seed": options.seed}
        for options in options_by_seed
        for forecast in run_command(plan(options), farewell="interrupted")
    ]


def print_plan(options_by_seed: Sequence[Options], json: bool) -> None:
    """Print the calls, tokens and price of runs without calling a model."""
    rows = plan_rows(options_by_seed)
    if json:
        emit(rows)
    else:
        print_rows(rows, options_by_seed[0].prices, screen())


def print_rows(rows: Sequence[Mapping[str, Any]], prices: Prices, console: Console) -> None:
    """Print the rows of a plan as a table."""
    from rich import box
    from rich.table import Table

    grid = Table(
        title="Plan: no model has been called",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    for heading in ("task", "method"):
        grid.add_column(heading, justify="left", overflow="fold")
    for heading in (*(heading for heading, _ in _PLAN_COUNTS), "price"):
        grid.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        grid.add_row(*_plan_cells(row, show_seed=len({row["seed"] for row in rows}) > 1))

    console.print(grid)
    console.print(
        " From the fewest, with replies of a word, to the most, with replies as long as allowed "
        "and requested again wherever they may be unreadable.",
        style="dim",
    )
    for row in rows:
        for note in _describe_plan(row):
            console.print(f" {row['method']} on {row['task']}: {note}", markup=False, style="dim")
    unpriced = {row["model"] for row in rows if prices and row["price"] is None}
    if unpriced:
        console.print(
            f" --prices has no entry for {', '.join(sorted(unpriced))}.", markup=False, style="dim"
        )


def _describe_plan(row: Mapping[str, Any]) -> list[str]:
    """Say what the columns of a plan do not show."""
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


def _plan_cells(row: Mapping[str, Any], show_seed: bool) -> list[str]:
    """Format one row of the plan."""
    params = [f"{name}={value}" for name, value in row["changed"].items()]
    if show_seed:
        params.append(f"seed={row['seed']}")
    method = f"{row['method']} ({', '.join(params)})" if params else row["method"]

    counts = []
    for _, name in _PLAN_COUNTS:
        least, most = row[name], row.get(f"{name}_at_most", row[name])
        counts.append(f"{least:,}" if least == most else f"{least:,}–{most:,}")
    return [row["task"], method, *counts, _price_range(row["price"], row["price_at_most"])]


def _price_range(least: float | None, most: float | None) -> str:
    if least is None or most is None:
        return "–"
    texts = dict.fromkeys(f"{price:.4f}" for price in (least, most))
    return "–".join(texts)
