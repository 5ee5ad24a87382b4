"""`personabench compare`: compare two runs on the samples that both answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personabench.cli.console import emit, screen
from personabench.cli.options import RESULTS, Json, OwnTask, Results
from personabench.results.index import find_any_run

if TYPE_CHECKING:
    from personabench.leaderboard.comparison import MetricComparison, RunComparison


def compare(
    a: Annotated[
        str,
        typer.Argument(
            help="Run folder, first characters of a run id, 'last', or a published file.",
            metavar="A",
        ),
    ],
    b: Annotated[
        str, typer.Argument(help="The run to compare it with, in the same form.", metavar="B")
    ],
    results: Results = RESULTS,
    anyway: Annotated[
        bool,
        typer.Option(
            "--allow-mismatch",
            help="Compare even if data, split, task options, model or decoding differ.",
        ),
    ] = False,
    task: OwnTask = None,
    json: Json = False,
) -> None:
    """Compare two runs sample by sample.

    Prints gains with intervals and corrected p-values, wins by sample and by user, and the share made worse.
    """
    from personabench.leaderboard.comparison import compare as compared
    from personabench.leaderboard.comparison import to_dict
    from personabench.results.index import label
    from personabench.results.locate import load_named_task

    runs = {side: find_any_run(name, results) for side, name in (("a", a), ("b", b))}
    if task is not None:
        load_named_task(task, [run.spec for run in runs.values() if run.spec])
    found = compared(runs["a"], runs["b"], anyway)
    shown = (
        "task",
        "separation",
        "split",
        "source",
        "data_hash",
        "method",
        "params",
        "history",
        "seed",
        "model",
    )
    sides = {
        side: {
            "label": label(run.summary),
            **{name: getattr(run.summary, name) for name in shown},
            "run": run.summary.fingerprint[:8],
            "n": run.summary.n,
        }
        for side, run in runs.items()
    }
    if json:
        emit({**sides, **to_dict(found)})
    else:
        _print(sides, found)


def _print(sides: Mapping[str, Mapping[str, Any]], found: RunComparison) -> None:
    from rich import box
    from rich.table import Table

    console = screen()
    a = sides["a"]
    where = f"{a['task']}/{a['separation']}/{a['split']} · n={found.n}, {found.users} users"
    console.print(where, style="bold", markup=False)
    for side, run in sides.items():
        console.print(
            f" {side.upper()}  {run['label']} · {run['model']} · {run['run']}", markup=False
        )
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for name in ("", "A", "B", "gain of A", "95 % interval", "p"):
        grid.add_column(name, justify="right" if name else "left", no_wrap=True)
    for name, each in found.metrics.items():
        gain = each.gain
        ends = "–" if gain.low is None else f"{gain.low:+.4f} … {gain.high:+.4f}"
        corrected = each.contrast.corrected
        p = "–" if corrected is None else f"{corrected:.4f}"
        arrow = "↑" if each.higher_is_better else "↓"
        values = (f"{estimate.value:.4f}" for estimate in (each.a, each.b))
        grid.add_row(f"{name} {arrow}", *values, f"{gain.value:+.4f}", ends, p)
    console.print(grid)
    for name, each in found.metrics.items():
        for line in _details(name, each, found.n):
            console.print(f" {line}", markup=False)
    for line in _protocol(sides, found):
        console.print(f" {line}", markup=False, style="dim")


def _details(name: str, metric: MetricComparison, n: int) -> list[str]:
    """What a metric says beyond its gain; nothing for metrics that one sample does not have."""
    lines = []
    comparison = metric.contrast.comparison
    for unit, count in (("samples", comparison.samples), ("users", comparison.by_user)):
        if count is not None:
            counts = f"A wins {count.win}, ties {count.tie}, loses {count.loss} {unit}"
            lines.append(f"{name}: {counts}; {count.hurt:.0%} made worse")
    if comparison.quantiles:
        low, middle, high = comparison.quantiles
        lines.append(
            f"{name}: users gain {low:+.4f} (p10), {middle:+.4f} (median), {high:+.4f} (p90)"
        )
    if comparison.detectable is not None:
        lines.append(
            f"{name}: a true gain of {comparison.detectable:.4f} would be found in 80 % of such runs"
        )
    if metric.gain.n < n:
        lines.append(f"{name}: on the {metric.gain.n} samples for which both have it")
    if metric.gain.reason:
        lines.append(f"{name}: no interval: {metric.gain.reason}")
    return lines


def _protocol(sides: Mapping[str, Mapping[str, Any]], found: RunComparison) -> list[str]:
    a, b = sides["a"], sides["b"]
    lines = [
        f"Data: {a['source']} ({a['data_hash'][:8]}). Positive gains favour A, whatever the metric's direction."
    ]
    lines.append(
        f"Interval: bootstrap over users. p: sign-flip test over users, Holm-corrected over {len(found.metrics)} "
        f"metric(s). {found.draws:,} draws, seed {found.seed}."
    )
    if only := [f"{side.upper()} has {more} more" for side, more in found.only.items() if more]:
        lines.append(f"Only the {found.n} samples of both are compared: {', '.join(only)}.")
    if found.differences:
        lines.append(f"Not like with like: they differ in {'; '.join(found.differences)}.")
    if a["seed"] != b["seed"]:
        lines.append(f"Seeds differ: {a['seed']} and {b['seed']}.")
    if found.skipped:
        why = "nothing installed computes them (--task FILE names a task's file), one run lacks them, or judges differ"
        lines.append(f"Left out, since {why}: {found.skipped}.")
    return lines
