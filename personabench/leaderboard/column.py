"""One metric of several rows, aligned by sample id.

A sample that a judge left without a value of one metric still counts for the others. Rows on the
same samples share one set of resamples; two rows on different samples are compared on those that
both have. Seeds of a row are averaged per sample first, so that a sample stays one sample.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from personabench.api import registry
from personabench.errors import PersonabenchError
from personabench.leaderboard.estimates import Comparison, Estimate
from personabench.leaderboard.stats import Scores
from personabench.leaderboard.stats.resample import Aggregate, Floats
from personabench.leaderboard.stats.scores import DRAWS
from personabench.metrics.evidence import EVIDENCE
from personabench.metrics.metric import mean
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
        self._values = [[metric_values(scores, name) for scores in vectors] for vectors in rows]
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


def metric_values(scores: Vector, name: str) -> dict[str, float | list[float]]:
    """Return a metric's values by sample id, of the samples that have one."""
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
        values: list[Any] = list(metric_values(scores, name).values())
        return mean if _is_mean(values, run.summary.score(name)) else None


def _is_mean(values: Sequence[Any], score: float | None) -> bool:
    if score is None or not values or isinstance(values[0], list):
        return False
    return math.isclose(float(np.mean(values)), score, rel_tol=1e-9)
