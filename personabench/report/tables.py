"""The tables of a report: the leaderboard's rows in groups, and their users one by one.

Every number is the leaderboard's own (`personabench.leaderboard.boards`); a group is those rows of
a board that share a setting and so were tested against each other. The report adds only details
that a table has no room for: the gain of each user, the points of curves, the runs behind a row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from personabench.api.task import Task
from personabench.leaderboard import Board, BoardOptions, boards, curves
from personabench.leaderboard.column import aggregate_of
from personabench.leaderboard.curves import Point, families, remarks
from personabench.leaderboard.estimates import Contrast, Estimate, Opponent
from personabench.leaderboard.row import Row
from personabench.leaderboard.rows import conditions, metric_directions, shorten_digest
from personabench.results.index import SCORER, Run, read_all
from personabench.results.locate import find_task
from personabench.results.published import Vector, vector

# At most so many users' gains are kept of a row: evenly spaced quantiles beyond.
POINTS = 200

# Significant digits of the page's numbers: more than a reader uses, fewer bytes than all of them.
DIGITS = 6

KEPT = (
    "label",
    "letter",
    "method",
    "history",
    "run",
    "published",
    "status",
    "fit",
    "n",
    "sample_set",
    "users",
    "failed",
    "owed",
    "leader",
    "seeds",
    "seed_sd",
    "detectable",
    "personal",
    "calls",
    "cached_share",
    "seconds",
    "tests",
)

# Names of the contrasts on the page.
CONTRASTS: dict[str, Opponent] = {
    "gain": "baseline",
    "shuffled": "shuffled",
    "trivial": "trivial",
}


@dataclass(frozen=True)
class ReportRow:
    """A row of a board, and the runs behind it, one per seed."""

    row: Row
    runs: Sequence[Run]

    @property
    def folder(self) -> Path | None:
        """The folder of the first run; None if only published scores are at hand."""
        return None if self.row.published else Path(self.row.folder)


@dataclass(frozen=True)
class Group:
    """Rows of one board and setting, best first, and their task if it is installed."""

    board: Board
    rows: Sequence[ReportRow]
    task: Task | None
    curves: Sequence[Point]

    @property
    def first(self) -> Run:
        """A run of the group, for everything that all of them share."""
        return self.rows[0].runs[0]

    @property
    def baseline(self) -> int | None:
        """Index of the row that gains are measured against."""
        labels = {member.row.gain.over for member in self.rows if member.row.gain}
        for index, member in enumerate(self.rows):
            if member.row.label in labels:
                return index
        return None


def gather(results: Path, task: str | None = None) -> list[Group]:
    """Read all runs and published results of a results folder, in groups.

    Raises:
        DataError: a file of a run is damaged.
    """
    runs = read_all(results)
    if task is not None:
        runs = [run for run in runs if run.summary.task == task]

    options = BoardOptions(thorough=True, results=results)
    groups = []
    for board in boards(runs, options=options):
        points = curves([board], every=True)
        for members in _group_by_setting(board):
            group = _make_group(board, members, points)
            groups.append(group)
    return groups


def _group_by_setting(board: Board) -> list[list[ReportRow]]:
    """Group the rows that have the primary metric by setting, in the order of the board."""
    groups: dict[str, list[ReportRow]] = {row.setting: [] for row in board.rows}
    for row, entry in zip(board.rows, board.entries, strict=True):
        if row.scores.get(board.primary) is not None:
            member = ReportRow(row, entry.runs)
            groups[row.setting].append(member)
    return [members for members in groups.values() if members]


def _make_group(
    board: Board,
    members: Sequence[ReportRow],
    points: Sequence[Point],
) -> Group:
    first = members[0].runs[0]
    task = find_task(first.summary.task, first.task_params, first.task_hash)

    runs = {member.row.run for member in members}
    group_points = [point for point in points if point.run in runs]
    return Group(
        board=board,
        rows=members,
        task=task,
        curves=group_points,
    )


def apart(groups: Sequence[Group]) -> list[str]:
    """Describe for each group how it differs from groups with the same heading."""
    flattened = [_flatten(conditions(group.first)) for group in groups]
    peers_by_heading: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for values, group in zip(flattened, groups, strict=True):
        peers = peers_by_heading.setdefault(_heading(group), [])
        peers.append(values)

    descriptions = []
    for values, group in zip(flattened, groups, strict=True):
        peers = peers_by_heading[_heading(group)]
        parts = []
        for name, value in values.items():
            peer_values = {peer.get(name) for peer in peers}
            if peer_values != {value}:
                words = name.replace("_", " ")
                parts.append(f"{words} {value}")
        descriptions.append(", ".join(parts))
    return descriptions


def _heading(group: Group) -> tuple[str, ...]:
    summary = group.first.summary
    return (
        summary.task,
        summary.separation,
        summary.split,
        summary.model,
        str(summary.task_changed),
    )


def _flatten(values: Mapping[str, Any]) -> dict[str, str]:
    """Flatten conditions into one level; digests are shortened."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if not isinstance(value, Mapping):
            flat[name] = shorten_digest(value)
            continue
        for key, part in value.items():
            flat[f"{name}.{key}"] = shorten_digest(part)
    return flat


def describe(group: Group, number: int) -> dict[str, Any]:
    """Collect everything that a report shows of a group except its samples, ready for JSON."""
    summary = group.first.summary
    options = [f"{name}={value}" for name, value in summary.task_changed.items()]

    runs = [run for member in group.rows for run in member.runs]
    directions = metric_directions(runs)
    metrics = []
    for name, higher in directions.items():
        metrics.append({"name": name, "higher": higher})

    base_scores = None if group.baseline is None else read_scores(group.rows[group.baseline])
    rows = []
    for index in range(len(group.rows)):
        row = _describe_row(group, index, directions, base_scores)
        rows.append(row)

    sample_counts = [member.row.n for member in group.rows]
    user_counts = [member.row.users for member in group.rows]
    return {
        "id": number,
        "task": summary.task,
        "options": ", ".join(options),
        "split": f"{summary.separation}/{summary.split}",
        "subject": summary.subject,
        "scale": _rubric_scale(runs),
        "model": summary.model,
        "source": summary.source,
        "data_hash": summary.data_hash,
        "sample": summary.sample,
        "n": max(sample_counts),
        "users": max(user_counts),
        "primary": group.board.primary,
        "metrics": metrics,
        "baseline": group.baseline,
        "rows": rows,
        "curves": _describe_curves(group),
        "notes": list(group.board.notes),
    }


def _rubric_scale(runs: Sequence[Run]) -> list[int] | None:
    """The scale of the rubric that answers were scored by, for the reader's own ratings."""
    for run in runs:
        rubric = run.summary.provenance.get("rubric")
        if isinstance(rubric, dict) and "scale" in rubric:
            return list(rubric["scale"])
    return None


def _describe_row(
    group: Group,
    index: int,
    metrics: Collection[str],
    base_scores: Sequence[Vector] | None,
) -> dict[str, Any]:
    member = group.rows[index]
    row = member.row
    board_rows = [peer.row for peer in group.rows]
    letters = {peer_row.label: peer_row.letter for peer_row in board_rows}
    beaten = [letters[label] for label in row.statistics.beats]

    baseline = group.baseline
    gains = None
    if baseline is not None and baseline != index:
        gains = user_gains(member, group.rows[baseline], base_scores)

    described_metrics = {}
    for metric in metrics:
        if row.scores.get(metric) is not None:
            described_metrics[metric] = _describe_metric(row, metric)

    described: dict[str, Any] = {name: row.columns[name] for name in KEPT}
    described |= {
        "baseline": baseline == index,
        "privileged": member.runs[0].summary.privileged,
        "unparsed": row.parse_failures,
        "beats": beaten,
        "reason": row.estimate.reason if row.estimate else None,
        "users_changed": None,
        "user_gains": gains,
        "costs": {
            "per_user": row.costs.offline_tokens or 0.0,
            "per_query": row.costs.online_tokens or 0.0,
        },
        "metrics": described_metrics,
    }

    counts = row.gain.comparison.by_user if row.gain else None
    if counts is not None:
        described["users_changed"] = {
            "win": counts.win,
            "tie": counts.tie,
            "loss": counts.loss,
        }
    for name, opponent in CONTRASTS.items():
        contrast = row.statistics.contrasts.get(opponent)
        described[name] = _describe_contrast(contrast)
    rounded: dict[str, Any] = _round(described)
    return rounded


def _describe_metric(row: Row, metric: str) -> dict[str, Any]:
    statistics = row.statistics
    estimate = statistics.estimates.get(metric)
    gain = statistics.gains.get(metric)
    aligned = statistics.aligned.get(metric)

    described = _describe_estimate(estimate)
    # The score of the board: it is there even without statistics.
    described["value"] = row.scores[metric]
    described["gain"] = _describe_estimate(gain)
    described["common"] = _describe_estimate(aligned)
    return described


def _describe_estimate(estimate: Estimate | None) -> dict[str, Any]:
    """A number with its interval; all of it None if the leaderboard has none."""
    if estimate is None:
        return dict.fromkeys(("value", "low", "high", "n"))
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
    }


def _describe_contrast(contrast: Contrast | None) -> dict[str, Any]:
    if contrast is None:
        nothing = _describe_estimate(None)
        return {**nothing, "p": None, "over": None}

    described = _describe_estimate(contrast.gain)
    described["p"] = contrast.corrected
    described["over"] = contrast.over
    return described


def read_scores(member: ReportRow) -> list[Vector]:
    """Read the scores of a row's runs, one per seed."""
    return [vector(run) for run in member.runs]


def user_gains(
    member: ReportRow, base: ReportRow, base_scores: Sequence[Vector] | None = None
) -> list[float] | None:
    """Compute the gain of each user on the primary metric, lowest first, averaged over seeds.

    On the samples that both rows have; at most `POINTS` gains. None for metrics that are not one
    number per sample.  `base_scores` are those of the baseline, if they were read before.
    """
    metric = member.row.primary
    scores = read_scores(member)
    base_scores = base_scores or read_scores(base)
    samples = [_samples_with(seed_scores, metric) for seed_scores in (*scores, *base_scores)]
    common = set.intersection(*samples)

    gained = _mean_by_user(member, scores, common)
    baseline = _mean_by_user(base, base_scores, common)
    if gained is None or baseline is None:
        return None

    summary = member.runs[0].summary
    sign = 1.0 if summary.higher_is_better[metric] else -1.0
    differences = []
    for user, value in gained.items():
        difference = value - baseline[user]
        differences.append(sign * difference)
    gains = np.sort(differences)
    if len(gains) > POINTS:
        # Midpoints of equal shares, so that the quantiles stand for the same number of users each.
        midpoints = (np.arange(POINTS) + 0.5) / POINTS
        gains = np.quantile(gains, midpoints)
    return [float(gain) for gain in gains]


def _samples_with(scores: Vector, metric: str) -> set[str]:
    """The samples that have a metric."""
    metrics = scores.values.get(SCORER, {})
    values = metrics.get(metric)
    if not values:
        return set()

    pairs = zip(scores.ids, values, strict=True)
    return {sample for sample, value in pairs if value is not None}


def _mean_by_user(
    member: ReportRow,
    vectors: Sequence[Vector],
    common: Collection[str],
) -> dict[str, float] | None:
    """The primary metric of each user on the common samples, averaged over seeds."""
    seeds = []
    for run, scores in zip(member.runs, vectors, strict=True):
        by_user = _metric_by_user(run, scores, member.row.primary, common)
        if by_user is None:
            return None
        seeds.append(by_user)

    means = {}
    for user in seeds[0]:
        seed_values = [by_user[user] for by_user in seeds]
        means[user] = float(np.mean(seed_values))
    return means


def _metric_by_user(
    run: Run,
    scores: Vector,
    metric: str,
    common: Collection[str],
) -> dict[str, float] | None:
    metrics = scores.values.get(SCORER, {})
    values = metrics.get(metric, [])
    aggregate = aggregate_of(run, metric, scores)
    if aggregate is None or not values:
        return None
    if any(isinstance(value, list) for value in values):
        return None

    values_by_user: dict[str, list[Any]] = {}
    for sample, user, value in zip(scores.ids, scores.users, values, strict=True):
        if sample in common:
            user_values = values_by_user.setdefault(user, [])
            user_values.append(value)

    scores_by_user = {}
    for user, user_values in values_by_user.items():
        array = np.array(user_values, dtype=np.float64)
        scores_by_user[user] = aggregate(array)
    return scores_by_user


def _describe_curves(group: Group) -> list[dict[str, Any]]:
    """The leaderboard's curves; their points name rows by index."""
    indices = {member.row.run: index for index, member in enumerate(group.rows)}
    described = []
    for points in families(group.curves):
        # A curve of the board may have only one point in this group.
        if len(points) < 2:
            continue

        first = points[0]
        described_points = []
        for point in points:
            row = indices[point.run]
            described_points.append(_describe_point(point, row))
        curve = {
            "over": first.over,
            "metric": first.metric,
            "name": first.name,
            "points": described_points,
            "remarks": remarks(points),
        }
        described.append(curve)
    return described


def _describe_point(point: Point, row: int) -> dict[str, Any]:
    numbers = {
        "x": point.x,
        "value": point.value,
        "low": point.low,
        "high": point.high,
        "n": point.n,
        "joined": point.joined,
    }
    rounded: dict[str, Any] = _round(numbers)
    return {"row": row, **rounded}


def _round(value: Any) -> Any:
    """Round every number in a nested value."""
    if isinstance(value, dict):
        return {key: _round(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_round(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    return value
