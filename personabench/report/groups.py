"""The groups of a report: the rows of a leaderboard that share a setting, so that they were tested
against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from personabench.api.task import Task
from personabench.leaderboard import Board, BoardOptions, boards, curves
from personabench.leaderboard.curves import Point
from personabench.leaderboard.row import Row
from personabench.leaderboard.rows import conditions, shorten_digest
from personabench.report.protocol import protocol
from personabench.results.index import Run, read_chosen
from personabench.results.locate import find_task


@dataclass(frozen=True)
class ReportRow:
    """A row of a board, and the runs behind it, one per seed.

    Attributes:
        line: the row's label without its history control, which rows of several tasks share.
    """

    row: Row
    runs: Sequence[Run]
    line: str = ""

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
    def has_samples(self) -> bool:
        """Whether a row is a run of one's own: published results have no samples."""
        return any(member.folder for member in self.rows)

    @property
    def protocol(self) -> str:
        """The protocol of the rows in one line, for pictures."""
        letters = {member.row.letter for member in self.rows}
        pairs = zip(self.board.rows, self.board.entries, strict=True)
        entries = [entry for row, entry in pairs if row.letter in letters]
        rows = [member.row for member in self.rows]
        return protocol(replace(self.board, rows=rows, entries=entries))

    def index_of(self, label: str | None) -> int | None:
        """Index of the row of that label, if it is in the group."""
        for index, member in enumerate(self.rows):
            if member.row.label == label:
                return index
        return None

    @property
    def baseline(self) -> int | None:
        """Index of the row that gains are measured against."""
        labels = {member.row.gain.over for member in self.rows if member.row.gain}
        for index, member in enumerate(self.rows):
            if member.row.label in labels:
                return index
        return None


def gather(results: Path, task: str | None = None, *, with_reference: bool = False) -> list[Group]:
    """Read the runs of a results folder in groups, those without a run of one's own last.

    Args:
        task: only the runs of this task.
        with_reference: published results as well.

    Raises:
        DataError: a file of a run is damaged.
    """
    runs = read_chosen(results, with_reference=with_reference)
    if task is not None:
        runs = [run for run in runs if run.summary.task == task]

    options = BoardOptions(thorough=True, results=results)
    groups = []
    for board in boards(runs, options=options):
        points = curves([board], every=True)
        for members in _group_by_setting(board):
            group = _make_group(board, members, points)
            groups.append(group)
    return sorted(groups, key=lambda group: not group.has_samples)


def _group_by_setting(board: Board) -> list[list[ReportRow]]:
    """Group the rows that have the primary metric by setting, in the order of the board."""
    groups: dict[str, list[ReportRow]] = {row.setting: [] for row in board.rows}
    for row, entry in zip(board.rows, board.entries, strict=True):
        if row.scores.get(board.primary) is not None:
            member = ReportRow(row, entry.runs, entry.label_without("history"))
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
