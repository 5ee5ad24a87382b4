"""Print paper against ours as a table, or as plain values for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from personabench.cli.text_table import Column
    from personabench.leaderboard.estimates import Estimate
    from personabench.leaderboard.reproduction import Line, Reproduction

_HEADINGS = ("row", "metric", "paper", "ours", "95 % interval", "n")
_GAIN_HEADINGS = ("gain: paper", "ours", "95 % interval")
_NAMES = ("row", "metric", "verdict")

# Layouts, the widest first: a text between the ends of intervals, and the longest line of a name.
_LAYOUTS = ((" … ", 40), (" …\n", 24), (" …\n", 10))


def to_json(reproduction: Reproduction) -> dict[str, Any]:
    """The comparison as plain values."""
    import msgspec

    recipe = reproduction.recipe
    return {
        "title": recipe.title,
        "source": recipe.source,
        "smoke": reproduction.smoke,
        "comparable": not reproduction.departures,
        "departures": list(reproduction.departures),
        "caveats": list(recipe.caveats),
        "rows": msgspec.to_builtins(reproduction.lines),
    }


def print_reproduction(title: str, reproduction: Reproduction, console: Console) -> None:
    """Print a table for each task and split, then what limits the comparison."""
    from personabench.cli.text_table import print_table

    groups: dict[tuple[str, str], list[Line]] = {}
    for line in reproduction.lines:
        groups.setdefault((line.task, line.split), []).append(line)

    console.print(title, style="bold", markup=False, soft_wrap=True)
    for (task, split), lines in groups.items():
        data = next((line.data for line in lines if line.data), f"{task}/{split}".rstrip("/"))
        title = f"{data} · smoke run" if reproduction.smoke else data
        console.print(f"\n{title}\n", style="bold", markup=False)
        print_table(console, *(_columns(lines, joint, most) for joint, most in _LAYOUTS))
        console.print()
    for note in _notes(reproduction):
        console.print(f" {note}", markup=False, style="dim", soft_wrap=True)


def _columns(lines: Sequence[Line], joint: str, most: int) -> list[Column]:
    from personabench.cli.text_table import Column

    headings = (*_HEADINGS, *_GAIN_HEADINGS, "verdict")
    cells = zip(*(_cells(line, joint) for line in lines), strict=True)
    return [
        Column(heading, cell, is_name=heading in _NAMES, most=most if heading in _NAMES else None)
        for heading, cell in zip(headings, cells, strict=True)
    ]


def _cells(line: Line, joint: str) -> list[str]:
    arrow = "↑" if line.higher_is_better else "↓"
    return [
        line.row,
        f"{line.metric} {arrow}",
        _number(line.published),
        _number(line.ours.value if line.ours else None),
        _interval(line.ours, joint),
        str(line.ours.n) if line.ours else "–",
        _number(line.published_gain, "+"),
        _number(line.gain.value if line.gain else None, "+"),
        _interval(line.gain, joint, "+"),
        line.verdict,
    ]


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "–"
    # Adding zero removes the sign of -0.0.
    value += 0.0
    # Costs are in the thousands, scores below one.
    if abs(value) >= 1000:
        return f"{value:{sign},.0f}"
    is_tiny = 0 < abs(value) < 0.001
    return f"{value:{sign}.4f}" if is_tiny else f"{value:{sign}.4g}"


def _interval(estimate: Estimate | None, joint: str, sign: str = "") -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return "–"
    return f"{_number(estimate.low, sign)}{joint}{_number(estimate.high, sign)}"


def _notes(reproduction: Reproduction) -> Iterator[str]:
    from personabench.leaderboard.reproduction import MEANINGS

    recipe = reproduction.recipe
    if reproduction.departures:
        yield f"Not comparable with the paper: {'; '.join(reproduction.departures)}."
    yield f"Published: {recipe.source}."
    yield from recipe.caveats
    if recipe.tolerance:
        listed = ", ".join(f"{metric} {value:g}" for metric, value in recipe.tolerance.items())
        yield f"Tolerance beside the interval: {listed}."

    names: dict[str, list[str]] = {}
    for line in reproduction.lines:
        if line.differs:
            rows = names.setdefault(", ".join(line.differs), [])
            rows += [line.row] if line.row not in rows else []
    for differences, rows in names.items():
        yield f"Differs from its paper, {', '.join(rows)}: {differences}."
    verdicts = dict.fromkeys(line.verdict for line in reproduction.lines)
    for verdict in verdicts:
        yield f"{verdict}: {MEANINGS[verdict]}."
