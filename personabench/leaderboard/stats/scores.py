"""The rows of one table on the same samples: estimates with intervals, and paired comparisons.

One object per table and metric, because rows share their resamples: differences of draws are then
paired draws, and a table of many methods costs little more than one.  A figure that the scores
cannot give is None with a reason.

Intervals are percentile intervals of the draws, corrected for few users in two ways, of which the
wider end is reported on either side.  The expanded interval (Hesterberg, "What Teachers Should Know
About the Bootstrap", 2015) takes the quantiles at Φ(±√(G/(G-1)) t), t being the 97.5 % point of
Student's t with G-1 degrees of freedom.  The plain one takes 2.5 % and 97.5 %, which is too narrow
by the factor √(G/(G-1)) and by the uncertainty of the spread itself.  G is Kish's effective number
of users, n² / Σ sizes², since ten users of whom two hold most samples carry the information of
three.  The other correction moves these quantiles as BCa does (Efron, "Better Bootstrap Confidence
Intervals", 1987), against skew.

With few users, skew cannot be distinguished from sampling noise.  Correcting for it under-covers
when there is none, not correcting under-covers when there is, so the wider end is reported on each
side.  With many users both corrections become the plain interval.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property
from statistics import NormalDist

import numpy as np

from personabench.leaderboard.estimates import ALPHA, MIN_USERS, Comparison, Count, Estimate
from personabench.leaderboard.stats import resample
from personabench.leaderboard.stats.resample import Aggregate, Clusters, Floats
from personabench.metrics.metric import mean

DRAWS = 10_000
# Values of the bootstrap that are computed together: 32 MiB of floats, and how many such blocks are
# held: gains are measured against a baseline and a rule whose rows are in other blocks.
MOST_HELD = 1 << 22
BLOCKS_HELD = 3
POWER = 0.8
# Relative difference below which two numbers are the same but for rounding.
_TOLERANCE = 1e-12


class Scores:
    """Rows of a table, each the values of the same n samples in the same order.

    Args:
        rows: one array per method, of the shape (n,), or (n, d) for corpus metrics such as
            macro-F1.
        users: the user of each sample, or its other unit of chance.
        aggregate: as in `personabench.metrics.metric.Metric`: the metric of any resample of a row's
            values.
        higher_is_better: the metric's direction.
        draws, seed: of bootstrap and permutations; the same seed gives the same numbers.
        unit: the unit of chance in the singular, for reasons.

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
        unit: str = "user",
    ) -> None:
        arrays = [np.asarray(row, dtype=np.float64) for row in rows]
        for number, row in enumerate(arrays):
            if len(row) != len(users):
                raise ValueError(f"row {number} has {len(row)} values for {len(users)} samples")
            if not np.isfinite(row).all():
                raise ValueError(
                    f"row {number} has values that are not finite; leave those samples out of "
                    "every row"
                )
        self.clusters = Clusters(users)
        self.rows = [row[self.clusters.order] for row in arrays]
        self.aggregate = aggregate
        self.sign = 1.0 if higher_is_better else -1.0
        self.draws = draws
        self.seed = seed
        self.unit = unit
        self._resampled: OrderedDict[int, Floats] = OrderedDict()
        self._gains: dict[tuple[int, int], Estimate] = {}
        self._tests: dict[tuple[int, int], tuple[float, bool]] = {}

    def estimate(self, row: int) -> Estimate:
        """Estimate a row's metric with its interval."""
        return self._estimate((row,), f"all {self.unit}s score the same")

    def gain(self, a: int, b: int) -> Estimate:
        """Estimate the gain of row a over row b with its paired interval."""
        # Asked for twice, by gains and by comparisons, and draws may not be held so long.
        if (a, b) not in self._gains:
            same = np.array_equal(self.rows[a], self.rows[b])
            reason = "no sample's scores differ" if same else f"all {self.unit}s gain the same"
            self._gains[a, b] = self._estimate((a, b), reason)
        return self._gains[a, b]

    def gain_value(self, a: int, b: int) -> float:
        """Compute the gain of row a over row b, without an interval; there must be samples."""
        return self.sign * (self._values[a] - self._values[b])

    def test(
        self,
        a: int,
        b: int,
    ) -> tuple[float | None, bool]:
        """Test whether rows a and b are exchangeable within users.

        Flips the signs of users' sums of differences or, for corpus metrics, swaps users' rows
        between the two sides.

        Returns:
            The two-sided p-value and whether all patterns were tried.  The p-value is None if a
            flip has no effect: fewer than two users, or no sample's scores differ.
        """
        if self.clusters.users < 2 or np.array_equal(self.rows[a], self.rows[b]):
            return None, False
        if self.aggregate is not mean:
            return resample.swap(
                self.rows[a],
                self.rows[b],
                self.clusters,
                self.aggregate,
                self.draws,
                self.seed,
            )

        self.prepare_tests([(a, b)])
        return self._tests[min(a, b), max(a, b)]

    def prepare_tests(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Compute the sign-flip tests of many pairs at once, which takes little more than one.

        Those of corpus metrics are left to `test`.
        """
        if self.aggregate is not mean or self.clusters.users < 2:
            return

        # A test has no direction.
        in_order = dict.fromkeys((min(pair), max(pair)) for pair in pairs)
        random_pairs = []
        for a, b in in_order:
            if (a, b) in self._tests or np.array_equal(self.rows[a], self.rows[b]):
                continue
            exact_p = resample.sign_flip_exact(self._sums[a] - self._sums[b])
            if exact_p is None:
                random_pairs.append((a, b))
            else:
                self._tests[a, b] = exact_p, True
        if not random_pairs:
            return

        # Only the rows that are tested, since a table has more.
        rows = sorted({row for pair in random_pairs for row in pair})
        index = {row: position for position, row in enumerate(rows)}
        positions = [(index[a], index[b]) for a, b in random_pairs]
        p_values = resample.sign_flip_p(self._sums[rows], positions, self.draws, self.seed)
        for pair, p in zip(random_pairs, p_values, strict=True):
            self._tests[pair] = p, False

    def compare(self, a: int, b: int) -> Comparison:
        """Compare row a with row b in every respect of `Comparison`."""
        gain = self.gain(a, b)
        p, exact = self.test(a, b)
        detectable = None
        if gain.error is not None:
            # The test's critical value, and the margin above it that gives the power.
            critical = self._t_quantile(1 - ALPHA / 2)
            margin = self._t_quantile(POWER)
            detectable = gain.error * (critical + margin)
        if not gain.n or self.rows[a].ndim > 1:
            return Comparison(
                gain=gain,
                p=p,
                exact=exact,
                samples=None,
                by_user=None,
                quantiles=None,
                detectable=detectable,
            )

        sample_gains = self.sign * (self.rows[a] - self.rows[b])
        user_gains = self.sign * (self._by_user[a] - self._by_user[b])
        low, median, high = np.quantile(user_gains, [0.1, 0.5, 0.9])
        return Comparison(
            gain=gain,
            p=p,
            exact=exact,
            samples=_count_outcomes(sample_gains),
            by_user=_count_outcomes(user_gains),
            quantiles=(float(low), float(median), float(high)),
            detectable=detectable,
        )

    @cached_property
    def _values(self) -> list[float]:
        """Each row's metric."""
        return [self.aggregate(row) for row in self.rows]

    @cached_property
    def _by_user(self) -> Floats:
        """Each user's own metric, shape (rows, users)."""
        if self.aggregate is mean:
            return self._sums / self.clusters.sizes

        metrics = []
        for row in self.rows:
            user_values = np.split(row, self.clusters.starts[1:])
            metrics.append([self.aggregate(values) for values in user_values])
        return np.array(metrics)

    @cached_property
    def _sums(self) -> Floats:
        return np.array([self.clusters.sums(row) for row in self.rows])

    def resampled(self, row: int) -> Floats:
        """A row's metric on resamples of users, shape (draws,), the same resamples for all rows."""
        # Several rows at once, because most of the work is drawing the users.
        size = max(1, MOST_HELD // self.draws)
        number = row // size
        if number in self._resampled:
            self._resampled.move_to_end(number)
        else:
            if len(self._resampled) == BLOCKS_HELD:
                self._resampled.popitem(last=False)
            self._resampled[number] = self._resample(slice(number * size, (number + 1) * size))
        draws: Floats = self._resampled[number][row % size]
        return draws

    def _resample(self, rows: slice) -> Floats:
        """The metric of some rows on all resamples of users, shape (rows, draws)."""
        if self.aggregate is mean:
            return resample.bootstrap_means(
                self._sums[rows],
                self.clusters,
                self.draws,
                self.seed,
            )
        return resample.bootstrap(
            self.rows[rows],
            self.clusters,
            self.aggregate,
            self.draws,
            self.seed,
        )

    @cached_property
    def left_out(self) -> Floats:
        """Each row's metric without each user in turn, shape (rows, users)."""
        if self.aggregate is mean:
            return resample.left_out_means(self._sums, self.clusters)
        return resample.left_out(self.rows, self.clusters, self.aggregate)

    def _t_quantile(self, probability: float) -> float:
        degrees = max(self.clusters.effective - 1, 1.0)
        return resample.t_quantile(probability, degrees)

    def _estimate(
        self,
        rows: tuple[int] | tuple[int, int],
        reason_if_constant: str,
    ) -> Estimate:
        """Estimate one row, or the gain of the first row over the second."""
        n = self.clusters.n
        users = self.clusters.users
        if not n:
            return Estimate(
                value=None,
                low=None,
                high=None,
                error=None,
                n=0,
                users=0,
                reason="no samples",
                unit=self.unit,
            )

        values = [self._values[row] for row in rows]
        value = values[0] if len(rows) == 1 else self.gain_value(*rows)

        def without_interval(reason: str) -> Estimate:
            return Estimate(
                value=value,
                low=None,
                high=None,
                error=None,
                n=n,
                users=users,
                reason=reason,
                unit=self.unit,
            )

        if users < MIN_USERS:
            few = f"one {self.unit}" if users == 1 else f"{users} {self.unit}s"
            return without_interval(f"{few}: too few for an interval, which needs {MIN_USERS}")

        draws = self._combine([self.resampled(row) for row in rows])
        if not np.isfinite(draws).all():
            return without_interval(f"the metric is undefined on some resamples of {self.unit}s")

        # The bootstrap's spread is that of G users around their own mean: too small by this factor.
        effective = self.clusters.effective
        correction = np.sqrt(effective / (effective - 1))
        error = float(correction * draws.std())
        # Rounding leaves a constant metric with a spread just above zero.
        magnitude = max(map(abs, values))
        if error <= _TOLERANCE * max(1.0, magnitude):
            return without_interval(reason_if_constant)

        reach = float(correction * self._t_quantile(1 - ALPHA / 2))
        acceleration = resample.acceleration(self._combine([self.left_out[row] for row in rows]))
        low, high = find_interval(draws, value, reach, acceleration)
        return Estimate(
            value=value,
            low=low,
            high=high,
            error=error,
            n=n,
            users=users,
            unit=self.unit,
        )

    def _combine(self, values: Sequence[Floats]) -> Floats:
        """The values of one row, or the paired gains of the first row over the second."""
        if len(values) == 1:
            return values[0]
        gains: Floats = self.sign * (values[0] - values[1])
        return gains


def find_interval(
    draws: Floats,
    value: float,
    reach: float,
    acceleration: float,
) -> tuple[float, float]:
    """Find the outer ends of two percentile intervals.

    One reaches ± `reach` standard deviations, the other is its BCa version.
    """
    normal = NormalDist()
    # Half of the ties, and one more draw, keep the bias of a discrete metric finite.
    below = np.sum(draws < value) + np.sum(draws == value) / 2
    share_below = (below + 0.5) / (len(draws) + 1)
    bias = normal.inv_cdf(float(share_below))

    tails = []
    for z in (-reach, reach):
        denominator = 1 - acceleration * (bias + z)
        # BCa's formula has a pole; beyond it the quantile is the outermost draw.
        shifted = float(np.copysign(np.inf, z))
        if denominator > 0:
            shifted = bias + (bias + z) / denominator
        tails += [normal.cdf(z), normal.cdf(float(shifted))]

    ends = np.quantile(draws, tails)
    return float(ends.min()), float(ends.max())


def _count_outcomes(gains: Floats) -> Count:
    largest = float(np.abs(gains).max())
    tolerance = _TOLERANCE * max(1.0, largest)
    win = int((gains > tolerance).sum())
    loss = int((gains < -tolerance).sum())
    return Count(win, len(gains) - win - loss, loss)
