"""Curves: the score against one thing that varies, over rows that share everything else.

What varies is the size of the history (`--history size=N`, `none` as 0, the whole history as the last point) or one
numeric parameter of a method (k, the number of peers).  Every point also has the tokens it cost offline and online, so
a curve over a parameter that buys offline work is one over the offline budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from personabench.hashing import digest
from personabench.leaderboard.board import Board
from personabench.leaderboard.costs import per_unit


def curves(found: Sequence[Board]) -> list[dict[str, Any]]:
    """The points of all curves of some boards, curve by curve in the order of `x`.

    Each point has `task`, `separation`, `split`, `model`, `method`, `curve` (a number for each curve), `over`
    ("history" or the parameter), `x` (None: the whole history), the primary `metric` with its `value`, `low` and
    `high`, `offline_tokens` per user, `online_tokens` per query, `seeds` and `run`.
    """
    groups: dict[tuple[Any, ...], list[tuple[float | None, Board, Mapping[str, Any]]]] = {}
    for board in found:
        for row in board.rows:
            if row.get(board.primary) is None:
                continue
            for over, x, rest in _axes(row):
                key = (board.title, row["data_hash"], row["setting"], row["method"], over, digest([rest, row["seeds"]]))
                groups.setdefault(key, []).append((x, board, row))
    made = []
    number = 0
    for key, points in sorted(groups.items()):
        if len({x for x, _, _ in points}) > 1:
            number += 1
            ordered = sorted(points, key=lambda point: (point[0] is None, point[0] or 0.0))
            made += [_point(number, key[4], x, board, row) for x, board, row in ordered]
    return made


def _axes(row: Mapping[str, Any]) -> list[tuple[str, float | None, Any]]:
    """(what may vary, its value, everything else) of a row."""
    params, history = row["params"], row["history"]
    found: list[tuple[str, float | None, Any]] = []
    size = {"own": None, "none": 0}
    if history in size or history.startswith("size="):
        found.append(("history", size[history] if history in size else float(history[5:]), params))
    for name, value in params.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            found.append((name, value, [history, {key: each for key, each in params.items() if key != name}]))
    return found


def _point(number: int, over: str, x: float | None, board: Board, row: Mapping[str, Any]) -> dict[str, Any]:
    shared = ("task", "separation", "split", "model", "method")
    return {
        **{name: row[name] for name in shared},
        "curve": number,
        "over": over,
        "x": x,
        "metric": board.primary,
        "value": row[board.primary],
        "low": row.get(f"{board.primary}/low"),
        "high": row.get(f"{board.primary}/high"),
        "offline_tokens": per_unit(row, "offline"),
        "online_tokens": per_unit(row, "online"),
        "seeds": row["seeds"],
        "run": row["run"],
    }
