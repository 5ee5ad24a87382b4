"""The tables of a report: the leaderboard's rows in groups, and their users one by one.

Every number is the leaderboard's own (`personabench.leaderboard.boards`). The report adds only
details that a table has no room for: the gain of each user, the points of curves, the runs behind a
row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from personabench.leaderboard.curves import Point, families, remarks
from personabench.leaderboard.estimates import Contrast, Estimate, Opponent
from personabench.leaderboard.row import Row
from personabench.leaderboard.rows import metric_directions
from personabench.report.groups import Group
from personabench.report.user_scores import user_gains, user_pairs
from personabench.results.index import Run

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
    "ranked",
    "emphasized",
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


def describe(group: Group, number: int) -> dict[str, Any]:
    """Collect everything that a report shows of a group except its samples, ready for JSON."""
    summary = group.first.summary
    options = [f"{name}={value}" for name, value in summary.task_changed.items()]

    runs = [run for member in group.rows for run in member.runs]
    directions = metric_directions(runs)
    metrics = []
    for name, higher in directions.items():
        metrics.append({"name": name, "higher": higher})

    rows = []
    for index in range(len(group.rows)):
        row = _describe_row(group, index, directions)
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
        "judges": list(group.board.judges),
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
        "has_samples": group.has_samples,
        "protocol": group.protocol,
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
) -> dict[str, Any]:
    member = group.rows[index]
    row = member.row
    board_rows = [peer.row for peer in group.rows]
    letters = {peer_row.label: peer_row.letter for peer_row in board_rows}
    beaten = [letters[label] for label in row.statistics.beats]

    baseline = group.baseline
    gains = None
    if baseline is not None and baseline != index:
        gains = user_gains(member, group.rows[baseline])

    described_metrics = {}
    for metric in metrics:
        if row.scores.get(metric) is not None:
            described_metrics[metric] = _describe_metric(row, metric)

    contrast = row.statistics.contrasts.get("shuffled")
    twin = group.index_of(contrast.over) if contrast else None
    pairs = None
    if twin is not None:
        pairs = user_pairs(member, group.rows[twin])

    described: dict[str, Any] = {name: row.columns[name] for name in KEPT}
    described |= {
        "baseline": baseline == index,
        "privileged": member.runs[0].summary.privileged,
        "unparsed": row.parse_failures,
        "beats": beaten,
        "reason": row.estimate.reason if row.estimate else None,
        "users_changed": None,
        "user_gains": gains,
        "line": member.line,
        "twin": twin,
        "twin_pairs": pairs,
        "costs": {
            "per_user": row.costs.offline_tokens or 0.0,
            "per_query": row.costs.online_tokens or 0.0,
        },
        "training": asdict(row.training) if row.training else None,
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
