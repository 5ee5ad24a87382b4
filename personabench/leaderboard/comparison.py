"""Runs against each other, sample by sample: the numbers behind `compare` and behind every leaderboard.

Rows are aligned by sample id, metric by metric: a sample that a judge left without a value of one counts for the
others.  Rows on the same samples share one set of resamples; two rows on different samples are
compared on those that both have.  Several seeds of a row are averaged per sample first, so that a sample stays one
sample.  Only rows of one setting (same task, data, model, decoding) are compared.  Their tests on the primary metric
are two families for Holm's correction: rows against each other, and rows against their own shuffled selves.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import msgspec
import numpy as np

from personabench.api import registry
from personabench.errors import DataError, PersonabenchError, UsageError
from personabench.hashing import digest
from personabench.leaderboard.rows import Entry, conditions, judge_of, metric_directions
from personabench.leaderboard.stats import (
    Comparison,
    Estimate,
    Scores,
    holm,
    leaders,
    letters,
    wins,
)
from personabench.leaderboard.stats.multiple_testing import ALPHA
from personabench.leaderboard.stats.resample import Aggregate, Floats
from personabench.leaderboard.stats.scores import DRAWS
from personabench.metrics.metric import mean
from personabench.results.index import SCORER, Run, spec
from personabench.results.published import Vector, vector

SEED = 0
"""Of all resamples and sign flips."""

FRONTIER_SHARE = 0.5
"""A row that would leave less than this of the samples is left out of the frontier, instead of cutting the others'."""

DRAWS_PER_TEST = 50
"""A p-value from so many draws for each test of its family can still pass Holm's correction: 1/50 is below 5 %."""


class Column:
    """One metric of several rows, aligned by sample id.

    Args:
        rows: for each row the scores of its runs, one per seed.
        name, higher: the metric and its direction.
        aggregate: how the metric is made of samples.
        draws: of bootstrap and permutations.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[Vector]],
        name: str,
        higher: bool,
        aggregate: Aggregate,
        draws: int = DRAWS,
    ) -> None:
        self.name, self.higher, self.draws = name, higher, draws
        self.plain = aggregate is mean
        self._one = aggregate
        self._values = [[_valued(each, name) for each in vectors] for vectors in rows]
        self._samples = [
            tuple(sorted(set.intersection(*map(set, values)))) for values in self._values
        ]
        self._users = [dict(zip(vectors[0].ids, vectors[0].users, strict=True)) for vectors in rows]
        self._cache: dict[tuple[int, ...], tuple[Scores, dict[int, int]]] = {}

    def estimate(self, row: int) -> Estimate:
        """A row's metric with its interval, on all samples of the row."""
        scores, places = self._scores(row)
        return scores.estimate(places[row])

    def gain(self, a: int, b: int) -> Estimate:
        """The gain of row a over row b with its interval, on the samples of both."""
        scores, places = self._scores(a, b)
        return scores.gain(places[a], places[b])

    def compare(self, a: int, b: int) -> Comparison:
        """Row a against row b on the samples of both."""
        scores, places = self._scores(a, b)
        if not scores.clusters.n:
            nothing = Estimate(None, None, None, None, 0, 0, "no sample in common")
            return Comparison(nothing, None, False, None, None, None, None)
        return scores.compare(places[a], places[b])

    def seeds(self, row: int) -> list[float]:
        """The metric of each seed on the row's samples."""
        names = self._samples[row]
        return [self._one(_array(seed, names)) for seed in self._values[row]] if names else []

    def align(self, share: float = 0.0) -> list[Estimate | None]:
        """Each row's metric on the samples that all rows have; None for rows that have too few of them.

        Starts from the samples that most rows have, and leaves out a row that would leave those of one user only, or
        less than a `share` of the samples it starts from.
        """
        alike = Counter(self._samples)
        order = sorted(range(len(self._samples)), key=lambda row: _rank(self._samples[row], alike))
        start = common = set(self._samples[order[0]])
        members = []
        for row in order:
            both = common.intersection(self._samples[row])
            users = {self._users[row][name] for name in both}
            enough = len(users) > 1 and len(both) >= share * len(start)
            if both and (enough or both == common == set(self._samples[row])):
                common = both
                members.append(row)
        if len({self._samples[row] for row in members}) == 1:
            return [self.estimate(row) if row in members else None for row in range(len(order))]
        scores = self._build(members) if members else None
        return [
            scores.estimate(members.index(row)) if scores and row in members else None
            for row in range(len(order))
        ]

    def samples(self, row: int) -> tuple[str, ...]:
        """The samples of a row that have the metric, in order."""
        return self._samples[row]

    def _scores(self, *wanted: int) -> tuple[Scores, dict[int, int]]:
        """Scores that hold the wanted rows, and the place of each row in them."""
        first, last = wanted[0], wanted[-1]
        if self._samples[first] == self._samples[last]:
            members = tuple(
                row for row, names in enumerate(self._samples) if names == self._samples[first]
            )
        else:
            members = (first, last)
        if members not in self._cache:
            self._cache[members] = (
                self._build(members),
                {row: place for place, row in enumerate(members)},
            )
        return self._cache[members]

    def _build(self, members: Sequence[int]) -> Scores:
        common = set(self._samples[members[0]]).intersection(
            *(self._samples[row] for row in members[1:])
        )
        names = sorted(common)
        users = [self._users[members[0]][name] for name in names]
        aggregate, rows = (
            self._one,
            [np.stack([_array(v, names) for v in self._values[row]], 1) for row in members],
        )
        if self.plain:
            rows = [row[:, 0] + (row - row[:, :1]).mean(axis=1) for row in rows]
        elif max(row.shape[1] for row in rows) == 1:
            rows = [row[:, 0] for row in rows]
        else:
            width = math.lcm(*(row.shape[1] for row in rows))
            rows = [np.repeat(row, width // row.shape[1], axis=1) for row in rows]
            aggregate = _over_seeds(self._one)
        return Scores(
            rows, users, aggregate, higher_is_better=self.higher, draws=self.draws, seed=SEED
        )


def _rank(samples: tuple[str, ...], alike: Mapping[tuple[str, ...], int]) -> tuple[bool, int, int]:
    """Before others: samples that more rows have, then more samples, and none at all last."""
    return not samples, -alike[samples], -len(samples)


def _shared(vectors: Sequence[Vector]) -> tuple[str, ...]:
    return tuple(sorted(set(vectors[0].ids).intersection(*(each.ids for each in vectors[1:]))))


def _valued(scores: Vector, name: str) -> dict[str, float | list[float]]:
    """A metric's values by sample, of those that have one."""
    pairs = zip(
        scores.ids, scores.values.get(SCORER, {}).get(name) or [None] * len(scores.ids), strict=True
    )
    return {sample: value for sample, value in pairs if value is not None}


def _array(values: Mapping[str, Any], names: Sequence[str]) -> Floats:
    return np.array([values[name] for name in names], dtype=np.float64)


def _over_seeds(aggregate: Aggregate) -> Aggregate:
    return lambda values: float(
        np.mean([aggregate(values[:, seed]) for seed in range(values.shape[1])])
    )


def aggregate_of(run: Run, name: str, scores: Vector) -> Aggregate | None:
    """How a metric of a run is made of its samples.

    Asked of the task; where that is not installed, a metric that is the mean of its samples is taken for a mean.
    None where neither helps.
    """
    try:
        cls = registry.recorded("task", run["task"], spec(run).get("task_hash", ""))
        metrics = cls.metrics_of(scores.values.get(SCORER, {}))
        return next((metric.aggregate for metric in metrics if metric.name == name), None)
    except PersonabenchError:
        values: list[Any] = list(_valued(scores, name).values())
        stated = run["metrics"].get(SCORER, {}).get(name)
        plain = stated is not None and values and not isinstance(values[0], list)
        return (
            mean if plain and math.isclose(float(np.mean(values)), stated, rel_tol=1e-9) else None
        )


def tabulate(board: Sequence[Entry], baseline: str, thorough: bool) -> list[dict[str, Any]]:
    """The statistics of a board, one plain object per row, in the order given, which is that of rank.

    Args:
        baseline: the name of the row that gains are measured against, in each setting.
        thorough: intervals for all metrics, not for the primary one only.

    Returns:
        for each row: `letter`; `estimates`, `gains` (over the baseline) and `aligned` (on the samples that rows
        share, None for a row that shares too few) by metric; `sample_set`, a digest of its samples; `seeds`, the
        primary metric of each seed; `versus`, by "baseline", "shuffled" and "trivial", the comparison with that row,
        its place `of` included; `beats`, the places of the rows it beats; `leader`; `tests` and `controls`, the sizes
        of the two families of tests, between rows and against the shuffled self, and the `draws` of each.

    Raises:
        DataError: a score file is damaged.
    """
    rows = [[vector(run) for run in entry.runs] for entry in board]
    held = [at for at, vectors in enumerate(rows) if _shared(vectors)]
    found: list[dict[str, Any]] = [
        {
            "letter": name,
            "estimates": {},
            "gains": {},
            "seeds": [],
            "versus": {},
            "beats": [],
            "leader": False,
        }
        | {"aligned": {}, "sample_set": None, "tests": 0, "controls": 0, "draws": 0}
        for name in letters(len(board))
    ]
    if not held:
        return found
    first = board[held[0]].first
    groups = [
        [at for at in held if board[at].setting == s]
        for s in dict.fromkeys(board[at].setting for at in held)
    ]
    primary = first["primary"]
    known = metric_directions(board[at].first for at in held)
    for metric, higher in (known if thorough else {primary: known[primary]}).items():
        having = {
            at for at in held if all(metric in each.values.get(SCORER, {}) for each in rows[at])
        }
        for has in _alike(
            board, [[at for at in group if at in having] for group in groups], metric
        ):
            aggregate = aggregate_of(board[has[0]].first, metric, rows[has[0]][0])
            if aggregate is None:
                continue
            pairs = len(has) * (len(has) - 1) // 2
            column = Column(
                [rows[at] for at in has],
                metric,
                higher,
                aggregate,
                max(DRAWS, DRAWS_PER_TEST * pairs),
            )
            base = baseline_of([board[at] for at in has], baseline)
            aligned = column.align(FRONTIER_SHARE)
            for place, at in enumerate(has):
                found[at]["aligned"][metric] = msgspec.to_builtins(aligned[place])
                if metric == primary:
                    found[at]["sample_set"] = digest(column.samples(place))[:8]
                found[at]["estimates"][metric] = msgspec.to_builtins(column.estimate(place))
                if base is not None and place != base:
                    found[at]["gains"][metric] = msgspec.to_builtins(column.gain(place, base))
            if metric == primary:
                _test(found, board, has, column, base)
    return found


def _alike(board: Sequence[Entry], groups: Sequence[Sequence[int]], metric: str) -> list[list[int]]:
    """The rows of each group, those whose metric is by the same optional judge together; none of several judges."""
    found: dict[tuple[int, str | None], list[int]] = {}
    for number, group in enumerate(groups):
        for at in group:
            judges = {judge_of(run, metric) for run in board[at].runs}
            if len(judges) == 1:
                found.setdefault((number, judges.pop()), []).append(at)
    return list(found.values())


def _test(
    found: list[dict[str, Any]],
    board: Sequence[Entry],
    has: Sequence[int],
    column: Column,
    base: int | None,
) -> None:
    """All tests of one setting on the primary metric: corrected p-values, letters, leaders, controls.

    Rows against their own shuffled selves are a family of tests of their own: whether a gain is personal is one planned
    question a method, whose answer must not hang on how many other rows the table happens to hold.
    """
    among = [board[at] for at in has]
    twins = {
        place: twin for place in range(len(has)) if (twin := _shuffled(place, among)) is not None
    }
    pairs = {(a, b): column.compare(a, b) for a, b in combinations(range(len(has)), 2)}
    controls = [(min(pair), max(pair)) for pair in twins.items()]
    family = {}
    for keys in (controls, [key for key in pairs if key not in controls]):
        for key, p in zip(keys, holm([pairs[key].p for key in keys]), strict=True):
            family[key] = pairs[key].gain.value, p
    best = set(leaders(0, len(has), family)) if len(has) > 1 else set()
    trivial = next((place for place, entry in enumerate(among) if _trivial(entry)), None)
    for place, beaten in enumerate(wins(len(has), family)):
        row = found[has[place]]
        row |= {
            "beats": [has[each] for each in beaten],
            "leader": place in best,
            "tests": len(pairs) - len(controls),
            "controls": len(controls),
            "draws": column.draws,
        }
        row["seeds"] = column.seeds(place)
        others = {"baseline": base, "shuffled": twins.get(place), "trivial": trivial}
        for role, other in others.items():
            if other is None or other == place or (role == "trivial" and _trivial(among[place])):
                continue
            key = (min(place, other), max(place, other))
            pair = pairs[key] if place < other else column.compare(place, other)
            row["versus"][role] = {**as_dict(pair), "corrected": family[key][1], "of": has[other]}


def as_dict(pair: Comparison) -> dict[str, Any]:
    """A comparison as plain values, shares of those made worse included."""
    shares = {
        name: None if each is None else each.hurt
        for name, each in (("samples", pair.samples), ("users", pair.by_user))
    }
    return {**msgspec.to_builtins(pair), "hurt": shares}


def baseline_of(among: Sequence[Entry], name: str) -> int | None:
    """The place of the row of that name, or else of the only row of that method; None without one.

    Of rows that differ in seeds and samples alone, the one with most samples, then with most seeds.
    """
    if named := [place for place, entry in enumerate(among) if name in (entry.name, entry.label)]:
        return max(named, key=lambda place: (among[place].first["n"], len(among[place].runs)))
    named = [place for place, entry in enumerate(among) if entry.first["method"] == name]
    return named[0] if len(named) == 1 else None


def _trivial(entry: Entry) -> bool:
    return entry.calls == 0 and entry.first["history"] == "own"


def _shuffled(place: int, among: Sequence[Entry]) -> int | None:
    """The same method and parameters with another user's history; the row with most seeds, if there are several."""
    mine = among[place].first
    if mine["history"] != "own":
        return None
    twins = [
        other
        for other, entry in enumerate(among)
        if entry.first["history"] == "shuffled"
        and (entry.first["method"], entry.first["params"]) == (mine["method"], mine["params"])
    ]
    return max(twins, key=lambda other: len(among[other].runs), default=None)


def compare(a: Run, b: Run, anyway: bool = False) -> dict[str, Any]:
    """Run a against run b on every metric: the comparison, both values, and the protocol.

    Each metric is compared on the samples for which both have it; one that an optional judge adds, only if both have
    the same judge.  p-values are corrected over the metrics.

    Raises:
        UsageError: the runs differ in more than method, history control and seed (`anyway`: that is told, not
            refused), or share no sample.
        DataError: a score file is damaged.
    """
    differences = different(a, b)
    if a["task"] != b["task"]:
        raise UsageError(f"{a['task']} and {b['task']} are different tasks: they share no sample")
    if differences and not anyway:
        raise UsageError(
            f"the runs differ in {'; '.join(differences)}; compare them nevertheless with --allow-mismatch"
        )
    rows = [[vector(a)], [vector(b)]]
    common = set(rows[0][0].ids) & set(rows[1][0].ids)
    if not common:
        raise UsageError("the runs share no scored sample")
    metrics: dict[str, Any] = {}
    skipped = []
    for name, higher in metric_directions((a, b)).items():
        aggregate = aggregate_of(a, name, rows[0][0])
        both = set(_valued(rows[0][0], name)) & set(_valued(rows[1][0], name))
        unlike = judge_of(a, name) != judge_of(b, name) and not anyway
        if aggregate is None or not both or unlike:
            skipped.append(name)
            continue
        column = Column([[_cut(each, both)] for (each,) in rows], name, higher, aggregate)
        pair = column.compare(0, 1)
        values = {side: msgspec.to_builtins(column.estimate(at)) for at, side in enumerate("ab")}
        metrics[name] = {"higher_is_better": higher, **values, **as_dict(pair)}
    for each, p in zip(
        metrics.values(), holm([each["p"] for each in metrics.values()]), strict=True
    ):
        each["corrected"] = p
    return {
        "differences": differences,
        "n": len(common),
        "users": len(
            {
                user
                for name, user in zip(rows[0][0].ids, rows[0][0].users, strict=True)
                if name in common
            }
        ),
        "only": {"a": len(rows[0][0].ids) - len(common), "b": len(rows[1][0].ids) - len(common)},
        "draws": DRAWS,
        "seed": SEED,
        "alpha": ALPHA,
        "metrics": metrics,
        "skipped": skipped,
    }


def _cut(scores: Vector, names: set[str]) -> Vector:
    kept = [at for at, name in enumerate(scores.ids) if name in names]
    take: Callable[[Sequence[Any]], list[Any]] = lambda values: [values[at] for at in kept]  # noqa: E731
    return Vector(
        take(scores.ids),
        take(scores.users),
        {
            s: {metric: take(values) for metric, values in each.items()}
            for s, each in scores.values.items()
        },
    )


def different(a: Run, b: Run) -> list[str]:
    """What keeps two runs from being comparable, in words."""
    left, right = conditions(a), conditions(b)
    found = []
    for name in {**left, **right}:
        value, other = left.get(name), right.get(name)
        if value != other:
            shown = [str(each)[:60] for each in (value, other)]
            if isinstance(value, dict) and isinstance(other, dict):
                keys = [key for key in {**value, **other} if value.get(key) != other.get(key)]
                shown = [
                    ", ".join(f"{key}={side.get(key)}" for key in keys)[:80]
                    for side in (value, other)
                ]
            found.append(f"{name} ({shown[0]} against {shown[1]})")
    return found


def rederived(run: Run) -> dict[str, dict[str, float]]:
    """A run's metrics, by scorer, computed anew from its scores.

    Raises:
        DataError: the task that defines the metrics is not installed.
    """
    scores = vector(run)
    found: dict[str, dict[str, float]] = {}
    for scorer, metrics in scores.values.items():
        for name, values in metrics.items():
            aggregate = aggregate_of(run, name, scores)
            if aggregate is None:
                raise DataError(
                    f"{run['folder']}: nothing installed says how {name} of {run['task']} is computed"
                )
            there = [value for value in values if value is not None]
            found.setdefault(scorer, {})[name] = aggregate(np.array(there, dtype=np.float64))
    return found
