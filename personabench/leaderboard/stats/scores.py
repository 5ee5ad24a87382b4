"""The rows of one table on the same samples: estimates with intervals, and paired comparisons of any two rows.

One object per table and metric, because rows share their resamples: differences of draws are then paired draws, and a
table of many methods costs little more than one.  What cannot be known from the scores at hand is None with a reason.

Intervals are percentile intervals of the draws, made for few users in two ways, of which the wider end counts on
either side.  The expanded one (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015) takes the quantiles
at Φ(±√(G/(G-1)) t), t being the 97.5 % point of Student's t with G-1 degrees of freedom, where the plain one takes
2.5 % and 97.5 %, too narrow by the factor √(G/(G-1)) and by the doubt about the spread itself.  G is Kish's effective
number of users, n² / Σ sizes², since ten users of whom two hold most samples tell no more than three.  The other one
moves these quantiles as BCa does (Efron, "Better Bootstrap Confidence Intervals", 1987), against skew.  Each alone
covers too little somewhere with 10 to 30 users: the first where scores are skewed, the second where they are not and
the skew that it sees is noise.  Nobody can tell the two cases apart with so few; with many both become the plain one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from statistics import NormalDist

import numpy as np

from personabench.leaderboard.estimates import ALPHA, Comparison, Count, Estimate
from personabench.leaderboard.stats import resample
from personabench.leaderboard.stats.resample import Aggregate, Clusters, Floats
from personabench.metrics.metric import mean

DRAWS = 10_000
POWER = 0.8
MIN_USERS = 6
"""With fewer users even a sign-flip test that sees them all agree stays above 5 % (2 / 2^5), and percentile intervals,
which cannot leave the range of the users' scores, cover less than they claim."""


class Scores:
    """Rows of a table, each the values of the same n samples in the same order.

    Args:
        rows: one array per method, of the shape (n,), or (n, d) for corpus metrics such as macro-F1.
        users: the user of each sample.
        aggregate: as in `personabench.metrics.metric.Metric`: the metric of any resample of a row's values.
        higher_is_better: the metric's direction.
        draws, seed: of bootstrap and permutations; the same seed gives the same numbers.

    Raises:
        ValueError: rows and users differ in length, or a value is not finite.
    """

    def __init__(
        self,
        rows: Sequence[Floats],
        users: Sequence[str],
        aggregate: Aggregate = mean,
        *,
        higher_is_better: bool = True,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> None:
        arrays = [np.asarray(row, dtype=np.float64) for row in rows]
        for number, row in enumerate(arrays):
            if len(row) != len(users):
                raise ValueError(f"row {number} has {len(row)} values for {len(users)} samples")
            if not np.isfinite(row).all():
                raise ValueError(
                    f"row {number} has values that are not finite; leave those samples out of every row"
                )
        self.clusters = Clusters(users)
        self.rows = [row[self.clusters.order] for row in arrays]
        self.aggregate = aggregate
        self.sign = 1.0 if higher_is_better else -1.0
        self.draws = draws
        self.seed = seed

    def estimate(self, row: int) -> Estimate:
        """A row's metric with its interval."""
        return self._estimate((row,), "all users score the same")

    def gain(self, a: int, b: int) -> Estimate:
        """The gain of row a over row b with its paired interval."""
        same = np.array_equal(self.rows[a], self.rows[b])
        return self._estimate(
            (a, b), "no sample's scores differ" if same else "all users gain the same"
        )

    def test(self, a: int, b: int) -> tuple[float | None, bool]:
        """Two-sided p-value that rows a and b are exchangeable within users, and whether all patterns were tried.

        Flips the signs of users' sums of differences or, for corpus metrics, swaps users' rows between the two sides.
        None where there is nothing to flip: fewer than two users, or no sample's scores differ.
        """
        if self.clusters.users < 2 or np.array_equal(self.rows[a], self.rows[b]):
            return None, False
        if self.aggregate is not mean:
            return resample.swap(
                self.rows[a], self.rows[b], self.clusters, self.aggregate, self.draws, self.seed
            )
        differences = self._sums[a] - self._sums[b]
        exact = resample.sign_flip_exact(differences)
        if exact is not None:
            return exact, True
        return resample.sign_flip_p(self._flipped[a] - self._flipped[b], differences), False

    def compare(self, a: int, b: int) -> Comparison:
        """Row a against row b: all that `Comparison` holds."""
        gain = self.gain(a, b)
        p, exact = self.test(a, b)
        detectable = (
            None if gain.error is None else gain.error * (self._t(1 - ALPHA / 2) + self._t(POWER))
        )
        if not gain.n or self.rows[a].ndim > 1:
            return Comparison(gain, p, exact, None, None, None, detectable)
        per_user = self.sign * (self._by_user[a] - self._by_user[b])
        low, middle, high = np.quantile(per_user, [0.1, 0.5, 0.9])
        return Comparison(
            gain,
            p,
            exact,
            _count(self.sign * (self.rows[a] - self.rows[b])),
            _count(per_user),
            (float(low), float(middle), float(high)),
            detectable,
        )

    @cached_property
    def _by_user(self) -> Floats:
        """Each user's own metric, shape (rows, users)."""
        if self.aggregate is mean:
            return self._sums / self.clusters.sizes
        parts = [np.split(row, self.clusters.starts[1:]) for row in self.rows]
        return np.array([[self.aggregate(part) for part in row] for row in parts])

    @cached_property
    def _sums(self) -> Floats:
        return np.array([self.clusters.sums(row) for row in self.rows])

    @cached_property
    def resampled(self) -> Floats:
        """Each row's metric on the same resamples of users, shape (rows, draws)."""
        if self.aggregate is mean:
            return resample.bootstrap_means(self._sums, self.clusters, self.draws, self.seed)
        return resample.bootstrap(self.rows, self.clusters, self.aggregate, self.draws, self.seed)

    @cached_property
    def _left_out(self) -> Floats:
        """Each row's metric without each user in turn, shape (rows, users)."""
        if self.aggregate is mean:
            return resample.left_out_means(self._sums, self.clusters)
        return resample.left_out(self.rows, self.clusters, self.aggregate)

    @cached_property
    def _flipped(self) -> Floats:
        return resample.flipped(self._sums, self.draws, self.seed)

    def _t(self, probability: float) -> float:
        return resample.t_quantile(probability, max(self.clusters.effective - 1, 1.0))

    def _estimate(self, rows: tuple[int, ...], level: str) -> Estimate:
        """The metric of one row, or the gain of the first row over the second; `level` says what no spread means."""
        n, users = self.clusters.n, self.clusters.users
        if not n:
            return Estimate(None, None, None, None, 0, 0, "no samples")
        values = [self.aggregate(self.rows[row]) for row in rows]
        value = values[0] if len(rows) == 1 else self.sign * (values[0] - values[1])
        if users < MIN_USERS:
            few = "one user" if users == 1 else f"{users} users"
            return Estimate(
                value,
                None,
                None,
                None,
                n,
                users,
                f"{few}: too few for an interval, which needs {MIN_USERS}",
            )
        first = self.resampled[rows[0]]
        draws = first if len(rows) == 1 else self.sign * (first - self.resampled[rows[1]])
        if not np.isfinite(draws).all():
            return Estimate(
                value,
                None,
                None,
                None,
                n,
                users,
                "the metric is undefined on some resamples of users",
            )
        effective = self.clusters.effective
        correction = np.sqrt(effective / (effective - 1))
        error = float(correction * draws.std())
        if error <= _LEVEL * max(1.0, *(abs(each) for each in values)):
            return Estimate(value, None, None, None, n, users, level)
        alone = self._left_out[rows[0]]
        without = alone if len(rows) == 1 else self.sign * (alone - self._left_out[rows[1]])
        reach = float(correction * self._t(1 - ALPHA / 2))
        low, high = _interval(draws, value, reach, resample.acceleration(without))
        return Estimate(value, low, high, error, n, users)


def _interval(
    draws: Floats, value: float, reach: float, acceleration: float
) -> tuple[float, float]:
    """The outer ends of the percentile interval that reaches ± so many standard deviations, and of its BCa version."""
    normal = NormalDist()
    below = np.sum(draws < value) + np.sum(draws == value) / 2
    bias = normal.inv_cdf(float((below + 0.5) / (len(draws) + 1)))
    tails = []
    for z in (-reach, reach):
        room = 1 - acceleration * (bias + z)
        moved = bias + (bias + z) / room if room > 0 else np.copysign(np.inf, z)
        tails += [normal.cdf(z), normal.cdf(float(moved))]
    ends = np.quantile(draws, tails)
    return float(ends.min()), float(ends.max())


_LEVEL = 1e-12
"""Relative difference below which two numbers are the same but for rounding."""


def _count(gains: Floats) -> Count:
    level = _LEVEL * max(1.0, float(np.abs(gains).max()))
    win, loss = int((gains > level).sum()), int((gains < -level).sum())
    return Count(win, len(gains) - win - loss, loss)
