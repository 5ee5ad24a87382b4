"""Curves: the score against one varying quantity, over rows that share everything else.

The varying quantity, the axis, is the size of the history (`--history size=N`, `none` as 0, the
whole history as the last point) or one numeric parameter of a method (k, the number of peers).
Points also have the tokens they cost offline and online, so a curve over a parameter that buys
offline work is one over the offline budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from personabench.hashing import digest
from personabench.leaderboard.board import Board
from personabench.leaderboard.row import Row
from personabench.leaderboard.rows import Entry, judge_of, metric_directions

if TYPE_CHECKING:
    from personabench.leaderboard.estimates import Estimate
    from personabench.results.published import Vector

Reader = Callable[[Entry], "Sequence[Vector]"]


class Point(msgspec.Struct, frozen=True):
    """A point of a curve; the fields are the columns of `leaderboard --curves --format json`.

    Attributes:
        curve: number of the curve.
        name: label of all its points, without the axis.
        over: the axis: "history" or the parameter.
        x: place on the axis; None for the whole history.
        value, low, high: the metric on `n` samples of `users` users.
        joined: whether it was compared on the samples that all points share.
        run_n: samples of the run.
        offline_tokens, online_tokens: of the run, per user and per query.
    """

    curve: int
    task: str
    separation: str
    split: str
    data_hash: str
    model: str
    method: str
    name: str
    over: str
    x: float | None
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    users: int
    joined: bool
    run_n: int
    offline_tokens: float | None
    online_tokens: float | None
    seeds: Sequence[int]
    label: str
    run: str


class _Placed(NamedTuple):
    """A row at its place on an axis."""

    x: float | None
    row: Row
    entry: Entry


class _Axis(NamedTuple):
    name: str
    x: float | None
    # Everything else of the row that has to agree along the curve.
    rest: Any


def curves(tables: Sequence[Board], every: bool = False) -> list[Point]:
    """Make the points of all curves of some boards, curve by curve in the order of `x`.

    The points of a curve are compared on the samples that all of them have. A point that has too
    few of them is not `joined`, and keeps the value on its own samples.

    Args:
        every: curves of every metric, not of the primary one only.

    Raises:
        DataError: a score file is damaged.
    """
    read = _cached_reader()
    points: list[Point] = []
    number = 0
    for board in tables:
        directions = metric_directions(run for entry in board.entries for run in entry.runs)
        metrics = list(directions) if every else [board.primary]
        for (_, _, axis, _, metric), placed in sorted(_group_by_axis(board, metrics).items()):
            if len({row.x for row in placed}) < 2:
                continue
            number += 1
            placed.sort(key=lambda row: (row.x is None, row.x or 0.0))
            shared = _align(placed, metric, directions[metric], read)
            points += _make_points(number, axis, metric, placed, shared)
    return points


def _group_by_axis(board: Board, metrics: Sequence[str]) -> dict[tuple[str, ...], list[_Placed]]:
    """Group the rows of a board that differ along one axis only."""
    groups: dict[tuple[str, ...], list[_Placed]] = {}
    for metric in metrics:
        for row, entry in zip(board.rows, board.entries, strict=True):
            if row.scores.get(metric) is None:
                continue
            for axis in _axes(row):
                # Scores by different judges are not one curve.
                rest = digest([axis.rest, row.seeds, judge_of(entry.first, metric)])
                key = (row.setting, row.method, axis.name, rest, metric)
                groups.setdefault(key, []).append(_Placed(axis.x, row, entry))
    return groups


def families(points: Sequence[Point]) -> list[list[Point]]:
    """Group points by curve."""
    groups: dict[int, list[Point]] = {}
    for point in points:
        groups.setdefault(point.curve, []).append(point)
    return list(groups.values())


def remarks(points: Sequence[Point]) -> list[str]:
    """Describe the samples of one curve in sentences; none if all points have the same samples."""
    joined = [point for point in points if point.joined]
    separate = [point for point in points if not point.joined]
    sentences = []
    if any(point.n != point.run_n for point in joined):
        first = joined[0]
        sizes = ", ".join(str(point.run_n) for point in joined)
        subject = "joined points" if separate else "all"
        sentences.append(
            f"Compared on the {first.n} samples of {first.users} users that {subject} have; the "
            f"runs have {sizes}. Tokens are of all samples of a run."
        )
    if separate:
        listed = ", ".join(f"{name(point)} (n={point.n})" for point in separate)
        sentences.append(f"Not joined, with too few samples in common with the others: {listed}.")
    return sentences


def name(point: Point) -> str:
    """Name a point: "k=4", "history=all"."""
    return f"{point.over}={format_x(point.x)}"


def format_x(x: float | None) -> str:
    """Format a place on the axis."""
    return "all" if x is None else f"{x:.10g}"


def _cached_reader() -> Reader:
    # Every curve through a row needs its scores, and there is a curve per metric and axis.
    scores: dict[str, Sequence[Vector]] = {}

    def read(entry: Entry) -> Sequence[Vector]:
        from personabench.results.published import vector

        key = entry.summary.fingerprint
        if key not in scores:
            scores[key] = [vector(run) for run in entry.runs]
        return scores[key]

    return read


def _axes(row: Row) -> list[_Axis]:
    """The axes that a row has a place on."""
    axes = []
    sizes: dict[str, float | None] = {"own": None, "none": 0}
    if row.history in sizes:
        axes.append(_Axis("history", sizes[row.history], row.params))
    elif row.history.startswith("size="):
        axes.append(_Axis("history", float(row.history.removeprefix("size=")), row.params))

    for parameter, value in row.params.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            rest = {key: setting for key, setting in row.params.items() if key != parameter}
            axes.append(_Axis(parameter, value, [row.history, rest]))
    return axes


def _align(
    placed: Sequence[_Placed], metric: str, higher: bool, read: Reader
) -> Sequence[Estimate | None]:
    """Estimate the metric of each row on the samples of all; None for rows that are left out."""
    from personabench.leaderboard.column import Column, aggregate_of, cluster_of

    scores = [read(row.entry) for row in placed]
    scored = next((index for index, vectors in enumerate(scores) if vectors[0].ids), 0)
    aggregate = aggregate_of(placed[scored].entry.first, metric, scores[scored][0])
    nothing = [None] * len(placed)
    if aggregate is None:
        return nothing

    cluster = cluster_of(placed[scored].entry.first, metric, scores[scored][0])
    shared = Column(scores, metric, higher, aggregate, cluster=cluster).align()
    # One row alone is not compared with anything.
    return shared if sum(estimate is not None for estimate in shared) > 1 else nothing


def _make_points(
    number: int,
    axis: str,
    metric: str,
    placed: Sequence[_Placed],
    shared: Sequence[Estimate | None],
) -> list[Point]:
    pairs = list(zip(placed, shared, strict=True))
    restricted = any(
        estimate is not None and estimate.n != _own_samples(row.row, metric)
        for row, estimate in pairs
    )
    points = []
    for row, estimate in pairs:
        # If nothing was left out, the row's own numbers are shown, as on the leaderboard.
        counts = estimate if restricted else None
        points.append(_make_point(number, axis, metric, row, counts, estimate is not None))
    return points


def _make_point(
    number: int,
    axis: str,
    metric: str,
    placed: _Placed,
    shared: Estimate | None,
    joined: bool,
) -> Point:
    row = placed.row
    value = row.scores[metric]
    n, users = _own_samples(row, metric), row.users
    interval = row.statistics.estimates.get(metric)
    if shared is not None:
        value, interval = shared.value, shared
        n, users = shared.n, shared.users

    return Point(
        curve=number,
        task=row.task,
        separation=row.separation,
        split=row.split,
        data_hash=row.data_hash,
        model=row.model,
        method=row.method,
        name=placed.entry.label_without(axis),
        over=axis,
        x=placed.x,
        metric=metric,
        value=value,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        n=n,
        users=users,
        joined=joined,
        run_n=row.n,
        offline_tokens=row.costs.offline_tokens,
        online_tokens=row.costs.online_tokens,
        seeds=row.seeds,
        label=row.label,
        run=row.run,
    )


def _own_samples(row: Row, metric: str) -> int:
    """Number of samples of a row that have the metric."""
    estimate = row.statistics.estimates.get(metric)
    return (estimate and estimate.n) or row.n
