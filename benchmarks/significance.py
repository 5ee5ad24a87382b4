"""Coverage, false positives and power of the statistics on simulated scores with known effects.

    python benchmarks/significance.py [--boards 1000]

Every board has two methods, and users who differ in ability, in how much each method suits them and
in how many samples they have.  Three tables are printed: how often the 95 % interval of a row and
of a paired gain contains the truth, compared with the plain percentile interval of the same draws;
how often the paired test finds a difference that does not exist, compared with a sign-flip test
that takes samples for independent; and how often it finds one that exists, compared with the
unpaired comparison.  The true effect in the last table is the median of the effects that boards
without one called detectable, so power should be 80 %.  Lines of stress, with very few users or few
users with most samples, show the limits of the interval and are not judged.  Exit code 1 if
coverage leaves 93 to 97 %, false positives exceed 6 % or pairing does not increase power.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

# Matrices are small: threads would cost more than they save.  Set before NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

from personabench.leaderboard.stats import Estimate, Scores
from personabench.leaderboard.stats.resample import Aggregate, t_quantile
from personabench.metrics.labels import macro_f1
from personabench.metrics.metric import mean
from personabench.metrics.ratings import rmse

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]
Law = Callable[[np.random.Generator, Codes], list[Floats]]
Case = tuple[str, str, int]
LABELS = 5


class Scenario(NamedTuple):
    """A metric, the law of its values given each sample's user, and the draws of its boards."""

    law: Law
    aggregate: Aggregate = mean
    higher_is_better: bool = True
    draws: int = 1000


def draw_per_user(
    rng: np.random.Generator,
    codes: Codes,
) -> Floats:
    """Draw a normal value for each user, repeated for their samples."""
    values: Floats = rng.normal(size=codes[-1] + 1)
    drawn: Floats = values[codes]
    return drawn


def draw_qualities(
    rng: np.random.Generator,
    codes: Codes,
    fit: float,
    noise: float,
) -> list[Floats]:
    """Draw two methods' qualities.

    Users and samples are shared; how well a method suits a user (`fit`) and noise are not.
    """
    shared = draw_per_user(rng, codes) + rng.normal(size=len(codes))
    qualities = []
    for _ in range(2):
        user_fit = fit * draw_per_user(rng, codes)
        sample_noise = noise * rng.normal(size=len(codes))
        qualities.append(shared + user_fit + sample_noise)
    return qualities


def draw_accuracies(
    rng: np.random.Generator,
    codes: Codes,
) -> list[Floats]:
    qualities = draw_qualities(rng, codes, 0.5, 0.5)
    return [(quality > -0.6).astype(np.float64) for quality in qualities]


def draw_overlaps(
    rng: np.random.Generator,
    codes: Codes,
) -> list[Floats]:
    qualities = draw_qualities(rng, codes, 0.5, 0.5)
    return [1 / (1 + np.exp(1.5 - 0.6 * quality)) for quality in qualities]


def draw_squares(
    rng: np.random.Generator,
    codes: Codes,
) -> list[Floats]:
    """Draw squared errors of ratings, most of which are high, as in reviews."""
    ratings = 3.8 + 0.9 * draw_per_user(rng, codes) + 0.7 * rng.normal(size=len(codes))
    gold = np.clip(np.round(ratings), 1, 5)
    squares = []
    for quality in draw_qualities(rng, codes, 0.4, 0.6):
        guess = np.round(gold + 0.8 * quality - 0.2)
        squares.append((np.clip(guess, 1, 5) - gold) ** 2)
    return squares


def draw_labels(
    rng: np.random.Generator,
    codes: Codes,
) -> list[Floats]:
    """Draw pairs of labels; each user has a favourite one."""
    samples = len(codes)
    favourite = rng.integers(LABELS, size=codes[-1] + 1)[codes]
    is_favourite = rng.random(samples) < 0.4
    gold = np.where(
        is_favourite,
        favourite,
        rng.integers(LABELS, size=samples),
    )
    wrong_guess = rng.integers(LABELS, size=samples)
    pairs = []
    for quality in draw_qualities(rng, codes, 0.4, 0.6):
        guess = np.where(quality > -0.3, gold, wrong_guess)
        pairs.append(np.stack([gold, guess], axis=1).astype(np.float64))
    return pairs


SCENARIOS = {
    "accuracy": Scenario(draw_accuracies),
    "overlap": Scenario(draw_overlaps),
    "RMSE": Scenario(draw_squares, rmse, higher_is_better=False, draws=500),
    "macro-F1": Scenario(draw_labels, partial(macro_f1, labels=LABELS), draws=500),
}
# Samples of each user.
SIZES: dict[str, Callable[[np.random.Generator, int], Codes]] = {
    "one each": lambda rng, users: np.ones(users, np.intp),
    "1 to 9": lambda rng, users: rng.integers(1, 10, size=users),
    "few heavy": lambda rng, users: np.minimum(rng.zipf(1.8, size=users), 60).astype(np.intp),
}
COVERAGE: list[Case] = [
    ("accuracy", "1 to 9", 10),
    ("accuracy", "1 to 9", 20),
    ("accuracy", "1 to 9", 40),
    ("accuracy", "one each", 40),
    ("overlap", "one each", 10),
    ("overlap", "one each", 20),
    ("overlap", "one each", 30),
    ("overlap", "one each", 150),
    ("overlap", "1 to 9", 10),
    ("overlap", "1 to 9", 20),
    ("overlap", "1 to 9", 30),
    ("overlap", "1 to 9", 150),
    ("accuracy", "few heavy", 100),
    ("overlap", "few heavy", 100),
    ("RMSE", "1 to 9", 25),
    ("RMSE", "1 to 9", 150),
    ("macro-F1", "1 to 9", 20),
    ("macro-F1", "1 to 9", 40),
]
STRESS: list[Case] = [
    ("RMSE", "1 to 9", 10),
    ("macro-F1", "1 to 9", 10),
    ("accuracy", "one each", 10),
    ("accuracy", "few heavy", 10),
    ("accuracy", "few heavy", 25),
    ("overlap", "few heavy", 10),
    ("overlap", "few heavy", 25),
]
TESTS: list[Case] = [
    ("accuracy", "1 to 9", 50),
    ("overlap", "one each", 10),
    ("overlap", "one each", 50),
    ("overlap", "1 to 9", 10),
    ("overlap", "1 to 9", 50),
    ("overlap", "few heavy", 10),
    ("overlap", "few heavy", 50),
    ("RMSE", "1 to 9", 20),
]


def simulate_board(
    rng: np.random.Generator,
    name: str,
    sizes: str,
    users: int,
    effect: float = 0.0,
) -> Scores:
    """Simulate one board; `effect` is added to the first method's values."""
    scenario = SCENARIOS[name]
    codes = np.repeat(np.arange(users), SIZES[sizes](rng, users))
    first, second = scenario.law(rng, codes)
    return Scores(
        [first + effect, second],
        [f"u{code}" for code in codes],
        scenario.aggregate,
        higher_is_better=scenario.higher_is_better,
        draws=scenario.draws,
        seed=int(rng.integers(1 << 32)),
    )


def compute_truth(name: str) -> float:
    """Compute the metric of the whole population, from a million users."""
    scenario = SCENARIOS[name]
    rows = scenario.law(np.random.default_rng(1), np.arange(1_000_000))
    return scenario.aggregate(rows[0])


def contains(estimate: Estimate, value: float) -> float:
    """1 or 0, or NaN without an interval, for example because all answers are the same."""
    if estimate.low is None or estimate.high is None:
        return np.nan
    return float(estimate.low <= value <= estimate.high)


def check_coverage(boards: int) -> bool:
    print(
        f"{'coverage of 95 %':<18}{'samples':<11}{'users':>6}{'row':>8}{'gain':>8}{'plain row':>12}"
    )
    all_good = True
    truths = {name: compute_truth(name) for name in SCENARIOS}
    for number, case in enumerate(COVERAGE + STRESS):
        name, sizes, users = case
        # A seed for each line, so that a new line does not change the others.
        rng = np.random.default_rng([2, number])
        covered = []
        for _ in range(boards):
            board = simulate_board(rng, name, sizes, users)
            low, high = np.quantile(board.resampled(0), [0.025, 0.975])
            row = contains(board.estimate(0), truths[name])
            gain = contains(board.gain(0, 1), 0.0)
            plain_row = float(low <= truths[name] <= high)
            covered.append((row, gain, plain_row))

        row_share, gain_share, plain_share = np.nanmean(covered, axis=0)
        is_good = all(0.93 <= share <= 0.97 for share in (row_share, gain_share))
        verdict = "stress"
        if case in COVERAGE:
            verdict = describe(is_good)
            all_good &= is_good
        print(
            f"{name:<18}{sizes:<11}{users:>6}{row_share:>8.3f}{gain_share:>8.3f}"
            f"{plain_share:>12.3f}  {verdict}"
        )
    return all_good


def differs_unpaired(board: Scores) -> bool:
    """Whether the two rows differ at 5 % if they are taken for independent."""
    a = board.estimate(0)
    b = board.estimate(1)
    assert a.value is not None and a.error is not None
    assert b.value is not None and b.error is not None
    # Two rows, each with the degrees of freedom of its users.
    degrees = 2 * max(board.clusters.effective - 1, 1.0)
    limit = t_quantile(0.975, degrees)
    return abs(a.value - b.value) > limit * float(np.hypot(a.error, b.error))


def separate_samples(board: Scores) -> Scores:
    """Copy a board as if every sample had a user of its own."""
    users = [str(index) for index in range(board.clusters.n)]
    return Scores(
        board.rows,
        users,
        board.aggregate,
        draws=board.draws,
    )


def check_false_positives(boards: int) -> tuple[bool, dict[Case, float]]:
    """Simulate boards without an effect.

    Returns:
        Whether false positives are rare enough, and the median detectable gain of each case.
    """
    print(f"\n{'false positives':<18}{'samples':<11}{'users':>6}{'paired':>8}{'samples alone':>15}")
    all_good = True
    detectable = {}
    for number, case in enumerate(TESTS):
        name, sizes, users = case
        rng = np.random.default_rng([3, number])
        # The naive test flips signs and so exists for means only.
        is_mean = SCENARIOS[name].aggregate is mean
        positives = naive_positives = 0
        gains = []
        for _ in range(boards):
            board = simulate_board(rng, name, sizes, users)
            comparison = board.compare(0, 1)
            gains.append(comparison.detectable or 0.0)
            positives += is_significant(comparison.p)
            if is_mean:
                naive_p, _ = separate_samples(board).test(0, 1)
                naive_positives += is_significant(naive_p)

        is_good = positives / boards <= 0.06
        all_good &= is_good
        detectable[case] = float(np.median(gains))
        naive_share = f"{naive_positives / boards:.3f}" if is_mean else "–"
        print(
            f"{name:<18}{sizes:<11}{users:>6}{positives / boards:>8.3f}{naive_share:>15}"
            f"  {describe(is_good)}"
        )
    return all_good, detectable


def check_power(
    boards: int,
    effects: Mapping[Case, float],
) -> bool:
    """Simulate boards with effects that should be found in 80 % of them."""
    print(
        f"\n{'power':<18}{'samples':<11}{'users':>6}{'paired':>8}{'unpaired':>10}{'true gain':>11}"
    )
    all_good = True
    for number, (case, effect) in enumerate(effects.items()):
        name, sizes, users = case
        # A shift means a gain for graded values only, not for 0 or 1 or for squared errors.
        if name != "overlap":
            continue
        rng = np.random.default_rng([4, number])
        paired = unpaired = 0
        for _ in range(boards):
            board = simulate_board(rng, name, sizes, users, effect)
            p, _ = board.test(0, 1)
            paired += is_significant(p)
            unpaired += differs_unpaired(board)

        is_good = paired > unpaired
        all_good &= is_good
        print(
            f"{name:<18}{sizes:<11}{users:>6}{paired / boards:>8.3f}{unpaired / boards:>10.3f}"
            f"{effect:>11.4f}  {describe(is_good)}"
        )
    return all_good


def is_significant(p: float | None) -> bool:
    return p is not None and p <= 0.05


def describe(is_good: bool) -> str:
    return "ok" if is_good else "OUTSIDE"


def main() -> None:
    """Simulate and print; exit code 1 if a figure is outside its limits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--boards", type=int, default=1000, help="simulated boards per line")
    boards = parser.parse_args().boards
    started = time.perf_counter()
    good = check_coverage(boards)
    few_false_positives, detectable = check_false_positives(boards)
    good &= few_false_positives
    good &= check_power(boards, detectable)
    print(f"\n{boards} boards a line, {time.perf_counter() - started:.0f} s")
    sys.exit(not good)


if __name__ == "__main__":
    main()
