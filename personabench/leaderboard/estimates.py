"""The numbers that statistics give a row: estimates, comparisons of two rows, and all of one row.

Plain data without numpy, so that boards can read stored statistics quickly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

# Level of significance of every test, after correction.
ALPHA = 0.05

# With fewer users even a sign-flip test in which all agree stays above 5 % (2 / 2^5), and
# percentile intervals, which cannot leave the range of the users' scores, cover less than claimed.
MIN_USERS = 6

# Intervals over so few units hold, but a gain has to be large to be seen.
FEW_USERS = 10

Opponent = Literal["baseline", "shuffled", "trivial"]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval over users, or over the metric's own unit of chance.

    Attributes:
        value: the metric or the gain, in the metric's unit; None without samples.
        low, high: the interval; None with a `reason`.
        error: standard error, corrected for few users; None if there is no interval.
        n, users: number of samples and users (or other units).
        reason: why there is no interval, in words.
        unit: the unit of chance in the singular.
    """

    value: float | None
    low: float | None
    high: float | None
    error: float | None
    n: int
    users: int
    reason: str | None = None
    unit: str = "user"


def name_units(estimates: Iterable[Estimate | None]) -> str:
    """The units of chance behind some estimates: "users", or "instructions and users"."""
    units = sorted({f"{estimate.unit}s" for estimate in estimates if estimate is not None})
    return " and ".join(units) or "users"


@dataclass(frozen=True)
class Count:
    """How often a row is better than, level with and worse than another."""

    win: int
    tie: int
    loss: int

    @property
    def hurt(self) -> float:
        """Share made worse, 0 to 1."""
        return self.loss / (self.win + self.tie + self.loss)


@dataclass(frozen=True)
class Comparison:
    """Row a against row b on the same samples.

    Positive is always in favour of a, whatever the metric's direction.

    Attributes:
        gain: the metric of a minus that of b, sign reversed if lower is better, with its paired
            interval.
        p: two-sided p-value, uncorrected; None if no user's scores differ (see `gain.reason`).
        exact: every pattern of signs was tried.
        samples, by_user: wins, ties and losses; None for metrics whose values are not one number
            per sample.
        quantiles: gain of the users at the 10th, 50th and 90th percentile; each user counts once;
            None as above.
        detectable: the smallest true gain that a test at 5 % finds in 80 % of such samples; None
            without an interval.
    """

    gain: Estimate
    p: float | None
    exact: bool
    samples: Count | None
    by_user: Count | None
    quantiles: tuple[float, float, float] | None
    detectable: float | None


@dataclass(frozen=True)
class Contrast:
    """A comparison as part of a family of tests.

    Attributes:
        corrected: the p-value after Holm's correction over the family.
        over: label of the row compared with; empty if two runs are compared.
    """

    comparison: Comparison
    corrected: float | None
    over: str = ""

    @property
    def gain(self) -> Estimate:
        """The gain over the other row."""
        return self.comparison.gain


@dataclass
class RowStatistics:
    """Statistics of one row of a board.

    Attributes:
        letter: names the row in superscripts.
        estimates: the row's metrics on its own samples.
        gains: by metric, over the baseline.
        aligned: by metric, on the samples that rows share; None for a row that shares too few.
        sample_set: digest of the row's samples.
        seed_values: the primary metric of each seed.
        contrasts: the tests on the primary metric, by opponent.
        beats: labels of the rows that this one beats.
        leader: no row is significantly better.
        tests, controls: sizes of the two families of tests: between rows, and against the same
            method with shuffled histories.
        same_as_baseline: the share of answers that equal the baseline's, and the number of answers
            of both, if that many is suspicious.
        audited: by metric, without the samples of a mask; empty without one.
        counted: by metric, the number of samples that it is over, before the mask; for metrics of
            a part of the samples, and for all with a mask.
        mask: hash and size of that mask.
        draws: bootstrap resamples behind each number.
        all_pairs: all rows were tested against each other; False in a table that is too large to
            correct for that many tests.
    """

    letter: str
    estimates: dict[str, Estimate] = field(default_factory=dict)
    gains: dict[str, Estimate] = field(default_factory=dict)
    aligned: dict[str, Estimate | None] = field(default_factory=dict)
    sample_set: str | None = None
    seed_values: list[float] = field(default_factory=list)
    contrasts: dict[Opponent, Contrast] = field(default_factory=dict)
    beats: list[str] = field(default_factory=list)
    leader: bool = False
    tests: int = 0
    controls: int = 0
    same_as_baseline: tuple[float, int] | None = None
    audited: dict[str, Estimate] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    mask: str = ""
    draws: int = 0
    all_pairs: bool = True
