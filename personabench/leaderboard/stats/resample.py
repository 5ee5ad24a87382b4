"""Resampling of users: bootstrap, sign flips and swaps, and the quantile of Student's t.

Everything is seeded and computed in blocks, so that memory stays flat in the number of draws.
Plain means are sums and counts per user, so a block of draws is one matrix product for all rows of
a table; any other aggregate is called on every resample, since it may be any function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]
Aggregate = Callable[[Floats], float]

# If at most so many users differ, all 2^users sign patterns are tried instead of random ones.
EXACT_USERS = 14

# Entries of a block's matrix of users: 8 MiB of floats.
_BLOCK = 1 << 20
# Entries of the rows' totals under random signs that are compared at once: 32 MiB of floats.
_FLIPPED = 1 << 22
# Sums in another order differ in their last bits, which must not decide what is as extreme.
_TOLERANCE = 1e-9


class Clusters:
    """Samples grouped by user.

    Attributes:
        order: row indices, shape (n,), that put samples of a user next to each other; users in
            sorted order.
        codes: the user's number of each sample in that order, shape (n,).
        sizes, starts: samples per user and the index of their first one in that order, shape
            (users,).
    """

    def __init__(self, users: Sequence[str]) -> None:
        user_ids = np.asarray(users, dtype=np.str_)
        _, codes = np.unique(user_ids, return_inverse=True)
        self.n = len(codes)
        # Stable: a user's samples stay in the order of the table.
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
        """Kish's effective number of users, n² / Σ sizes².

        It is smaller than `users` when a few of them hold most samples.
        """
        if not self.n:
            return 0.0
        squares = np.square(self.sizes, dtype=np.float64)
        return float(self.n**2 / squares.sum())

    def sums(self, values: Floats) -> Floats:
        """Sum per user of sorted values, shape (n,)."""
        totals = np.bincount(self.codes, values, self.users)
        return totals.astype(np.float64)

    def rows(self, users: Ints) -> Ints:
        """Sorted rows of a list of users that may repeat."""
        sizes = self.sizes[users]
        ends = np.cumsum(sizes)
        # Each user's rows are a run of consecutive numbers; the offset shifts a running count to
        # where that run starts.
        offsets = self.starts[users] - (ends - sizes)
        total = ends[-1]
        return np.repeat(offsets, sizes) + np.arange(total)


def _split_draws(
    draws: int,
    width: int,
) -> Iterator[slice]:
    step = max(1, _BLOCK // max(width, 1))
    for start in range(0, draws, step):
        yield slice(start, min(start + step, draws))


def _sample_users(
    clusters: Clusters,
    draws: int,
    seed: int,
) -> Iterator[tuple[slice, Ints]]:
    rng = np.random.default_rng(seed)
    users = clusters.users
    for block in _split_draws(draws, users):
        shape = (block.stop - block.start, users)
        resamples = rng.integers(users, size=shape, dtype=np.intp)
        yield block, resamples


def bootstrap_means(
    sums: Floats,
    clusters: Clusters,
    draws: int,
    seed: int,
) -> Floats:
    """Means of resampled users, shape (rows, draws), from the users' sums, shape (rows, users).

    All rows have the same resamples, so differences of rows are paired.
    """
    columns = np.vstack([sums, clusters.sizes]).T
    means = np.empty((len(sums), draws))
    for block, resample in _sample_users(clusters, draws, seed):
        count, users = resample.shape
        # One `bincount` for the whole block: each draw counts in a range of its own.
        range_starts = users * np.arange(count)
        codes = resample + range_starts[:, None]
        counts = np.bincount(codes.ravel(), minlength=count * users)
        weights = counts.reshape(count, users).astype(np.float64)

        totals = weights @ columns
        resampled_sums = totals[:, :-1]
        resampled_sizes = totals[:, -1:]
        means[:, block] = (resampled_sums / resampled_sizes).T
    return means


def bootstrap(
    scores: Sequence[Floats],
    clusters: Clusters,
    aggregate: Aggregate,
    draws: int,
    seed: int,
) -> Floats:
    """An aggregate of resampled users, shape (rows, draws), for sorted scores.

    All rows have the same resamples.
    """
    values = np.empty((len(scores), draws))
    for block, resamples in _sample_users(clusters, draws, seed):
        for draw, users in enumerate(resamples, start=block.start):
            rows = clusters.rows(users)
            values[:, draw] = [aggregate(row_scores[rows]) for row_scores in scores]
    return values


def left_out(
    scores: Sequence[Floats],
    clusters: Clusters,
    aggregate: Aggregate,
) -> Floats:
    """An aggregate without each user in turn, shape (rows, users), for sorted scores."""
    ends = clusters.starts + clusters.sizes
    blocks = list(map(slice, clusters.starts, ends))
    values = np.empty((len(scores), clusters.users))
    for row, row_scores in enumerate(scores):
        for user, block in enumerate(blocks):
            remaining = np.delete(row_scores, block, axis=0)
            values[row, user] = aggregate(remaining)
    return values


def left_out_means(sums: Floats, clusters: Clusters) -> Floats:
    """Means without each user in turn, shape (rows, users), from the users' sums, same shape."""
    remaining_sums = sums.sum(axis=1, keepdims=True) - sums
    remaining_means: Floats = remaining_sums / (clusters.n - clusters.sizes)
    return remaining_means


def acceleration(without: Floats) -> float:
    """How fast a metric's error grows with the metric, from its values without each user.

    `without` has the shape (users,).  This is BCa's acceleration, estimated as in Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993, equation 14.15.
    """
    influences = without.mean() - without
    variation = float(np.square(influences).sum())
    scale: float = variation**1.5
    skew = float((influences**3).sum())
    return skew / (6 * scale) if scale else 0.0


@lru_cache(maxsize=EXACT_USERS + 1)
def _all_flips(users: int) -> Bools:
    """Every choice of users to flip, without the last user.

    Flipping everything does not change a two-sided test, so half of the patterns are enough.
    """
    patterns = np.arange(1 << max(users - 1, 0))
    bits = patterns[:, None] >> np.arange(users) & 1
    return bits.astype(np.bool_)


def _random_flips(
    users: int,
    draws: int,
    seed: int,
) -> Iterator[tuple[slice, Bools]]:
    rng = np.random.default_rng(seed)
    # Eight users' signs come out of one random byte.
    width = -(-users // 8)
    for block in _split_draws(draws, users):
        shape = (block.stop - block.start, width)
        random_bytes = rng.integers(256, size=shape, dtype=np.uint8)
        bits = np.unpackbits(random_bytes, axis=1, count=users)
        yield block, bits.astype(np.bool_)


def _p_value(
    statistics: Floats,
    observed: float,
    scale: float,
    exact: bool,
) -> float:
    threshold = abs(observed) - _TOLERANCE * scale
    is_extreme = np.abs(statistics) >= threshold
    extreme = int(np.sum(is_extreme))
    if exact:
        return extreme / len(statistics)
    # The observed pattern counts as one of the draws.
    return (1 + extreme) / (1 + len(statistics))


def _flip(
    sums: Floats,
    draws: int,
    seed: int,
) -> Iterator[Floats]:
    """Totals of the users' sums, shape (rows, users), under random signs, in blocks of draws.

    A block has the shape (rows, its draws).  All rows have the same signs, so the difference of two
    rows is their paired difference under these signs.
    """
    totals = sums.sum(axis=1)
    users = sums.shape[1]
    width = max(1, _FLIPPED // len(sums))
    blocks: list[Floats] = []
    for _, flips in _random_flips(users, draws, seed):
        # Flipping a user takes the sum away twice.
        flipped_sums = flips.astype(np.float64) @ sums.T
        blocks.append((totals - 2 * flipped_sums).T)
        # Of many users a block has few draws, and comparing few at once would be slow.
        if sum(block.shape[1] for block in blocks) >= width:
            yield np.concatenate(blocks, axis=1)
            blocks.clear()
    if blocks:
        yield np.concatenate(blocks, axis=1)


def sign_flip_p(
    sums: Floats,
    pairs: Sequence[tuple[int, int]],
    draws: int,
    seed: int,
) -> list[float]:
    """Two-sided p-values of pairs of rows, whose users' sums have the shape (rows, users).

    All pairs are tested in one pass over the random signs, so memory grows with neither draws nor
    pairs.  p = (1 + as extreme) / (1 + draws), which is never 0 (Phipson and Smyth, "Permutation
    P-values Should Never Be Zero", 2010).
    """
    thresholds = []
    for a, b in pairs:
        differences = sums[a] - sums[b]
        scale = float(np.abs(differences).sum())
        thresholds.append(abs(float(differences.sum())) - _TOLERANCE * scale)

    extreme = [0] * len(pairs)
    for block in _flip(sums, draws, seed):
        for number, (a, b) in enumerate(pairs):
            is_extreme = np.abs(block[a] - block[b]) >= thresholds[number]
            extreme[number] += int(np.count_nonzero(is_extreme))
    return [(1 + count) / (1 + draws) for count in extreme]


def sign_flip_exact(differences: Floats) -> float | None:
    """The same p-value over all patterns of signs.

    None if more than `EXACT_USERS` users have a sum other than zero.
    """
    # A user whose sum is zero has the same total under either sign.
    scale = float(np.abs(differences).sum())
    tolerance = _TOLERANCE * scale / len(differences)
    is_nonzero = np.abs(differences) > tolerance
    nonzero = differences[is_nonzero]
    if len(nonzero) > EXACT_USERS:
        return None

    total = float(nonzero.sum())
    flipped_sums = _all_flips(len(nonzero)) @ nonzero
    statistics = total - 2 * flipped_sums
    return _p_value(statistics, total, scale, exact=True)


def swap(
    a: Floats,
    b: Floats,
    clusters: Clusters,
    aggregate: Aggregate,
    draws: int,
    seed: int,
) -> tuple[float, bool]:
    """Two-sided p-value for any aggregate of sorted scores, and whether it is exact.

    Users change sides with all their samples and both sides are aggregated again; for a mean this
    is the sign-flip test.  Users with equal rows on both sides are left out; if at most
    `EXACT_USERS` users remain, all patterns are tried.
    """
    is_different = (a != b).reshape(clusters.n, -1)
    differs = is_different.any(axis=1)
    differing_samples = np.bincount(clusters.codes, differs, clusters.users)
    different_users = np.flatnonzero(differing_samples)
    exact = len(different_users) <= EXACT_USERS

    # Scores of shape (n, d) need the choice of side as a column.
    shape = (clusters.n,) + (1,) * (a.ndim - 1)
    is_swapped = np.zeros(clusters.users, np.bool_)
    statistics = []
    for flips in _iterate_flips(len(different_users), exact, draws, seed):
        is_swapped[different_users] = flips
        side = is_swapped[clusters.codes].reshape(shape)
        swapped_a = np.where(side, b, a)
        swapped_b = np.where(side, a, b)
        statistics.append(aggregate(swapped_a) - aggregate(swapped_b))

    value_a = aggregate(a)
    value_b = aggregate(b)
    observed = value_a - value_b
    scale = abs(value_a) + abs(value_b)
    p = _p_value(np.array(statistics), observed, scale, exact)
    return p, exact


def _iterate_flips(
    users: int,
    exact: bool,
    draws: int,
    seed: int,
) -> Iterator[Bools]:
    if exact:
        yield from _all_flips(users)
        return
    for _, flips in _random_flips(users, draws, seed):
        yield from flips


@lru_cache(maxsize=256)
def t_quantile(probability: float, degrees: float) -> float:
    """Quantile of Student's t for a probability of at least one half.

    Degrees of freedom are real and at least 1.  With t = √ν tan θ the density of θ is proportional
    to cos^(ν-1) θ, which is integrated on a grid; four digits are right up to 0.9999, and beyond
    10,000 degrees of freedom those of 10,000 are used.
    """
    # Our own implementation, so that printing a leaderboard does not have to import SciPy.
    degrees = min(degrees, 10_000.0)
    angles = np.linspace(0, np.pi / 2, 40_001)
    density = np.cos(angles) ** (degrees - 1)
    trapezoids = density[1:] + density[:-1]
    areas = np.cumsum(trapezoids)
    below = np.concatenate([[0.0], areas])

    # Past the first maximum the cumulative sum is flat and cannot be inverted.
    end = int(np.argmax(below)) + 1
    shares = below[:end] / below[-1]
    two_sided = 2 * probability - 1
    angle = np.interp(two_sided, shares, angles[:end])
    return float(np.sqrt(degrees) * np.tan(angle))
