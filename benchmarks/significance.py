"""Whether the statistics keep their word, on invented scores whose true effects are known.

    python benchmarks/significance.py [--boards 1000]

Every board has two methods, and users who differ in ability, in how much each method suits them and in how many
samples they have.  Shown: how often the 95 % interval of a row and of a paired gain holds the truth, beside the plain
percentile interval of the same draws; how often the paired test finds a difference that is not there, beside a
sign-flip test that takes samples for independent; and how often it finds one that is, beside the unpaired comparison.
The true effect in the last table is the median of what the boards without one called detectable, so power should be
80 %.  Lines of stress, with very few users or few who hold most samples, show where the interval ends and are not
judged.  Exit code 1 when coverage leaves 93 to 97 %, false positives exceed 6 % or pairing does not pay.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

from personabench.leaderboard.stats import Estimate, Scores
from personabench.leaderboard.stats.resample import Aggregate, t_quantile
from personabench.metrics.labels import macro_f1
from personabench.metrics.metric import mean
from personabench.metrics.ratings import rmse

Floats = npt.NDArray[np.float64]
Law = Callable[[np.random.Generator, npt.NDArray[np.intp]], list[Floats]]
LABELS = 5


class World(NamedTuple):
    """A metric, the law of its per-sample values given each sample's user, and draws that a board can afford."""

    law: Law
    aggregate: Aggregate = mean
    higher_is_better: bool = True
    draws: int = 1000


def latent(
    rng: np.random.Generator, codes: npt.NDArray[np.intp], own: float, noise: float
) -> list[Floats]:
    """Two methods' qualities: the user and the sample are shared, how a method suits the user and noise are not."""
    users = codes[-1] + 1
    shared = rng.normal(size=users)[codes] + rng.normal(size=len(codes))
    return [
        shared + own * rng.normal(size=users)[codes] + noise * rng.normal(size=len(codes))
        for _ in range(2)
    ]


def accuracy(rng: np.random.Generator, codes: npt.NDArray[np.intp]) -> list[Floats]:
    return [(quality > -0.6).astype(np.float64) for quality in latent(rng, codes, 0.5, 0.5)]


def overlap(rng: np.random.Generator, codes: npt.NDArray[np.intp]) -> list[Floats]:
    return [1 / (1 + np.exp(1.5 - 0.6 * quality)) for quality in latent(rng, codes, 0.5, 0.5)]


def squares(rng: np.random.Generator, codes: npt.NDArray[np.intp]) -> list[Floats]:
    gold = np.clip(
        np.round(
            3.8 + 0.9 * rng.normal(size=codes[-1] + 1)[codes] + 0.7 * rng.normal(size=len(codes))
        ),
        1,
        5,
    )
    guesses = (gold + 0.8 * noise - 0.2 for noise in latent(rng, codes, 0.4, 0.6))
    return [(np.clip(np.round(guess), 1, 5) - gold) ** 2 for guess in guesses]


def labels(rng: np.random.Generator, codes: npt.NDArray[np.intp]) -> list[Floats]:
    favourite = rng.integers(LABELS, size=codes[-1] + 1)[codes]
    gold = np.where(rng.random(len(codes)) < 0.4, favourite, rng.integers(LABELS, size=len(codes)))
    guess = rng.integers(LABELS, size=len(codes))
    found = (np.where(quality > -0.3, gold, guess) for quality in latent(rng, codes, 0.4, 0.6))
    return [np.stack([gold, each], axis=1).astype(np.float64) for each in found]


WORLDS = {
    "accuracy": World(accuracy),
    "overlap": World(overlap),
    "RMSE": World(squares, rmse, higher_is_better=False, draws=500),
    "macro-F1": World(labels, partial(macro_f1, labels=LABELS), draws=500),
}
SIZES: dict[str, Callable[[np.random.Generator, int], npt.NDArray[np.intp]]] = {
    "one each": lambda rng, users: np.ones(users, np.intp),
    "1 to 9": lambda rng, users: rng.integers(1, 10, size=users),
    "few heavy": lambda rng, users: np.minimum(rng.zipf(1.8, size=users), 60).astype(np.intp),
}
COVERAGE = [
    *(("accuracy", "1 to 9", users) for users in (10, 20, 40)),
    ("accuracy", "one each", 40),
    *(("overlap", sizes, users) for sizes in ("one each", "1 to 9") for users in (10, 20, 30, 150)),
    *((name, "few heavy", 100) for name in ("accuracy", "overlap")),
    *(("RMSE", "1 to 9", users) for users in (25, 150)),
    *(("macro-F1", "1 to 9", users) for users in (20, 40)),
]
STRESS = [
    *((name, "1 to 9", 10) for name in ("RMSE", "macro-F1")),
    ("accuracy", "one each", 10),
    *((name, "few heavy", users) for name in ("accuracy", "overlap") for users in (10, 25)),
]
TESTS = [
    ("accuracy", "1 to 9", 50),
    *(("overlap", sizes, users) for sizes in SIZES for users in (10, 50)),
    ("RMSE", "1 to 9", 20),
]


def scores(
    rng: np.random.Generator, name: str, sizes: str, users: int, effect: float = 0.0
) -> Scores:
    """One board; `effect` is added to the first method's values."""
    world = WORLDS[name]
    codes = np.repeat(np.arange(users), SIZES[sizes](rng, users))
    first, second = world.law(rng, codes)
    seed = int(rng.integers(1 << 32))
    names = [f"u{code}" for code in codes]
    return Scores(
        [first + effect, second],
        names,
        world.aggregate,
        higher_is_better=world.higher_is_better,
        draws=world.draws,
        seed=seed,
    )


def truth(name: str) -> float:
    """The metric of the whole population, from a million users."""
    world = WORLDS[name]
    return world.aggregate(world.law(np.random.default_rng(1), np.arange(1_000_000))[0])


def inside(found: Estimate, value: float) -> float:
    """1 or 0, or NaN where no interval was claimed (no two methods' answers differ, say)."""
    return (
        np.nan
        if found.low is None or found.high is None
        else float(found.low <= value <= found.high)
    )


def coverage(boards: int) -> bool:
    print(
        f"{'coverage of 95 %':<18}{'samples':<11}{'users':>6}{'row':>8}{'gain':>8}{'plain row':>12}"
    )
    good = True
    truths = {name: truth(name) for name in WORLDS}
    for line, (name, sizes, users) in enumerate(COVERAGE + STRESS):
        rng = np.random.default_rng([2, line])
        held = []
        for _ in range(boards):
            board = scores(rng, name, sizes, users)
            low, high = np.quantile(board.resampled[0], [0.025, 0.975])
            plain = float(low <= truths[name] <= high)
            held.append(
                (inside(board.estimate(0), truths[name]), inside(board.gain(0, 1), 0.0), plain)
            )
        row_held, gain_held, plain_held = np.nanmean(held, axis=0)
        fine = all(0.93 <= share <= 0.97 for share in (row_held, gain_held))
        judged = (name, sizes, users) in COVERAGE
        good &= fine or not judged
        said = verdict(fine) if judged else "stress"
        print(
            f"{name:<18}{sizes:<11}{users:>6}{row_held:>8.3f}{gain_held:>8.3f}{plain_held:>12.3f}  {said}"
        )
    return good


def unpaired(board: Scores) -> bool:
    """Whether the two rows differ at 5 % when they are taken for independent."""
    a, b = board.estimate(0), board.estimate(1)
    assert (
        a.value is not None and b.value is not None and a.error is not None and b.error is not None
    )
    limit = t_quantile(0.975, 2 * max(board.clusters.effective - 1, 1.0))
    return abs(a.value - b.value) > limit * float(np.hypot(a.error, b.error))


def alone(board: Scores) -> Scores:
    """The same board as if every sample had a user of its own."""
    return Scores(
        board.rows, [str(at) for at in range(board.clusters.n)], board.aggregate, draws=board.draws
    )


def tests(boards: int) -> bool:
    print(f"\n{'false positives':<18}{'samples':<11}{'users':>6}{'paired':>8}{'samples alone':>15}")
    good = True
    detectable = {}
    for line, (name, sizes, users) in enumerate(TESTS):
        rng = np.random.default_rng([3, line])
        found, naive, shifts = 0, 0, []
        for _ in range(boards):
            board = scores(rng, name, sizes, users)
            compared = board.compare(0, 1)
            shifts.append(compared.detectable or 0.0)
            found += significant(compared.p)
            if board.aggregate is mean:
                naive += significant(alone(board).test(0, 1)[0])
        fine = found / boards <= 0.06
        good &= fine
        detectable[name, sizes, users] = float(np.median(shifts))
        other = f"{naive / boards:.3f}" if WORLDS[name].aggregate is mean else "–"
        print(f"{name:<18}{sizes:<11}{users:>6}{found / boards:>8.3f}{other:>15}  {verdict(fine)}")
    print(
        f"\n{'power':<18}{'samples':<11}{'users':>6}{'paired':>8}{'unpaired':>10}{'true gain':>11}"
    )
    for line, ((name, sizes, users), effect) in enumerate(detectable.items()):
        if name != "overlap":
            continue
        rng = np.random.default_rng([4, line])
        found = other_found = 0
        for _ in range(boards):
            board = scores(rng, name, sizes, users, effect)
            found += significant(board.test(0, 1)[0])
            other_found += unpaired(board)
        fine = found > other_found
        good &= fine
        print(
            f"{name:<18}{sizes:<11}{users:>6}{found / boards:>8.3f}{other_found / boards:>10.3f}{effect:>11.4f}"
            f"  {verdict(fine)}"
        )
    return good


def significant(p: float | None) -> bool:
    return p is not None and p <= 0.05


def verdict(fine: bool) -> str:
    return "ok" if fine else "OUTSIDE"


def main() -> None:
    """Simulate and print; exit code 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--boards", type=int, default=1000, help="simulated boards per line")
    boards = parser.parse_args().boards
    started = time.perf_counter()
    good = coverage(boards)
    good &= tests(boards)
    print(f"\n{boards} boards a line, {time.perf_counter() - started:.0f} s")
    sys.exit(not good)


if __name__ == "__main__":
    main()
