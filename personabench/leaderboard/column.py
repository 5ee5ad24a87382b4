"""One metric of several rows, aligned by sample id.

A sample that a judge left without a value of one metric still counts for the others. Rows on the
same samples share one set of resamples; two rows on different samples are compared on those that
both have. Seeds of a row are averaged per sample first, so that a sample stays one sample.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from personabench.api import registry
from personabench.errors import DataError, PersonabenchError
from personabench.leaderboard.estimates import Comparison, Estimate
from personabench.leaderboard.stats import Scores
from personabench.leaderboard.stats.resample import Aggregate, Floats
from personabench.leaderboard.stats.scores import DRAWS
from personabench.metrics.evidence import EVIDENCE
from personabench.metrics.metric import Cluster, Metric, mean
from personabench.results.index import SCORER, Run
from personabench.results.published import Vector

# Of all resamples and sign flips, so that a board is the same whenever it is made.
SEED = 0


class Column:
    """One metric of several rows, aligned by sample id.

    Args:
        rows: for each row the scores of its runs, one per seed.
        name, higher: the metric and its direction.
        aggregate: computes the metric from samples.
        draws: number of bootstrap resamples and permutations.
        cluster: the unit of chance if it is not the user.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[Vector]],
        name: str,
        higher: bool,
        aggregate: Aggregate,
        draws: int = DRAWS,
        cluster: Cluster | None = None,
    ) -> None:
        self.name = name
        self.higher = higher
        self.draws = draws
        self.cluster = cluster
        self.is_mean = aggregate is mean
        self._aggregate = aggregate
        self._values: list[list[dict[str, float | list[float]]]] = []
        self._samples: list[tuple[str, ...]] = []
        self._users: list[dict[str, str]] = []
        for vectors in rows:
            values = [metric_values(scores, name) for scores in vectors]
            self._values.append(values)
            self._samples.append(_shared_samples(values))

            first = vectors[0]
            users = dict(zip(first.ids, first.users, strict=True))
            self._users.append(users)

        # Rows on the same samples; the tuples of samples themselves are slow to compare.
        groups: dict[tuple[str, ...], list[int]] = {}
        for row, samples in enumerate(self._samples):
            groups.setdefault(samples, []).append(row)
        self._group: dict[int, tuple[int, ...]] = {}
        for rows_of_group in map(tuple, groups.values()):
            self._group.update(dict.fromkeys(rows_of_group, rows_of_group))
        self._cache: dict[tuple[int, ...], tuple[Scores, dict[int, int]]] = {}
        self._last_pair: tuple[int, ...] = ()
        self._estimates: dict[int, Estimate] = {}

    def over(self, rows: Sequence[Sequence[Vector]]) -> Column:
        """The same metric of other scores, such as those of a part of the samples."""
        return Column(rows, self.name, self.higher, self._aggregate, self.draws, self.cluster)

    def estimate(self, row: int) -> Estimate:
        """Estimate a row's metric with its interval, on all samples of the row."""
        if row not in self._estimates:
            scores, index = self._scores(row)
            self._estimates[row] = scores.estimate(index[row])
        return self._estimates[row]

    def gain(self, a: int, b: int) -> Estimate:
        """Estimate the gain of row a over row b with its interval, on the samples of both."""
        scores, index = self._scores(a, b)
        row = index[a]
        baseline = index[b]
        return scores.gain(row, baseline)

    def compare(self, a: int, b: int) -> Comparison:
        """Compare row a with row b on the samples of both."""
        scores, index = self._scores(a, b)
        if not scores.clusters.n:
            nothing = Estimate(None, None, None, None, 0, 0, "no sample in common")
            return Comparison(nothing, None, False, None, None, None, None)
        return scores.compare(index[a], index[b])

    def tests(
        self, pairs: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], tuple[float | None, float | None]]:
        """Compute the gain of row a over row b on the samples of both, and its p-value, by pair.

        The same numbers as those of `compare`, without all the others.
        """
        self._prepare_tests(pairs)
        tests: dict[tuple[int, int], tuple[float | None, float | None]] = {}
        for a, b in pairs:
            scores, index = self._scores(a, b)
            if not scores.clusters.n:
                tests[a, b] = None, None
                continue
            p, _ = scores.test(index[a], index[b])
            tests[a, b] = scores.gain_value(index[a], index[b]), p
        return tests

    def _prepare_tests(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Test pairs of rows on the same samples, whose resamples are the same, at once."""
        by_group: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for a, b in pairs:
            if self._group[a] is self._group[b]:
                by_group.setdefault(self._group[a], []).append((a, b))
        for group_pairs in by_group.values():
            scores, index = self._scores(*group_pairs[0])
            scores.prepare_tests((index[a], index[b]) for a, b in group_pairs)

    def seeds(self, row: int) -> list[float]:
        """Compute the metric of each seed on the row's samples."""
        samples = self._samples[row]
        if not samples:
            return []

        estimates = []
        for values in self._values[row]:
            array = _to_array(values, samples)
            estimates.append(self._aggregate(array))
        return estimates

    def align(self, share: float = 0.0) -> list[Estimate | None]:
        """Estimate each row's metric on the samples that all rows have.

        Starts from the samples that most rows have, and leaves out (None) a row that would leave
        those of one user only, or less than a `share` of the samples it starts from.
        """
        members = self._alignable(share)
        rows = range(len(self._samples))

        aligned: list[Estimate | None] = [None for _ in rows]
        if not members:
            return aligned

        sample_sets = {self._samples[row] for row in members}
        if len(sample_sets) == 1:
            for row in members:
                aligned[row] = self.estimate(row)
            return aligned

        scores = self._build(members)
        for position, row in enumerate(members):
            aligned[row] = scores.estimate(position)
        return aligned

    def _alignable(self, share: float) -> list[int]:
        frequency = Counter(self._samples)
        order = sorted(
            range(len(self._samples)),
            key=lambda row: _alignment_rank(self._samples[row], frequency),
        )

        first = order[0]
        common = set(self._samples[first])
        smallest = share * len(common)
        members = []
        for row in order:
            samples = set(self._samples[row])
            remaining = common & samples
            user_of = self._users[row]
            users = {user_of[sample] for sample in remaining}

            enough = len(users) > 1 and len(remaining) >= smallest
            # A row with exactly the common samples costs the others nothing, however few they are.
            unchanged = remaining == common == samples
            if remaining and (enough or unchanged):
                common = remaining
                members.append(row)
        return members

    def samples(self, row: int) -> tuple[str, ...]:
        """The samples of a row that have the metric, in order."""
        return self._samples[row]

    def _scores(self, *rows: int) -> tuple[Scores, dict[int, int]]:
        """Scores that hold the given rows, and the index of each row in them."""
        first = rows[0]
        last = rows[-1]
        members: tuple[int, ...] = (first, last)
        if self._group[first] is self._group[last]:
            # All rows on these samples at once: they share their resamples.
            members = self._group[first]
        elif members != self._last_pair:
            # Of pairs, only the last is kept: there are as many as rows squared.
            self._cache.pop(self._last_pair, None)
            self._last_pair = members

        if members not in self._cache:
            scores = self._build(members)
            index = {row: position for position, row in enumerate(members)}
            self._cache[members] = scores, index
        return self._cache[members]

    def _build(self, members: Sequence[int]) -> Scores:
        first = members[0]
        common = set(self._samples[first])
        for row in members[1:]:
            common &= set(self._samples[row])
        samples = sorted(common)
        units = self._list_units(first, samples)

        # One array per row, a column per seed.
        rows = []
        for row in members:
            seeds = [_to_array(values, samples) for values in self._values[row]]
            array = np.stack(seeds, axis=1)
            rows.append(array)

        aggregate = self._aggregate
        seed_counts = [row.shape[1] for row in rows]
        if self.is_mean:
            rows = [_mean_over_seeds(row) for row in rows]
        elif max(seed_counts) == 1:
            rows = [row[:, 0] for row in rows]
        else:
            width = math.lcm(*seed_counts)
            rows = [_repeat_seeds(row, width) for row in rows]
            aggregate = _average_seeds(self._aggregate)

        return Scores(
            rows,
            units,
            aggregate,
            higher_is_better=self.higher,
            draws=self.draws,
            seed=SEED,
            unit=self.cluster.name if self.cluster else "user",
        )

    def _list_units(self, row: int, samples: Sequence[str]) -> list[str]:
        """The unit of chance of each sample: its user, or its cluster in the values of a row."""
        if self.cluster is None:
            user_of = self._users[row]
            return [user_of[sample] for sample in samples]
        values: Mapping[str, Any] = self._values[row][0]
        return [str(values[sample][self.cluster.column]) for sample in samples]


def _alignment_rank(
    samples: tuple[str, ...], frequency: Mapping[tuple[str, ...], int]
) -> tuple[bool, int, int]:
    """Sort key: samples that more rows have, then more samples, and none at all last."""
    return not samples, -frequency[samples], -len(samples)


def _shared_samples(values: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The samples that every seed has a value for."""
    samples = [set(seed_values) for seed_values in values]
    shared = set.intersection(*samples)
    return tuple(sorted(shared))


def metric_values(
    scores: Vector, name: str, scorer: str = SCORER
) -> dict[str, float | list[float]]:
    """Return a metric's values by sample id, of the samples that have one."""
    metrics = scores.values.get(scorer, {})
    values = metrics.get(name)
    if not values:
        return {}

    by_sample = {}
    for sample, value in zip(scores.ids, values, strict=True):
        if value is not None:
            by_sample[sample] = value
    return by_sample


def _to_array(values: Mapping[str, Any], samples: Sequence[str]) -> Floats:
    ordered = [values[sample] for sample in samples]
    return np.array(ordered, dtype=np.float64)


def _mean_over_seeds(values: Floats) -> Floats:
    """Average the columns of an array with a column per seed."""
    # Written as a shift of the first seed: exact if all seeds agree.
    first = values[:, 0]
    shifts = values - first[:, None]
    means: Floats = first + shifts.mean(axis=1)
    return means


def _repeat_seeds(values: Floats, width: int) -> Floats:
    """Repeat the columns of seeds up to a width that is a multiple of their number."""
    seeds = values.shape[1]
    repeats = width // seeds
    return np.repeat(values, repeats, axis=1)


def _average_seeds(aggregate: Aggregate) -> Aggregate:
    def average(values: Floats) -> float:
        seeds = range(values.shape[1])
        estimates = [aggregate(values[:, seed]) for seed in seeds]
        return float(np.mean(estimates))

    return average


def aggregate_of(
    run: Run,
    name: str,
    scores: Vector,
) -> Aggregate | None:
    """Look up how a metric of a run is computed from its samples.

    The task defines it; if the task is not installed or does not know the metric, one that equals
    the mean of its samples is treated as a mean. None if neither helps.
    """
    metric = _find_metric(run, name, scores)
    if metric is not None:
        return metric.aggregate

    # A metric of a rubric, which the task does not know either.
    by_sample = metric_values(scores, name)
    values: list[Any] = list(by_sample.values())
    return mean if _is_mean(values, run.summary.score(name)) else None


def cluster_of(run: Run, name: str, scores: Vector) -> Cluster | None:
    """Look up the unit of chance of a metric of a run; None for users."""
    metric = _find_metric(run, name, scores)
    return None if metric is None else metric.cluster


def chance_of(run: Run, name: str, scores: Vector) -> float | None:
    """Look up the score of guessing; None if the metric of the run's task has none."""
    metric = _find_metric(run, name, scores)
    return None if metric is None else metric.chance


def count_samples(run: Run, name: str, scores: Vector) -> int:
    """Count the samples that a metric of a run is over."""
    size = count_subset(run, name, scores)
    return len(metric_values(scores, name)) if size is None else size


def count_subset(run: Run, name: str, scores: Vector) -> int | None:
    """Count the samples of a metric that is over a part of them; None for one that is over all."""
    metric = _find_metric(run, name, scores)
    if metric is None or metric.size is None:
        return None
    by_sample = metric_values(scores, name)
    return metric.size(_to_array(by_sample, tuple(by_sample))) if by_sample else 0


def without_samples(scores: Vector, ids: Set[str]) -> Vector:
    """Return scores without those of some samples."""
    positions = [position for position, name in enumerate(scores.ids) if name not in ids]
    return Vector(
        ids=[scores.ids[position] for position in positions],
        users=[scores.users[position] for position in positions],
        values={
            scorer: {
                metric: [values[position] for position in positions]
                for metric, values in metrics.items()
            }
            for scorer, metrics in scores.values.items()
        },
    )


def _find_metric(run: Run, name: str, scores: Vector) -> Metric | None:
    """Find a metric as the task of a run defines it; None if the task is not installed."""
    try:
        cls = registry.load_recorded("task", run.summary.task, run.task_hash)
        scored = scores.values.get(SCORER, {})
        metrics: list[Metric] = [*cls.metrics_of(scored), *EVIDENCE]
    except PersonabenchError:
        return None
    return next((metric for metric in metrics if metric.name == name), None)


def check_summary(
    run: Run, name: str, scores: Vector, aggregate: Aggregate, scorer: str = SCORER
) -> None:
    """Check that a metric in a run's summary is that of its scores.

    Raises:
        DataError: it is another, so that one of the two was changed.
    """
    recorded = run.summary.score(name, scorer)
    by_sample = metric_values(scores, name, scorer)
    if recorded is None or not by_sample:
        return
    computed = aggregate(_to_array(by_sample, tuple(by_sample)))
    if not math.isclose(computed, recorded, rel_tol=1e-6, abs_tol=1e-9):
        raise DataError(
            f"{run.path}: {name}{_of_scorer(scorer)} is {recorded:.6g} in the summary, "
            f"{computed:.6g} by its scores: one of them was changed. Repeat the run's command, "
            "which scores existing answers again, or remove the file if it is a published result"
        )


def _of_scorer(scorer: str) -> str:
    return "" if scorer == SCORER else f" ({scorer})"


def _is_mean(values: Sequence[Any], score: float | None) -> bool:
    if score is None or not values:
        return False
    if isinstance(values[0], list):
        return False

    average = float(np.mean(values))
    return math.isclose(average, score, rel_tol=1e-9)
