"""What a report shows of the leaderboard: its rows in groups that answer one question, and their users one by one.

Every number is the leaderboard's own (`personabench.leaderboard.boards`); a group is those rows of a board that share
a setting and so were tested against each other.  Added here is only what a table has no room for: the gain of each
user, the points of curves, the runs behind a row.  Plain values, ready for JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from personabench.api.task import Task
from personabench.leaderboard import Board, BoardOptions, boards, curves
from personabench.leaderboard.comparison import aggregate_of
from personabench.leaderboard.curves import families, remarks
from personabench.leaderboard.rows import conditions, metric_directions
from personabench.results.index import SCORER, Run, everything, spec
from personabench.results.locate import find_task
from personabench.results.published import Vector, vector

POINTS = 200
"""At most so many users' gains are kept of a row: evenly spaced quantiles beyond."""

KEPT: tuple[str, ...] = (
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
)
KEPT += ("seeds", "seed_sd", "detectable", "personal", "calls", "cached_share", "seconds", "tests")


@dataclass(frozen=True)
class Row:
    """A row of a board, and the runs behind it, one per seed."""

    facts: Mapping[str, Any]
    runs: Sequence[Run]

    @property
    def folder(self) -> Path | None:
        """The folder of the first run; None where only published scores are at hand."""
        return None if self.facts["published"] else Path(self.facts["folder"])


@dataclass(frozen=True)
class Group:
    """Rows of one board and setting, best first, and their task where it is installed."""

    board: Board
    rows: Sequence[Row]
    task: Task | None
    curves: Sequence[Mapping[str, Any]]

    @property
    def first(self) -> Run:
        """Any run, for what all share."""
        return self.rows[0].runs[0]

    @property
    def baseline(self) -> int | None:
        """The row that gains are measured against."""
        over = {row.facts["gain_over"] for row in self.rows} - {None}
        return next((at for at, row in enumerate(self.rows) if row.facts["label"] in over), None)


def gather(results: Path, task: str | None = None) -> list[Group]:
    """All runs and published results of a results folder, in groups.

    Raises:
        DataError: a file of a run is damaged; the message names it.
    """
    runs = [run for run in everything(results) if task in (None, run["task"])]
    found = []
    for board in boards(runs, asked=BoardOptions(thorough=True, results=results)):
        drawn = curves([board], every=True)
        for setting in dict.fromkeys(row["setting"] for row in board.rows):
            rows = [
                Row(row, entry.runs)
                for row, entry in zip(board.rows, board.entries, strict=True)
                if row["setting"] == setting and row.get(board.primary) is not None
            ]
            if rows:
                names = {row.facts["run"] for row in rows}
                points = [point for point in drawn if point["run"] in names]
                first = rows[0].runs[0]
                about = spec(first)
                known = find_task(
                    first["task"], about.get("task_params", {}), about.get("task_hash", "")
                )
                found.append(Group(board, rows, known, points))
    return found


def apart(groups: Sequence[Group]) -> list[str]:
    """For each group, what tells it from the others of the same task, options, split and model."""
    known = [_flat(conditions(group.first)) for group in groups]
    words = []
    for mine, group in zip(known, groups, strict=True):
        alike = [
            its
            for its, other in zip(known, groups, strict=True)
            if _called(other) == _called(group)
        ]
        names = [name for name in mine if any(other.get(name) != mine[name] for other in alike)]
        words.append(", ".join(f"{name.replace('_', ' ')} {mine[name]}" for name in names))
    return words


def _called(group: Group) -> tuple[Any, ...]:
    first = group.first
    return (
        first["task"],
        first["separation"],
        first["split"],
        first["model"],
        str(first.get("task_changed")),
    )


def _flat(known: Mapping[str, Any]) -> dict[str, Any]:
    """Conditions in one level; of digests the first characters."""
    flat: dict[str, Any] = {}
    for name, value in known.items():
        parts = value.items() if isinstance(value, Mapping) else [(None, value)]
        for key, part in parts:
            text = str(part)
            flat[f"{name}.{key}" if key else name] = text[:8] if len(text) == 64 else text
    return flat


def describe(group: Group, number: int) -> dict[str, Any]:
    """Everything that a report says about a group but its samples."""
    first = group.first
    options = ", ".join(f"{key}={value}" for key, value in first.get("task_changed", {}).items())
    directions = metric_directions(run for row in group.rows for run in row.runs)
    letters = {row.facts["label"]: row.facts["letter"] for row in group.rows}
    return {
        "id": number,
        "task": first["task"],
        "options": options,
        "split": f"{first['separation']}/{first['split']}",
        "model": first["model"],
        "source": first["source"],
        "data_hash": first["data_hash"],
        "sample": first["sample"],
        "n": max(row.facts["n"] for row in group.rows),
        "users": max(row.facts["users"] for row in group.rows),
        "primary": group.board.primary,
        "metrics": [{"name": name, "higher": higher} for name, higher in directions.items()],
        "baseline": group.baseline,
        "rows": [_described(group, row, directions, letters) for row in group.rows],
        "curves": _curves(group),
        "notes": list(group.board.notes),
    }


def _described(
    group: Group, row: Row, directions: Mapping[str, bool], letters: Mapping[str, str]
) -> dict[str, Any]:
    facts = row.facts
    counts = {way: facts[f"{way}_users"] for way in ("win", "tie", "loss")}
    base = group.baseline
    described: dict[str, Any] = _plain(
        {
            **{name: facts[name] for name in KEPT},
            "baseline": base is not None and row is group.rows[base],
            "privileged": bool(row.runs[0].get("privileged")),
            "unread": facts["parse_failures"],
            "beats": [letters[label] for label in facts["beats"]],
            "reason": facts.get("no_interval"),
            "users_changed": None if counts["win"] is None else counts,
            "user_gains": None
            if base is None or row is group.rows[base]
            else user_gains(row, group.rows[base]),
            "costs": {"per_user": _tokens(facts, "offline"), "per_query": _tokens(facts, "online")},
            "metrics": {
                metric: {
                    **_ends(facts, metric),
                    "gain": _ends(facts, f"{metric}/gain"),
                    "common": _ends(facts, f"{metric}/common"),
                }
                for metric in directions
                if facts.get(metric) is not None
            },
            **{
                role: {
                    "value": facts[f"{key}gain"],
                    "low": facts[f"{key}gain_low"],
                    "high": facts[f"{key}gain_high"],
                    "n": facts[f"{key}gain_n"],
                    "p": facts[f"{key}gain_p"],
                    "over": facts[f"{key}gain_over"],
                }
                for role, key in (("gain", ""), ("shuffled", "shuffled_"), ("trivial", "trivial_"))
            },
        }
    )
    return described


def _ends(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A number and its interval; None where the leaderboard has none."""
    return {
        "value": facts.get(name),
        **{end: facts.get(f"{name}/{end}") for end in ("low", "high", "n")},
    }


def _tokens(facts: Mapping[str, Any], side: str) -> float:
    return float((facts[f"{side}_input_tokens"] or 0) + (facts[f"{side}_output_tokens"] or 0))


def user_gains(row: Row, base: Row) -> list[float] | None:
    """The gain of each user on the primary metric, lowest first, over seeds on average; at most `POINTS` of them.

    On the samples that both rows have.  None for metrics that are not one number per sample.
    """
    scores = [[vector(run) for run in each.runs] for each in (row, base)]
    common = set.intersection(
        *(_scored(one, row.facts["primary"]) for vectors in scores for one in vectors)
    )
    ours, theirs = (
        _by_user(one, vectors, common) for one, vectors in zip((row, base), scores, strict=True)
    )
    if ours is None or theirs is None:
        return None
    sign = 1.0 if row.runs[0]["higher_is_better"][row.facts["primary"]] else -1.0
    gains = np.sort([sign * (ours[user] - theirs[user]) for user in ours])
    if len(gains) > POINTS:
        gains = np.quantile(gains, (np.arange(POINTS) + 0.5) / POINTS)
    return [float(gain) for gain in gains]


def _scored(scores: Vector, metric: str) -> set[str]:
    """The samples that have a metric."""
    values = scores.values.get(SCORER, {}).get(metric) or [None] * len(scores.ids)
    return {sample for sample, value in zip(scores.ids, values, strict=True) if value is not None}


def _by_user(
    row: Row, vectors: Sequence[Vector], common: Collection[str]
) -> dict[str, float] | None:
    """Each user's own primary metric on the common samples, by hashed user."""
    metric = row.facts["primary"]
    seeds: list[dict[str, float]] = []
    for run, scores in zip(row.runs, vectors, strict=True):
        values = scores.values.get(SCORER, {}).get(metric, [])
        aggregate = aggregate_of(run, metric, scores)
        if aggregate is None or not values or any(isinstance(value, list) for value in values):
            return None
        users: dict[str, list[Any]] = {}
        for sample, user, value in zip(scores.ids, scores.users, values, strict=True):
            if sample in common:
                users.setdefault(user, []).append(value)
        seeds.append(
            {user: aggregate(np.array(mine, dtype=np.float64)) for user, mine in users.items()}
        )
    return {user: float(np.mean([each[user] for each in seeds])) for user in seeds[0]}


def _curves(group: Group) -> list[dict[str, Any]]:
    """The leaderboard's curves, their points with the places of their rows."""
    places = {row.facts["run"]: number for number, row in enumerate(group.rows)}
    kept = ("x", "value", "low", "high", "n", "joined")
    return [
        {
            **{key: points[0][key] for key in ("over", "metric", "name")},
            "points": [
                {"row": places[point["run"]], **_plain({key: point[key] for key in kept})}
                for point in points
            ],
            "remarks": remarks(points),
        }
        for points in families(group.curves)
        if len(points) > 1
    ]


def _plain(value: Any) -> Any:
    """Numbers at six significant digits: more than anybody reads, less than a page needs to carry."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
