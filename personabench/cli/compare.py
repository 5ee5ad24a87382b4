"""`personabench compare`: compare two runs on the samples that both answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personabench.cli.console import emit, screen
from personabench.cli.options import RESULTS, Json, OwnTask, Results
from personabench.results.index import find_any_run

if TYPE_CHECKING:
    from rich.console import Console

    from personabench.cli.text_table import Column
    from personabench.leaderboard.run_comparison import MetricComparison, RunComparison
    from personabench.results.index import Run

# Longer names of metrics are broken.
_LONGEST = 24

# Fields of each run's summary in `compare --json`.
_SUMMARY_FIELDS = (
    "task",
    "separation",
    "split",
    "source",
    "data_hash",
    "method",
    "params",
    "history",
    "selection",
    "seed",
    "model",
    "fit",
    "differs",
)


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
    allow_mismatch: Annotated[
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

    Prints gains with intervals and corrected p-values, wins by sample and by user, and the share
    made worse.
    """
    from personabench.leaderboard.run_comparison import compare_runs, to_dict
    from personabench.results.locate import load_tasks

    run_a, run_b = find_any_run(a, results), find_any_run(b, results)
    load_tasks(task, (run.spec for run in (run_a, run_b) if run.spec), results)
    comparison = compare_runs(run_a, run_b, allow_mismatch)
    if json:
        emit({"a": _run_fields(run_a), "b": _run_fields(run_b), **to_dict(comparison)})
    else:
        _print(run_a, run_b, comparison)


def _run_fields(run: Run) -> dict[str, Any]:
    from personabench.results.index import label

    summary = run.summary
    fields = {name: getattr(summary, name) for name in _SUMMARY_FIELDS}
    return {
        "label": label(summary),
        **fields,
        "run": summary.fingerprint[:8],
        "n": summary.n,
    }


def _print(a: Run, b: Run, comparison: RunComparison) -> None:
    from personabench.results.index import label

    console = screen()
    summary = a.summary
    console.print(
        f"{summary.title} · n={comparison.n}, {comparison.users} users",
        style="bold",
        markup=False,
    )
    for side, run in (("A", a), ("B", b)):
        name, model, run_id = label(run.summary), run.summary.model, run.summary.fingerprint[:8]
        console.print(f" {side}  {name} · {model} · {run_id}", markup=False)

    print_metrics(console, comparison)
    for line in _footnotes(a, b, comparison):
        console.print(f" {line}", markup=False, style="dim")


def print_metrics(console: Console, comparison: RunComparison) -> None:
    """Print the metrics of two sides: values, gains with intervals, p-values, wins, losses."""
    from personabench.cli.text_table import print_table

    console.print()
    print_table(console, _metric_columns(comparison, " … "), _metric_columns(comparison, " …\n"))
    console.print()
    for name, metric in comparison.metrics.items():
        for line in _metric_lines(name, metric, comparison.n):
            console.print(f" {line}", markup=False)
    for name, harmed in comparison.harmed.items():
        console.print(
            f" {name}: below guessing ({harmed.chance:g}) with A but not with B: "
            f"{harmed.by_a} of {harmed.users} users; with B but not with A: {harmed.by_b}",
            markup=False,
        )


def _metric_columns(comparison: RunComparison, joint: str) -> list[Column]:
    """The columns of a table of metrics, the ends of intervals joined by a text."""
    from personabench.cli.text_table import Column

    names, rows = [], []
    for name, metric in comparison.metrics.items():
        gain = metric.gain
        interval = "–" if gain.low is None else f"{gain.low:+.4f}{joint}{gain.high:+.4f}"
        corrected = metric.contrast.corrected
        names.append(f"{name} {'↑' if metric.higher_is_better else '↓'}")
        rows.append(
            (
                f"{metric.a.value:.4f}",
                f"{metric.b.value:.4f}",
                f"{gain.value:+.4f}",
                interval,
                "–" if corrected is None else f"{corrected:.4f}",
            )
        )
    headings = ("A", "B", "gain of A", "95 % interval", "p")
    cells = zip(*rows, strict=True)
    columns = [Column(heading, cell) for heading, cell in zip(headings, cells, strict=True)]
    return [Column("", names, is_name=True, most=_LONGEST), *columns]


def _metric_lines(name: str, metric: MetricComparison, n: int) -> Iterator[str]:
    """Describe a metric beyond its gain, as far as single samples have it.

    Args:
        n: number of samples of the comparison.
    """
    comparison = metric.contrast.comparison
    for unit, count in (("samples", comparison.samples), ("users", comparison.by_user)):
        if count is not None:
            counts = f"A wins {count.win}, ties {count.tie}, loses {count.loss} {unit}"
            yield f"{name}: {counts}; {count.hurt:.0%} made worse"
    if comparison.quantiles:
        low, middle, high = comparison.quantiles
        yield f"{name}: users gain {low:+.4f} (p10), {middle:+.4f} (median), {high:+.4f} (p90)"
    if comparison.detectable is not None:
        yield (
            f"{name}: a true gain of {comparison.detectable:.4f} would be found in 80 % of such "
            "runs"
        )
    if metric.gain.n < n:
        yield f"{name}: on the {metric.gain.n} samples for which both have it"
    if metric.gain.reason:
        yield f"{name}: no interval: {metric.gain.reason}"


def _footnotes(a: Run, b: Run, comparison: RunComparison) -> Iterator[str]:
    """Describe the data, the statistics, and everything that limits the comparison."""
    from personabench.leaderboard.estimates import name_units
    from personabench.leaderboard.notes import describe_differences

    yield (
        f"Data: {a.summary.source} ({a.summary.data_hash[:8]}). Positive gains favour A, whatever "
        "the metric's direction."
    )
    units = name_units(metric.a for metric in comparison.metrics.values())
    yield (
        f"Interval: bootstrap over {units}. p: sign-flip test over {units}, Holm-corrected over "
        f"{len(comparison.metrics)} metric(s). {comparison.draws:,} draws, seed {comparison.seed}."
    )
    further = [
        f"{side.upper()} has {count} more" for side, count in comparison.only.items() if count
    ]
    if further:
        yield f"Only the {comparison.n} samples of both are compared: {', '.join(further)}."
    if comparison.differences:
        yield f"The runs are not comparable: they differ in {'; '.join(comparison.differences)}."
    if a.summary.seed != b.summary.seed:
        yield f"Seeds differ: {a.summary.seed} and {b.summary.seed}."
    yield from describe_differences([("A", a), ("B", b)])
    if comparison.derived:
        numbers = [f"{name} {value:.4f}" for name, value in comparison.derived.items()]
        yield f"Of both runs: {', '.join(numbers)}."
    if comparison.skipped:
        yield (
            f"Left out: {', '.join(comparison.skipped)}. No installed task computes them (--task "
            "FILE names a task's file), one run lacks them, or their judges differ."
        )
