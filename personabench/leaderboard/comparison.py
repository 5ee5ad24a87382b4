"""Compare runs sample by sample: the numbers behind `compare` and behind every leaderboard.

Rows are aligned by sample id, metric by metric: a sample that a judge left without a value of one
metric still counts for the others. Rows on the same samples share one set of resamples; two rows on
different samples are compared on those that both have. Seeds of a row are averaged per sample
first, so that a sample stays one sample. Only rows of one setting (same task, data, model,
decoding) are compared. Their tests on the primary metric are two families for Holm's correction:
rows against each other, and rows against the same method with shuffled histories.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import msgspec
import numpy as np

from personabench.api import registry
from personabench.errors import DataError, PersonabenchError, UsageError
from personabench.hashing import digest
from personabench.leaderboard.estimates import (
    ALPHA,
    Comparison,
    Contrast,
    Count,
    Estimate,
    Opponent,
    RowStatistics,
)
from personabench.leaderboard.rows import Entry, conditions, judge_of, metric_directions
from personabench.leaderboard.stats import Scores, holm, leaders, letters, wins
from personabench.leaderboard.stats.resample import Aggregate, Floats
from personabench.leaderboard.stats.scores import DRAWS
from personabench.metrics.evidence import EVIDENCE
from personabench.metrics.metric import mean
from personabench.results.index import SCORER, Run
from personabench.results.published import Vector, vector

# Of all resamples and sign flips, so that a board is the same whenever it is made.
SEED = 0

# A row that would leave less than this share of the samples is left out of the frontier; otherwise
# one short run would shrink the comparison of all others.
FRONTIER_SHARE = 0.5

# With so many draws per test of a family a p-value can still pass Holm's correction: 1/50 < 5 %.
DRAWS_PER_TEST = 50

# Longest text of one side of a difference in an error message.
_VALUE_LENGTH = 60
_DIFFERENCE_LENGTH = 80


class Column:
    """One metric of several rows, aligned by sample id.

    Args:
        rows: for each row the scores of its runs, one per seed.
        name, higher: the metric and its direction.
        aggregate: computes the metric from samples.
        draws: number of bootstrap resamples and permutations.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[Vector]],
        name: str,
        higher: bool,
        aggregate: Aggregate,
        draws: int = DRAWS,
    ) -> None:
        self.name = name
        self.higher = higher
        self.draws = draws
        self.is_mean = aggregate is mean
        self._aggregate = aggregate
        self._values = [[_metric_values(scores, name) for scores in vectors] for vectors in rows]
        self._samples = [_shared_samples(values) for values in self._values]
        self._users = [dict(zip(vectors[0].ids, vectors[0].users, strict=True)) for vectors in rows]
        self._cache: dict[tuple[int, ...], tuple[Scores, dict[int, int]]] = {}

    def estimate(self, row: int) -> Estimate:
        """Estimate a row's metric with its interval, on all samples of the row."""
        scores, index = self._scores(row)
        return scores.estimate(index[row])

    def gain(self, a: int, b: int) -> Estimate:
        """Estimate the gain of row a over row b with its interval, on the samples of both."""
        scores, index = self._scores(a, b)
        return scores.gain(index[a], index[b])

    def compare(self, a: int, b: int) -> Comparison:
        """Compare row a with row b on the samples of both."""
        scores, index = self._scores(a, b)
        if not scores.clusters.n:
            nothing = Estimate(None, None, None, None, 0, 0, "no sample in common")
            return Comparison(nothing, None, False, None, None, None, None)
        return scores.compare(index[a], index[b])

    def seeds(self, row: int) -> list[float]:
        """Compute the metric of each seed on the row's samples."""
        samples = self._samples[row]
        if not samples:
            return []
        return [self._aggregate(_to_array(values, samples)) for values in self._values[row]]

    def align(self, share: float = 0.0) -> list[Estimate | None]:
        """Estimate each row's metric on the samples that all rows have.

        Starts from the samples that most rows have, and leaves out (None) a row that would leave
        those of one user only, or less than a `share` of the samples it starts from.
        """
        members = self._alignable(share)
        rows = range(len(self._samples))

        if len({self._samples[row] for row in members}) == 1:
            return [self.estimate(row) if row in members else None for row in rows]
        if not members:
            return [None for _ in rows]

        scores = self._build(members)
        return [scores.estimate(members.index(row)) if row in members else None for row in rows]

    def _alignable(self, share: float) -> list[int]:
        frequency = Counter(self._samples)
        order = sorted(
            range(len(self._samples)),
            key=lambda row: _alignment_rank(self._samples[row], frequency),
        )
        start = common = set(self._samples[order[0]])
        members = []
        for row in order:
            remaining = common.intersection(self._samples[row])
            users = {self._users[row][sample] for sample in remaining}
            enough = len(users) > 1 and len(remaining) >= share * len(start)
            # A row with exactly the common samples costs the others nothing, however few they are.
            unchanged = remaining == common == set(self._samples[row])
            if remaining and (enough or unchanged):
                common = remaining
                members.append(row)
        return members

    def samples(self, row: int) -> tuple[str, ...]:
        """The samples of a row that have the metric, in order."""
        return self._samples[row]

    def _scores(self, *rows: int) -> tuple[Scores, dict[int, int]]:
        """Scores that hold the given rows, and the index of each row in them."""
        first, last = rows[0], rows[-1]
        if self._samples[first] == self._samples[last]:
            # All rows on these samples at once: they share their resamples.
            members = tuple(
                row for row, samples in enumerate(self._samples) if samples == self._samples[first]
            )
        else:
            members = (first, last)

        if members not in self._cache:
            index = {row: position for position, row in enumerate(members)}
            self._cache[members] = self._build(members), index
        return self._cache[members]

    def _build(self, members: Sequence[int]) -> Scores:
        common = set(self._samples[members[0]])
        for row in members[1:]:
            common &= set(self._samples[row])
        samples = sorted(common)
        users = [self._users[members[0]][sample] for sample in samples]

        # One array per row, a column per seed.
        rows = [
            np.stack([_to_array(values, samples) for values in self._values[row]], 1)
            for row in members
        ]
        widest = max(row.shape[1] for row in rows)
        aggregate = self._aggregate
        if self.is_mean:
            # The mean over seeds, written as a shift of the first: exact if all seeds agree.
            rows = [row[:, 0] + (row - row[:, :1]).mean(axis=1) for row in rows]
        elif widest == 1:
            rows = [row[:, 0] for row in rows]
        else:
            width = math.lcm(*(row.shape[1] for row in rows))
            rows = [np.repeat(row, width // row.shape[1], axis=1) for row in rows]
            aggregate = _average_seeds(self._aggregate)
        return Scores(
            rows, users, aggregate, higher_is_better=self.higher, draws=self.draws, seed=SEED
        )


def _alignment_rank(
    samples: tuple[str, ...], frequency: Mapping[tuple[str, ...], int]
) -> tuple[bool, int, int]:
    """Sort key: samples that more rows have, then more samples, and none at all last."""
    return not samples, -frequency[samples], -len(samples)


def _shared_samples(values: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The samples that every seed has a value for."""
    return tuple(sorted(set.intersection(*map(set, values))))


def _has_samples(vectors: Sequence[Vector]) -> bool:
    return bool(set(vectors[0].ids).intersection(*(scores.ids for scores in vectors[1:])))


def _metric_values(scores: Vector, name: str) -> dict[str, float | list[float]]:
    """A metric's values by sample, of those that have one."""
    values = scores.values.get(SCORER, {}).get(name)
    if not values:
        return {}
    pairs = zip(scores.ids, values, strict=True)
    return {sample: value for sample, value in pairs if value is not None}


def _to_array(values: Mapping[str, Any], samples: Sequence[str]) -> Floats:
    return np.array([values[sample] for sample in samples], dtype=np.float64)


def _average_seeds(aggregate: Aggregate) -> Aggregate:
    def average(values: Floats) -> float:
        seeds = range(values.shape[1])
        return float(np.mean([aggregate(values[:, seed]) for seed in seeds]))

    return average


def aggregate_of(run: Run, name: str, scores: Vector) -> Aggregate | None:
    """Look up how a metric of a run is computed from its samples.

    The task defines it; if the task is not installed, a metric that equals the mean of its samples
    is treated as a mean. None if neither helps.
    """
    try:
        cls = registry.load_recorded("task", run.summary.task, run.task_hash)
        metrics = (*cls.metrics_of(scores.values.get(SCORER, {})), *EVIDENCE)
        return next((metric.aggregate for metric in metrics if metric.name == name), None)
    except PersonabenchError:
        values: list[Any] = list(_metric_values(scores, name).values())
        return mean if _is_mean(values, run.summary.score(name)) else None


def _is_mean(values: Sequence[Any], score: float | None) -> bool:
    if score is None or not values or isinstance(values[0], list):
        return False
    return math.isclose(float(np.mean(values)), score, rel_tol=1e-9)


def tabulate(board: Sequence[Entry], baseline: str, thorough: bool) -> list[RowStatistics]:
    """Compute the statistics of a board's rows, which come in the order of rank.

    Args:
        baseline: the name of the row that gains are measured against, in each setting.
        thorough: intervals for all metrics, not for the primary one only.

    Raises:
        DataError: a score file is damaged.
    """
    vectors = [[vector(run) for run in entry.runs] for entry in board]
    statistics = [RowStatistics(letter) for letter in letters(len(board))]
    scored = [row for row, seeds in enumerate(vectors) if _has_samples(seeds)]
    if not scored:
        return statistics

    primary = board[scored[0]].summary.primary
    directions = metric_directions(board[row].first for row in scored)
    if not thorough:
        directions = {primary: directions[primary]}

    for metric, higher in directions.items():
        rows = [row for row in scored if _has_metric(vectors[row], metric)]
        for group in _comparable(board, rows, metric):
            aggregate = aggregate_of(board[group[0]].first, metric, vectors[group[0]][0])
            if aggregate is None:
                continue
            pairs = len(group) * (len(group) - 1) // 2
            column = Column(
                [vectors[row] for row in group],
                metric,
                higher,
                aggregate,
                draws=max(DRAWS, DRAWS_PER_TEST * pairs),
            )
            entries = [board[row] for row in group]
            members = [statistics[row] for row in group]
            base = baseline_of(entries, baseline)
            _estimate_metric(members, column, base)
            if metric == primary:
                _test_rows(members, entries, column, base)
    return statistics


def _has_metric(vectors: Sequence[Vector], metric: str) -> bool:
    return all(metric in scores.values.get(SCORER, {}) for scores in vectors)


def _comparable(board: Sequence[Entry], rows: Sequence[int], metric: str) -> list[list[int]]:
    """Group rows of one setting whose metric is by the same optional judge.

    Rows whose seeds had different judges are left out.
    """
    groups: dict[tuple[str, str | None], list[int]] = {}
    for row in rows:
        judges = {judge_of(run, metric) for run in board[row].runs}
        if len(judges) == 1:
            groups.setdefault((board[row].setting, judges.pop()), []).append(row)
    return list(groups.values())


def _estimate_metric(statistics: Sequence[RowStatistics], column: Column, base: int | None) -> None:
    """Fill in the estimates of one metric for rows that are compared."""
    aligned = column.align(FRONTIER_SHARE)
    for row, numbers in enumerate(statistics):
        numbers.aligned[column.name] = aligned[row]
        numbers.estimates[column.name] = column.estimate(row)
        if base is not None and row != base:
            numbers.gains[column.name] = column.gain(row, base)


def _test_rows(
    statistics: Sequence[RowStatistics],
    entries: Sequence[Entry],
    column: Column,
    base: int | None,
) -> None:
    """Fill in all tests of one setting on the primary metric."""
    count = len(entries)
    twins: dict[int, int] = {}
    for row in range(count):
        twin = _shuffled_twin(row, entries)
        if twin is not None:
            twins[row] = twin

    pairs = {(a, b): column.compare(a, b) for a, b in combinations(range(count), 2)}
    controls = [(min(pair), max(pair)) for pair in twins.items()]

    # Rows against their own shuffled selves are a family of their own: whether a gain is personal
    # is one planned question per method, and its answer must not depend on the other rows.
    family = {}
    for keys in (controls, [key for key in pairs if key not in controls]):
        corrected = holm([pairs[key].p for key in keys])
        for key, p in zip(keys, corrected, strict=True):
            family[key] = pairs[key].gain.value, p

    best = set(leaders(0, count, family)) if count > 1 else set()
    trivial = next((row for row, entry in enumerate(entries) if _is_trivial(entry)), None)
    for row, beaten in enumerate(wins(count, family)):
        numbers = statistics[row]
        numbers.sample_set = digest(column.samples(row))[:8]
        numbers.seed_values = column.seeds(row)
        numbers.beats = [entries[loser].label for loser in beaten]
        numbers.leader = row in best
        numbers.tests = len(pairs) - len(controls)
        numbers.controls = len(controls)
        numbers.draws = column.draws

        opponents: dict[Opponent, int | None] = {
            "baseline": base,
            "shuffled": twins.get(row),
            "trivial": None if _is_trivial(entries[row]) else trivial,
        }
        for role, opponent in opponents.items():
            if opponent is None or opponent == row:
                continue
            key = (min(row, opponent), max(row, opponent))
            # Pairs are stored in one direction; the other one is computed when it is needed.
            comparison = pairs[key] if row < opponent else column.compare(row, opponent)
            numbers.contrasts[role] = Contrast(
                comparison,
                corrected=family[key][1],
                over=entries[opponent].label,
            )


def baseline_of(entries: Sequence[Entry], name: str) -> int | None:
    """Find the row of that name, or else the only row of that method; None without one.

    Of rows that differ in seeds and samples alone, the one with most samples, then with most seeds.
    """
    matches = [row for row, entry in enumerate(entries) if name in (entry.name, entry.label)]
    if matches:
        return max(matches, key=lambda row: (entries[row].summary.n, len(entries[row].runs)))

    matches = [row for row, entry in enumerate(entries) if entry.summary.method == name]
    return matches[0] if len(matches) == 1 else None


def _is_trivial(entry: Entry) -> bool:
    return entry.calls == 0 and entry.summary.history == "own"


def _shuffled_twin(row: int, entries: Sequence[Entry]) -> int | None:
    """Find the same method and parameters with another user's history.

    If there are several, the one with most seeds.
    """
    summary = entries[row].summary
    if summary.history != "own":
        return None
    twins = [
        candidate
        for candidate, entry in enumerate(entries)
        if entry.summary.history == "shuffled"
        and entry.summary.method == summary.method
        and entry.summary.params == summary.params
    ]
    return max(twins, key=lambda twin: len(entries[twin].runs), default=None)


@dataclass(frozen=True)
class MetricComparison:
    """One metric of two runs on the samples of both."""

    higher_is_better: bool
    a: Estimate
    b: Estimate
    contrast: Contrast

    @property
    def gain(self) -> Estimate:
        """The gain of a over b."""
        return self.contrast.gain


@dataclass(frozen=True)
class RunComparison:
    """Run a against run b.

    Attributes:
        differences: the conditions in which the runs differ, in words.
        n, users: scored samples that both runs have, and their users.
        only: number of further samples of each run.
        skipped: metrics that could not be compared.
    """

    differences: Sequence[str]
    n: int
    users: int
    only: Mapping[str, int]
    metrics: Mapping[str, MetricComparison]
    skipped: Sequence[str]
    draws: int = DRAWS
    seed: int = SEED
    alpha: float = ALPHA


def compare(a: Run, b: Run, allow_mismatch: bool = False) -> RunComparison:
    """Compare run a with run b on every metric.

    Each metric is compared on the samples for which both have it; a metric that an optional judge
    adds, only if both have the same judge. p-values are corrected over the metrics.

    Args:
        allow_mismatch: compare runs that differ in more than method, history control and seed.

    Raises:
        UsageError: the runs must not be compared, or share no sample.
        DataError: a score file is damaged.
    """
    differences = describe_differences(a, b)
    tasks = a.summary.task, b.summary.task
    if tasks[0] != tasks[1]:
        raise UsageError(f"{tasks[0]} and {tasks[1]} are different tasks: they share no sample")
    if differences and not allow_mismatch:
        raise UsageError(
            f"the runs differ in {'; '.join(differences)}; add --allow-mismatch to compare them"
        )

    scores_a, scores_b = vector(a), vector(b)
    common = set(scores_a.ids) & set(scores_b.ids)
    if not common:
        raise UsageError("the runs share no scored sample")

    columns: dict[str, Column] = {}
    skipped = []
    for name, higher in metric_directions((a, b)).items():
        aggregate = aggregate_of(a, name, scores_a)
        samples = set(_metric_values(scores_a, name)) & set(_metric_values(scores_b, name))
        same_judge = judge_of(a, name) == judge_of(b, name) or allow_mismatch
        if aggregate is None or not samples or not same_judge:
            skipped.append(name)
            continue
        pair = [[_restrict(scores, samples)] for scores in (scores_a, scores_b)]
        columns[name] = Column(pair, name, higher, aggregate)

    users = zip(scores_a.ids, scores_a.users, strict=True)
    return RunComparison(
        differences=differences,
        n=len(common),
        users=len({user for sample, user in users if sample in common}),
        only={"a": len(scores_a.ids) - len(common), "b": len(scores_b.ids) - len(common)},
        metrics=_compare_metrics(columns),
        skipped=skipped,
    )


def _compare_metrics(columns: Mapping[str, Column]) -> dict[str, MetricComparison]:
    comparisons = {name: column.compare(0, 1) for name, column in columns.items()}
    corrected = holm([comparison.p for comparison in comparisons.values()])
    return {
        name: MetricComparison(
            higher_is_better=column.higher,
            a=column.estimate(0),
            b=column.estimate(1),
            contrast=Contrast(comparisons[name], p),
        )
        for (name, column), p in zip(columns.items(), corrected, strict=True)
    }


def to_dict(comparison: RunComparison) -> dict[str, Any]:
    """Plain values of a comparison, as `compare --json` prints them."""
    metrics = {name: _metric_dict(metric) for name, metric in comparison.metrics.items()}
    return {
        "differences": comparison.differences,
        "n": comparison.n,
        "users": comparison.users,
        "only": comparison.only,
        "draws": comparison.draws,
        "seed": comparison.seed,
        "alpha": comparison.alpha,
        "metrics": metrics,
        "skipped": comparison.skipped,
    }


def _metric_dict(metric: MetricComparison) -> dict[str, Any]:
    comparison = metric.contrast.comparison
    return {
        "higher_is_better": metric.higher_is_better,
        "a": msgspec.to_builtins(metric.a),
        "b": msgspec.to_builtins(metric.b),
        **msgspec.to_builtins(comparison),
        "hurt": {"samples": _hurt(comparison.samples), "users": _hurt(comparison.by_user)},
        "corrected": metric.contrast.corrected,
    }


def _hurt(count: Count | None) -> float | None:
    return None if count is None else count.hurt


def _restrict(scores: Vector, samples: set[str]) -> Vector:
    """The scores of some samples only."""
    indices = [index for index, sample in enumerate(scores.ids) if sample in samples]
    values = {
        scorer: {metric: [column[index] for index in indices] for metric, column in metrics.items()}
        for scorer, metrics in scores.values.items()
    }
    return Vector(
        [scores.ids[index] for index in indices],
        [scores.users[index] for index in indices],
        values,
    )


def describe_differences(a: Run, b: Run) -> list[str]:
    """Describe the conditions that keep two runs from being comparable."""
    of_a, of_b = conditions(a), conditions(b)
    return [
        _describe_difference(name, of_a.get(name), of_b.get(name))
        for name in of_a | of_b
        if of_a.get(name) != of_b.get(name)
    ]


def _describe_difference(name: str, a: Any, b: Any) -> str:
    if not isinstance(a, dict) or not isinstance(b, dict):
        return f"{name} ({str(a)[:_VALUE_LENGTH]} against {str(b)[:_VALUE_LENGTH]})"

    keys = [key for key in a | b if a.get(key) != b.get(key)]
    texts = [", ".join(f"{key}={value.get(key)}" for key in keys) for value in (a, b)]
    return f"{name} ({texts[0][:_DIFFERENCE_LENGTH]} against {texts[1][:_DIFFERENCE_LENGTH]})"


def rederived(run: Run) -> dict[str, dict[str, float]]:
    """Compute a run's metrics again from its scores, by scorer.

    Raises:
        DataError: the task that defines the metrics is not installed.
    """
    scores = vector(run)
    metrics: dict[str, dict[str, float]] = {}
    for scorer, columns in scores.values.items():
        for name, column in columns.items():
            aggregate = aggregate_of(run, name, scores)
            if aggregate is None:
                raise DataError(
                    f"{run.path}: no installed task defines {name} of {run.summary.task}"
                )
            values = [value for value in column if value is not None]
            result = aggregate(np.array(values, dtype=np.float64))
            metrics.setdefault(scorer, {})[name] = result
    return metrics
