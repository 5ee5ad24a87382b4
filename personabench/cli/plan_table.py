"""Print the plan of a command (`--dry-run`) as a table or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from personabench.cli.console import emit, screen

if TYPE_CHECKING:
    from rich.console import Console

    from personabench.models.budget import Prices
    from personabench.run.options import Options


# Columns of the plan: heading, key of the count, key of its upper bound.
_PLAN_COUNTS = (
    ("samples", "owed", None),
    ("calls", "calls", "calls_at_most"),
    ("stored", "cached", None),
    ("to pay", "to_pay", "to_pay_at_most"),
    ("tokens in", "input_tokens", None),
    ("tokens out", "output_tokens", None),
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
    for heading in (*(heading for heading, _, _ in _PLAN_COUNTS), "price"):
        grid.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        grid.add_row(*_plan_cells(row, show_seed=len({row["seed"] for row in rows}) > 1))

    console.print(grid)
    console.print(
        " Input tokens are estimated; output tokens are the maximum allowed.", style="dim"
    )
    if any(row["calls_at_most"] > row["calls"] for row in rows):
        console.print(
            " If the model replies with lists, calls are given from the shortest lists to the "
            "longest, tokens and price for the shortest.",
            style="dim",
        )
    unpriced = {row["model"] for row in rows if prices and row["price"] is None}
    if unpriced:
        console.print(
            f" --prices has no entry for {', '.join(sorted(unpriced))}.", markup=False, style="dim"
        )


def _plan_cells(row: Mapping[str, Any], show_seed: bool) -> list[str]:
    """Format one row of the plan."""
    params = [f"{name}={value}" for name, value in row["changed"].items()]
    if show_seed:
        params.append(f"seed={row['seed']}")
    method = f"{row['method']} ({', '.join(params)})" if params else row["method"]

    counts = []
    for _, name, upper in _PLAN_COUNTS:
        count = f"{row[name]:,}"
        if upper is not None and row[upper] > row[name]:
            count += f"–{row[upper]:,}"
        counts.append(count)

    price = "–" if row["price"] is None else f"{row['price']:.4f}"
    return [row["task"], method, *counts, price]
