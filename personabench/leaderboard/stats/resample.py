"""Resampling of users: bootstrap draws, sign flips and swaps, and the quantile of Student's t that intervals need.

Everything is seeded and computed in blocks, so that memory stays flat in the number of draws.  Plain means are sums and
counts per user, so a block of draws is one matrix product for all rows of a table; any other aggregate is called on
every resample, since it may be anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Aggregate = Callable[[Floats], float]

EXACT_USERS = 14
"""Up to so many users that differ, all 2^users sign patterns are tried instead of a random draw of them."""

_BLOCK = 1 << 20
_TOLERANCE = 1e-9


class Clusters:
    """Samples grouped by user.

    Attributes:
        order: row indices, shape (n,), that put samples of a user next to each other; users in sorted order.
        codes: the user's number of each sample in that order, shape (n,).
        sizes, starts: samples per user and the place of their first one in that order, shape (users,).
    """

    def __init__(self, users: Sequence[str]) -> None:
        _, codes = np.unique(np.asarray(users, dtype=np.str_), return_inverse=True)
        self.n = len(codes)
        self.order: Ints = np.argsort(codes, kind="stable")
        self.codes: Ints = codes[self.order]
        self.sizes: Ints = np.bincount(codes).astype(np.intp)
        self.starts: Ints = np.cumsum(self.sizes) - self.sizes

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.sizes)

    @property
    def effective(self) -> float:
        """Kish's effective number of users, n² / Σ sizes²: fewer than `users` when a few of them hold most samples."""
        return float(self.n**2 / np.square(self.sizes, dtype=np.float64).sum()) if self.n else 0.0

    def sums(self, values: Floats) -> Floats:
        """Sum per user of sorted values, shape (n,)."""
        return np.bincount(self.codes, values, self.users).astype(np.float64)

    def rows(self, picked: Ints) -> Ints:
        """Sorted rows of a list of users that may repeat."""
        sizes = self.sizes[picked]
        ends = np.cumsum(sizes)
        return np.repeat(self.starts[picked] - ends + sizes, sizes) + np.arange(ends[-1])


def _blocks(draws: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(width, 1))
    for start in range(0, draws, step):
        yield slice(start, min(start + step, draws))


def _picks(clusters: Clusters, draws: int, seed: int) -> Iterator[tuple[slice, Ints]]:
    rng = np.random.default_rng(seed)
    users = clusters.users
    for block in _blocks(draws, users):
        yield block, rng.integers(users, size=(block.stop - block.start, users), dtype=np.intp)


def bootstrap_means(sums: Floats, clusters: Clusters, draws: int, seed: int) -> Floats:
    """Means of resampled users, shape (rows, draws), from the users' sums, shape (rows, users).

    All rows see the same resamples, so differences of rows are paired.
    """
    columns = np.vstack([sums, clusters.sizes]).T
    means = np.empty((len(sums), draws))
    for block, picked in _picks(clusters, draws, seed):
        count, users = picked.shape
        flat = (picked + users * np.arange(count)[:, None]).ravel()
        weights = (
            np.bincount(flat, minlength=count * users).reshape(count, users).astype(np.float64)
        )
        drawn = weights @ columns
        means[:, block] = (drawn[:, :-1] / drawn[:, -1:]).T
    return means


def bootstrap(
    scores: Sequence[Floats], clusters: Clusters, aggregate: Aggregate, draws: int, seed: int
) -> Floats:
    """An aggregate of resampled users, shape (rows, draws), for sorted scores; the same resamples for all rows."""
    found = np.empty((len(scores), draws))
    for block, picked in _picks(clusters, draws, seed):
        for draw, users in zip(range(block.start, block.stop), picked, strict=True):
            rows = clusters.rows(users)
            found[:, draw] = [aggregate(values[rows]) for values in scores]
    return found


def left_out(scores: Sequence[Floats], clusters: Clusters, aggregate: Aggregate) -> Floats:
    """An aggregate without each user in turn, shape (rows, users), for sorted scores."""
    ends = clusters.starts + clusters.sizes
    return np.array(
        [
            [
                aggregate(np.delete(values, slice(start, end), axis=0))
                for start, end in zip(clusters.starts, ends, strict=True)
            ]
            for values in scores
        ]
    )


def left_out_means(sums: Floats, clusters: Clusters) -> Floats:
    """Means without each user in turn, shape (rows, users), from the users' sums, shape (rows, users)."""
    others: Floats = (sums.sum(axis=1, keepdims=True) - sums) / (clusters.n - clusters.sizes)
    return others


def acceleration(without: Floats) -> float:
    """How fast a metric's error grows with the metric, from its values without each user, shape (users,).

    BCa's, estimated as in Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, equation 14.15.
    """
    pulls = without.mean() - without
    spread = float(np.square(pulls).sum()) ** 1.5
    return float((pulls**3).sum()) / (6 * spread) if spread else 0.0


def _all_flips(users: int) -> npt.NDArray[np.bool_]:
    """Every choice of users to flip but the last, who need not: turning all over leaves a two-sided test alone."""
    numbers = np.arange(1 << max(users - 1, 0))
    return (numbers[:, None] >> np.arange(users) & 1).astype(np.bool_)


def _random_flips(
    users: int, draws: int, seed: int
) -> Iterator[tuple[slice, npt.NDArray[np.bool_]]]:
    rng = np.random.default_rng(seed)
    for block in _blocks(draws, users):
        bits = rng.integers(256, size=(block.stop - block.start, -(-users // 8)), dtype=np.uint8)
        yield block, np.unpackbits(bits, axis=1, count=users).astype(np.bool_)


def _p_value(statistics: Floats, observed: float, scale: float, exact: bool) -> float:
    extreme = int(np.sum(np.abs(statistics) >= abs(observed) - _TOLERANCE * scale))
    return extreme / len(statistics) if exact else (1 + extreme) / (1 + len(statistics))


def flipped(sums: Floats, draws: int, seed: int) -> Floats:
    """Sums over users of the users' sums, shape (rows, users), under random signs: shape (rows, draws).

    All rows see the same signs, so the difference of two rows is their paired difference under these signs.
    """
    totals = sums.sum(axis=1)
    found = np.empty((len(sums), draws))
    for block, flips in _random_flips(sums.shape[1], draws, seed):
        found[:, block] = (totals - 2 * (flips.astype(np.float64) @ sums.T)).T
    return found


def sign_flip_p(statistics: Floats, differences: Floats) -> float:
    """Two-sided p-value of users' sums of differences, given their total under random signs, shape (draws,).

    p = (1 + as extreme) / (1 + draws), which is never 0 (Phipson and Smyth, "Permutation P-values Should Never Be
    Zero", 2010).
    """
    return _p_value(
        statistics, float(differences.sum()), float(np.abs(differences).sum()), exact=False
    )


def sign_flip_exact(differences: Floats) -> float | None:
    """The same under all patterns of signs; None where more than `EXACT_USERS` users have a sum other than zero."""
    scale = float(np.abs(differences).sum())
    moved = differences[np.abs(differences) > _TOLERANCE * scale / len(differences)]
    if len(moved) > EXACT_USERS:
        return None
    total = float(moved.sum())
    return _p_value(total - 2 * (_all_flips(len(moved)) @ moved), total, scale, exact=True)


def swap(
    a: Floats, b: Floats, clusters: Clusters, aggregate: Aggregate, draws: int, seed: int
) -> tuple[float, bool]:
    """Two-sided p-value for any aggregate of sorted scores, and whether it is exact.

    Users change sides with all their samples and both sides are aggregated anew; for a mean this is the sign-flip
    test.  Users whose rows are alike on both sides are left out; with at most `EXACT_USERS` others all patterns count.
    """
    differs = (a != b).reshape(clusters.n, -1).any(axis=1)
    moved = np.flatnonzero(np.bincount(clusters.codes, differs, clusters.users))
    exact = len(moved) <= EXACT_USERS
    blocks = (
        [_all_flips(len(moved))]
        if exact
        else (flips for _, flips in _random_flips(len(moved), draws, seed))
    )
    shape = (clusters.n,) + (1,) * (a.ndim - 1)
    moves = np.zeros(clusters.users, np.bool_)
    found = []
    for flips in blocks:
        for flip in flips:
            moves[moved] = flip
            side = moves[clusters.codes].reshape(shape)
            found.append(aggregate(np.where(side, b, a)) - aggregate(np.where(side, a, b)))
    left, right = aggregate(a), aggregate(b)
    return _p_value(np.array(found), left - right, abs(left) + abs(right), exact), exact


@lru_cache(maxsize=256)
def t_quantile(probability: float, degrees: float) -> float:
    """Quantile of Student's t for a probability of at least one half and real degrees of freedom of at least 1.

    With t = √ν tan θ the density of θ is proportional to cos^(ν-1) θ, which is integrated on a grid; right to four
    digits up to 0.9999, beyond 10,000 degrees of freedom those of 10,000 are used.
    """
    degrees = min(degrees, 10_000.0)
    angles = np.linspace(0, np.pi / 2, 40_001)
    density = np.cos(angles) ** (degrees - 1)
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    reached = int(np.argmax(below)) + 1
    angle = np.interp(2 * probability - 1, below[:reached] / below[-1], angles[:reached])
    return float(np.sqrt(degrees) * np.tan(angle))
