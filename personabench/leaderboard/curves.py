"""Curves: the score against one thing that varies, over rows that share everything else, on the samples of all.

What varies is the size of the history (`--history size=N`, `none` as 0, the whole history as the last point) or one
numeric parameter of a method (k, the number of peers).  Every point also has the tokens it cost offline and online, so
a curve over a parameter that buys offline work is one over the offline budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from personabench.hashing import digest
from personabench.leaderboard.board import Board
from personabench.leaderboard.costs import per_unit
from personabench.leaderboard.rows import Entry, judge_of, metric_directions

if TYPE_CHECKING:
    from personabench.leaderboard.stats import Estimate
    from personabench.results.published import Vector

Reader = Callable[[Entry], "Sequence[Vector]"]


class _Row(NamedTuple):
    x: float | None
    facts: Mapping[str, Any]
    entry: Entry


def curves(found: Sequence[Board], every: bool = False) -> list[dict[str, Any]]:
    """The points of all curves of some boards, curve by curve in the order of `x`.

    The points of a curve are compared on the samples that all of them have.  A point that has too few of them is not
    `joined`, and keeps the value on its own samples.

    Each point has `task`, `separation`, `split`, `data_hash`, `model`, `method`, `curve` (a number for each curve),
    `name` (what its points share), `over` ("history" or the parameter), `x` (None: the whole history), the `metric`
    with its `value`, `low` and `high` on `n` samples of so many `users`, `joined`, `run_n` (samples of the run),
    `offline_tokens` per user and `online_tokens` per query of the run, `seeds`, `label` (of the row) and `run`.

    Args:
        every: curves of every metric, not of the primary one only.

    Raises:
        DataError: a score file is damaged.
    """
    read = _reader()
    made: list[dict[str, Any]] = []
    number = 0
    for board in found:
        directions = metric_directions(run for entry in board.entries for run in entry.runs)
        groups: dict[tuple[str, ...], list[_Row]] = {}
        for metric in directions if every else [board.primary]:
            for facts, entry in zip(board.rows, board.entries, strict=True):
                if facts.get(metric) is None:
                    continue
                for over, x, rest in _axes(facts):
                    same = digest([rest, facts["seeds"], judge_of(entry.first, metric)])
                    key = (facts["setting"], facts["method"], over, same, metric)
                    groups.setdefault(key, []).append(_Row(x, facts, entry))
        for (_, _, over, _, metric), rows in sorted(groups.items()):
            if len({row.x for row in rows}) > 1:
                number += 1
                rows.sort(key=lambda row: (row.x is None, row.x or 0.0))
                shared = _aligned(rows, metric, directions[metric], read)
                pairs = list(zip(rows, shared, strict=True))
                cut = any(
                    estimate is not None and estimate.n != _own(row, metric)
                    for row, estimate in pairs
                )
                made += [
                    {"curve": number, **_point(row, over, metric, estimate, cut)}
                    for row, estimate in pairs
                ]
    return made


def families(points: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Points curve by curve."""
    made: dict[int, list[Mapping[str, Any]]] = {}
    for point in points:
        made.setdefault(point["curve"], []).append(point)
    return list(made.values())


def remarks(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the reader of one curve must know of its samples, in sentences; nothing where all points have the same."""
    joined = [point for point in points if point["joined"]]
    apart = [point for point in points if not point["joined"]]
    sentences = []
    if any(point["n"] != point["run_n"] for point in joined):
        first, sizes = joined[0], ", ".join(str(point["run_n"]) for point in joined)
        who = "joined points" if apart else "all"
        sentences.append(
            f"Compared on the {first['n']} samples of {first['users']} users that {who} have; the runs have {sizes}. "
            "Tokens are of all samples of a run."
        )
    if apart:
        names = ", ".join(f"{name(point)} (n={point['n']})" for point in apart)
        sentences.append(f"Not joined, with too few samples in common with the others: {names}.")
    return sentences


def name(point: Mapping[str, Any]) -> str:
    """A point as people name it: "k=4", "history=all"."""
    return f"{point['over']}={shown(point['x'])}"


def shown(x: float | None) -> str:
    """A place on the axis as people read it."""
    return "all" if x is None else f"{x:.10g}"


def _reader() -> Reader:
    """Reads the scores of an entry, once."""
    known: dict[str, Sequence[Vector]] = {}

    def read(entry: Entry) -> Sequence[Vector]:
        from personabench.results.published import vector

        key = entry.first["fingerprint"]
        if key not in known:
            known[key] = [vector(run) for run in entry.runs]
        return known[key]

    return read


def _axes(row: Mapping[str, Any]) -> list[tuple[str, float | None, Any]]:
    """(what may vary, its value, everything else) of a row."""
    params, history = row["params"], row["history"]
    found: list[tuple[str, float | None, Any]] = []
    size = {"own": None, "none": 0}
    if history in size or history.startswith("size="):
        found.append(("history", size[history] if history in size else float(history[5:]), params))
    for name, value in params.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            found.append(
                (name, value, [history, {key: each for key, each in params.items() if key != name}])
            )
    return found


def _aligned(
    rows: Sequence[_Row], metric: str, higher: bool, read: Reader
) -> Sequence[Estimate | None]:
    """The metric of each row on the samples of all; None for rows that are not compared."""
    from personabench.leaderboard.comparison import Column, aggregate_of

    scores = [read(row.entry) for row in rows]
    known = next((number for number, vectors in enumerate(scores) if vectors[0].ids), 0)
    aggregate = aggregate_of(rows[known].entry.first, metric, scores[known][0])
    nothing = [None] * len(rows)
    if aggregate is None:
        return nothing
    shared = Column(scores, metric, higher, aggregate).align()
    return shared if sum(estimate is not None for estimate in shared) > 1 else nothing


def _own(row: _Row, metric: str) -> int:
    """How many samples of a row have the metric."""
    return int(row.facts.get(f"{metric}/n") or row.facts["n"])


def _point(row: _Row, over: str, metric: str, shared: Estimate | None, cut: bool) -> dict[str, Any]:
    """A point; `cut`: its curve is of fewer samples than its rows."""
    facts = row.facts
    value, low, high = facts[metric], facts.get(f"{metric}/low"), facts.get(f"{metric}/high")
    n, users = _own(row, metric), facts["users"]
    if shared is not None and cut:
        value, low, high, n, users = shared.value, shared.low, shared.high, shared.n, shared.users
    kept = ("task", "separation", "split", "data_hash", "model", "method")
    return {
        **{key: facts[key] for key in kept},
        "name": row.entry.label_without(over),
        "over": over,
        "x": row.x,
        "metric": metric,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "users": users,
        "joined": shared is not None,
        "run_n": facts["n"],
        "offline_tokens": per_unit(facts, "offline"),
        "online_tokens": per_unit(facts, "online"),
        "seeds": facts["seeds"],
        "label": facts["label"],
        "run": facts["run"],
    }
