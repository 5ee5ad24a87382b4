"""Statistics compared with SciPy, statsmodels and calculations by hand."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest

from personabench.leaderboard.stats import Scores, holm, leaders, letters, resample, wins
from personabench.leaderboard.stats import scores as scores_module
from personabench.leaderboard.stats.resample import Aggregate, Clusters, t_quantile
from personabench.leaderboard.stats.scores import find_interval
from personabench.metrics.labels import macro_f1
from personabench.metrics.metric import mean
from personabench.metrics.ratings import rmse

scipy_stats = pytest.importorskip("scipy.stats")


def clustered(
    users: int = 40, seed: int = 0, methods: int = 2
) -> tuple[list[np.ndarray], list[str]]:
    """Simulate scores of methods with several samples per user, in random order."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(users), rng.integers(1, 6, size=users)))
    shared = rng.normal(size=users)[codes] + rng.normal(size=len(codes))
    rows = [shared + 0.2 * index + 0.5 * rng.normal(size=len(codes)) for index in range(methods)]
    return rows, [f"user {code}" for code in codes]


# --- resampling ---


@pytest.mark.parametrize("probability", [0.5, 0.8, 0.975, 0.995])
@pytest.mark.parametrize("degrees", [1, 1.7, 2, 5, 30.5, 400, 5000])
def test_t_quantile_is_that_of_scipy(probability: float, degrees: float) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(
        scipy_stats.t.ppf(probability, degrees), rel=1e-4
    )


def test_many_degrees_of_freedom_are_normal() -> None:
    assert t_quantile(0.975, 1e7) == pytest.approx(1.96, abs=1e-3)


def test_clusters_keep_samples_of_a_user_together() -> None:
    clusters = Clusters(["b", "a", "b", "c", "b"])
    assert clusters.order.tolist() == [1, 0, 2, 4, 3]
    assert clusters.sizes.tolist() == [1, 3, 1]
    assert clusters.rows(np.array([1, 2, 1])).tolist() == [1, 2, 3, 4, 1, 2, 3]
    assert clusters.effective == pytest.approx(25 / 11)


def test_bootstrap_by_sums_is_bootstrap_by_rows() -> None:
    rows, users = clustered()
    clusters = Clusters(users)
    ordered = [row[clusters.order] for row in rows]
    sums = np.array([clusters.sums(row) for row in ordered])
    fast = resample.bootstrap_means(sums, clusters, 200, seed=3)
    plain = resample.bootstrap(ordered, clusters, lambda values: float(values.mean()), 200, seed=3)
    np.testing.assert_allclose(fast, plain, rtol=1e-12)


def test_draws_do_not_depend_on_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, users = clustered()
    whole = Scores(rows, users, draws=300).resampled(0)
    monkeypatch.setattr(resample, "_BLOCK", 1000)
    np.testing.assert_allclose(Scores(rows, users, draws=300).resampled(0), whole, rtol=1e-12)


def test_results_do_not_depend_on_the_rows_that_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, users = clustered(methods=5)
    pairs = [(0, 1), (1, 3), (4, 2)]
    plain = Scores(rows, users, draws=300)
    draws = [plain.resampled(row) for row in range(5)]
    tests = [Scores(rows, users, draws=300).test(*pair) for pair in pairs]
    assert len(set(tests)) > 1

    monkeypatch.setattr(resample, "_FLIPPED", 100)
    monkeypatch.setattr(scores_module, "MOST_HELD", 2 * 300)
    monkeypatch.setattr(scores_module, "BLOCKS_HELD", 1)
    scores = Scores(rows, users, draws=300)
    for row in (*range(5), 0):
        np.testing.assert_allclose(scores.resampled(row), draws[row], rtol=1e-12)
    scores.prepare_tests(pairs)
    assert [scores.test(*pair) for pair in pairs] == tests
    assert [scores.test(b, a) for a, b in pairs] == tests


def test_bootstrap_error_is_that_of_scipy() -> None:
    values = clustered()[0][0]
    ours = Scores([values], [str(index) for index in range(len(values))]).estimate(0)
    expected = scipy_stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, rng=0
    )
    correction = math.sqrt(len(values) / (len(values) - 1))
    assert ours.error == pytest.approx(expected.standard_error * correction, rel=0.03)
    assert ours.low == pytest.approx(expected.confidence_interval.low, abs=0.05 * ours.error + 0.02)
    assert ours.high == pytest.approx(
        expected.confidence_interval.high, abs=0.05 * ours.error + 0.02
    )


def test_interval_of_single_samples_is_the_t_interval() -> None:
    values = np.random.default_rng(5).normal(size=12)
    ours = Scores([values], [str(index) for index in range(12)]).estimate(0)
    low, high = scipy_stats.t.interval(0.95, 11, loc=values.mean(), scale=scipy_stats.sem(values))
    assert ours.value == pytest.approx(values.mean())
    assert ours.high - ours.low == pytest.approx(high - low, rel=0.08)


def test_clustered_error_is_that_of_statsmodels() -> None:
    api = pytest.importorskip("statsmodels.api")
    (values, _), users = clustered(users=60)
    groups = np.unique(users, return_inverse=True)[1]
    fit = api.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert Scores([values], users).estimate(0).error == pytest.approx(float(fit.bse[0]), rel=0.05)


# --- estimates ---


def test_users_that_repeat_themselves_count_once() -> None:
    values = np.random.default_rng(1).normal(size=30)
    users = [f"u{index}" for index in range(30)]
    once = Scores([values], users).estimate(0)
    copied = Scores([np.tile(values, 4)], users * 4).estimate(0)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert (copied.n, copied.users) == (120, 30)


def test_few_heavy_users_widen_the_interval() -> None:
    values = np.random.default_rng(1).normal(size=40)
    even = Scores([values], [f"u{index // 2}" for index in range(40)]).estimate(0)
    heavy = Scores([values], [f"u{max(0, index - 20)}" for index in range(40)]).estimate(0)
    assert even.users == heavy.users == 20
    assert heavy.high - heavy.low > 1.2 * (even.high - even.low)


def test_same_seed_same_numbers_and_row_order_does_not_matter() -> None:
    rows, users = clustered()
    first = Scores(rows, users).compare(0, 1)
    assert Scores(rows, users).compare(0, 1) == first
    assert Scores(rows, users, seed=1).compare(0, 1).gain.low != first.gain.low
    order = np.argsort(users, kind="stable")
    again = Scores([row[order] for row in rows], [users[index] for index in order]).compare(0, 1)
    assert (again.gain.low, again.p) == (first.gain.low, first.p)


def test_interval_of_rmse_is_of_the_root_and_not_of_samples() -> None:
    rng = np.random.default_rng(2)
    errors, users = rng.normal(size=400), [f"u{index // 4}" for index in range(400)]
    root = Scores([errors**2], users, rmse, higher_is_better=False, draws=2000).estimate(0)
    square = Scores([errors**2], users, draws=2000).estimate(0)
    assert root.value == pytest.approx(math.sqrt((errors**2).mean()))
    assert (root.low, root.high) == pytest.approx(
        (math.sqrt(square.low), math.sqrt(square.high)), rel=1e-4
    )


def test_the_moved_interval_is_scipys_bca() -> None:
    values = np.random.default_rng(4).exponential(size=40)
    scores = Scores([values], [f"u{index:02d}" for index in range(40)], draws=20_000)
    interval = find_interval(
        scores.resampled(0),
        float(values.mean()),
        1.959964,
        resample.acceleration(scores.left_out[0]),
    )
    expected = scipy_stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=20_000, rng=0
    ).confidence_interval
    plain = np.quantile(scores.resampled(0), [0.025, 0.975])
    assert expected.high > 1.02 * plain[1]
    assert interval == pytest.approx((plain[0], expected.high), rel=0.01)


@pytest.mark.parametrize("aggregate", [mean, rmse])
def test_values_without_each_user(aggregate: Aggregate) -> None:
    rows, users = clustered()
    rows = [np.abs(row) for row in rows]
    left_out = Scores(rows, users, aggregate).left_out
    user_ids = np.array(users)
    expected = [[aggregate(row[user_ids != name]) for name in sorted(set(users))] for row in rows]
    assert left_out == pytest.approx(np.array(expected))


def test_skewed_scores_have_a_longer_arm_where_the_tail_is() -> None:
    values = np.random.default_rng(0).exponential(size=12)
    estimate = Scores([values], [f"u{index:02d}" for index in range(12)]).estimate(0)
    assert estimate.high - estimate.value > 1.3 * (estimate.value - estimate.low)


def test_macro_f1_is_resampled_over_all_labels() -> None:
    pairs = np.array([[0, 0], [1, 1], [0, 1], [1, -1], [2, 2], [0, 0], [1, 0], [2, 1]], dtype=float)
    estimate = Scores(
        [pairs], [f"u{index}" for index in range(8)], partial(macro_f1, labels=3), draws=500
    ).estimate(0)
    assert estimate.value == pytest.approx(macro_f1(pairs, 3))
    assert 0 <= estimate.low < estimate.value < estimate.high <= 1


@pytest.mark.parametrize(
    ("values", "users", "reason"),
    [
        ([], [], "no samples"),
        ([0.3], ["a"], "one user"),
        ([0.3, 0.5, 0.9], ["a", "a", "a"], "one user"),
        ([0.3, 0.5, 0.9], ["a", "b", "c"], "3 users"),
        ([1.0] * 20, [str(index) for index in range(20)], "all users score the same"),
        ([0.1, 0.3] * 10, [str(index // 2) for index in range(20)], "all users score the same"),
    ],
)
def test_no_interval_where_scores_cannot_tell(
    values: list[float], users: list[str], reason: str
) -> None:
    estimate = Scores([np.array(values)], users).estimate(0)
    assert estimate.value == (pytest.approx(np.mean(values)) if values else None)
    assert (estimate.low, estimate.high, estimate.error) == (None, None, None)
    assert estimate.reason is not None and estimate.reason.startswith(reason)


def test_metric_undefined_on_a_resample_has_no_interval() -> None:
    def picky(values: np.ndarray) -> float:
        return float(values.mean()) if (values > 0.5).any() else math.nan

    estimate = Scores(
        [np.array([1.0] + [0.0] * 9)], [str(index) for index in range(10)], picky, draws=200
    ).estimate(0)
    assert estimate.value == pytest.approx(0.1)
    assert estimate.low is None and estimate.reason is not None and "undefined" in estimate.reason


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.1], "row 1 has 1 values for 2 samples"),
        ([0.1, math.nan], "row 1 has values that are not"),
    ],
)
def test_rows_must_match_and_be_finite(row: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scores([np.zeros(2), np.array(row)], ["a", "b"])


# --- comparisons ---


def test_sign_flip_tries_every_pattern_when_users_are_few() -> None:
    differences = np.array([0.5, 0.25, -0.125, 0.75, 0.5])
    totals = [abs(sum(signs * differences)) for signs in itertools.product([1, -1], repeat=5)]
    expected = np.mean(np.array(totals) >= differences.sum())
    assert resample.sign_flip_exact(differences) == pytest.approx(expected)
    assert resample.sign_flip_exact(np.concatenate([differences, np.zeros(50)])) == pytest.approx(
        expected
    )


def test_sign_flip_is_that_of_scipy() -> None:
    differences = np.random.default_rng(3).normal(0.4, 1, size=10)
    expected = scipy_stats.permutation_test(
        (differences, np.zeros(10)),
        lambda a, b, axis: (a - b).mean(axis),
        permutation_type="samples",
        vectorized=True,
    )
    ours = Scores([differences, np.zeros(10)], [str(index) for index in range(10)]).compare(0, 1)
    assert ours.exact
    assert ours.p == pytest.approx(expected.pvalue)


def test_random_signs_are_near_the_exact_test(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, users = clustered(users=12, seed=2)
    exact = Scores(rows, users).compare(1, 0)
    monkeypatch.setattr(resample, "EXACT_USERS", 2)
    random_signs = Scores(rows, users).compare(1, 0)
    assert (exact.exact, random_signs.exact) == (True, False)
    assert 0.005 < exact.p < 0.5
    assert random_signs.p == pytest.approx(exact.p, abs=0.02)


def test_random_signs_never_give_zero() -> None:
    users = [str(index) for index in range(50)]
    comparison = Scores([np.linspace(1, 2, 50), np.zeros(50)], users, draws=999).compare(0, 1)
    assert (comparison.p, comparison.exact) == (pytest.approx(0.001), False)


@pytest.mark.parametrize("users", [10, 30])
def test_swapping_rows_of_a_mean_is_the_sign_flip_test(users: int) -> None:
    rows, user_ids = clustered(users=users, seed=4)
    flips = Scores(rows, user_ids, draws=2000).test(0, 1)
    swaps = Scores(rows, user_ids, lambda values: float(values.mean()), draws=2000).test(0, 1)
    assert swaps[1] == flips[1]
    assert swaps[0] == pytest.approx(flips[0], abs=1e-12 if flips[1] else 0.03)


def test_users_are_flipped_whole() -> None:
    """Six users with ten equal differences each are six observations, not sixty."""
    rows = [np.repeat([1.0, 1.5, 2.0, 1.2, 1.1, 1.7], 10), np.zeros(60)]
    assert Scores(rows, [f"u{index // 10}" for index in range(60)]).compare(
        0, 1
    ).p == pytest.approx(2 / 2**6)


def test_gain_is_paired_and_positive_where_a_is_better() -> None:
    rng = np.random.default_rng(6)
    hard = 5 * rng.normal(size=100)
    rows, users = (
        [hard + 0.5 + 0.2 * rng.normal(size=100), hard],
        [f"u{index // 2}" for index in range(100)],
    )
    up = Scores(rows, users).compare(0, 1)
    down = Scores(rows, users, higher_is_better=False).compare(0, 1)
    assert 0.4 < up.gain.low < up.gain.value < up.gain.high < 0.6
    assert down.gain.value == -up.gain.value
    assert (down.gain.low, down.gain.high) == pytest.approx((-up.gain.high, -up.gain.low))
    assert down.p == up.p
    assert (down.samples.loss, down.by_user.loss) == (up.samples.win, up.by_user.win)


def test_wins_ties_losses_and_gains_by_sample_and_user() -> None:
    users = ["a", "a", "b", "b", "c", "d", "e", "f"]
    first = np.array([1.0, 0.0, 0.1 + 0.2, 0.5, 0.0, 1.0, 0.4, 0.4])
    second = np.array([0.0, 1.0, 0.3, 0.1, 1.0, 0.0, 0.4, 0.4])
    comparison = Scores([first, second], users).compare(0, 1)
    assert (comparison.samples.win, comparison.samples.tie, comparison.samples.loss) == (3, 3, 2)
    assert (comparison.by_user.win, comparison.by_user.tie, comparison.by_user.loss) == (2, 3, 1)
    assert (comparison.samples.hurt, comparison.by_user.hurt) == (0.25, pytest.approx(1 / 6))
    assert comparison.quantiles == pytest.approx(
        tuple(np.quantile([0, 0.2, -1, 1, 0, 0], [0.1, 0.5, 0.9]))
    )


def test_users_of_a_corpus_metric_are_compared_by_that_metric() -> None:
    users = ["a", "a", "b", "c", "d", "e", "f"]
    first = np.array([9.0, 16.0, 1.0, 1.0, 4.0, 0.0, 1.0])
    second = np.array([0.0, 4.0, 4.0, 1.0, 4.0, 1.0, 1.0])
    comparison = Scores([first, second], users, rmse, higher_is_better=False, draws=200).compare(
        0, 1
    )
    assert (comparison.by_user.win, comparison.by_user.tie, comparison.by_user.loss) == (2, 3, 1)
    assert comparison.quantiles[1] == 0
    assert min(comparison.quantiles) < -1


def test_label_pairs_have_no_winner_by_sample() -> None:
    rng = np.random.default_rng(8)
    gold = rng.integers(3, size=60)
    rows = [
        np.stack([gold, np.where(rng.random(60) < share, gold, 0)], axis=1).astype(float)
        for share in (0.9, 0.2)
    ]
    comparison = Scores(
        rows, [f"u{index // 3}" for index in range(60)], partial(macro_f1, labels=3), draws=500
    ).compare(0, 1)
    assert comparison.gain.low > 0
    assert comparison.p < 0.01
    assert (comparison.samples, comparison.by_user, comparison.quantiles) == (None, None, None)


@pytest.mark.parametrize("users", [20, 1])
def test_rows_that_tie_everywhere_have_no_p_value(users: int) -> None:
    values = np.random.default_rng(0).random(20)
    comparison = Scores(
        [values, values.copy()], [str(index % users) for index in range(20)]
    ).compare(0, 1)
    assert (comparison.gain.value, comparison.gain.low, comparison.p, comparison.detectable) == (
        0.0,
        None,
        None,
        None,
    )
    assert comparison.gain.reason.startswith(
        "no sample's scores differ" if users > 1 else "one user"
    )
    assert (comparison.samples.tie, comparison.by_user.tie) == (20, users)


def test_equal_gains_have_a_p_value_and_no_interval() -> None:
    values = np.random.default_rng(0).integers(0, 8, size=10) / 8
    comparison = Scores([values + 0.25, values], [str(index) for index in range(10)]).compare(0, 1)
    assert comparison.gain.value == pytest.approx(0.25)
    assert (comparison.gain.low, comparison.gain.reason) == (None, "all users gain the same")
    assert comparison.p == pytest.approx(2 / 2**10)


def test_nothing_to_compare() -> None:
    comparison = Scores([np.zeros(0), np.zeros(0)], []).compare(0, 1)
    assert (comparison.gain.value, comparison.gain.reason, comparison.p, comparison.samples) == (
        None,
        "no samples",
        None,
        None,
    )


def test_detectable_difference_has_the_power_it_claims() -> None:
    """Power of the paired t-test by the noncentral t distribution.

    The sum of two quantiles approximates it closely.
    """
    rows = [row[:30] for row in clustered(users=30)[0]]
    comparison = Scores(rows, [str(index) for index in range(30)]).compare(1, 0)
    limit = scipy_stats.t.ppf(0.975, 29)
    power = scipy_stats.nct.sf(limit, 29, comparison.detectable / comparison.gain.error)
    assert power == pytest.approx(0.8, abs=0.01)


# --- families ---


def test_holm_by_hand_and_monotone() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_counts_tests_that_could_not_be_made() -> None:
    assert holm([0.01, None, 0.02]) == [pytest.approx(0.03), None, pytest.approx(0.04)]


def test_holm_is_that_of_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(0).random(20) ** 3
    assert holm(p_values.tolist()) == pytest.approx(
        multitest.multipletests(p_values, method="holm")[1].tolist()
    )


def test_letters_go_on_after_z() -> None:
    labels = letters(54)
    assert labels[:3] + labels[25:28] + labels[51:] == [
        "a",
        "b",
        "c",
        "z",
        "aa",
        "ab",
        "az",
        "ba",
        "bb",
    ]
    assert len(set(labels)) == 54


def test_significant_wins_and_tied_leaders() -> None:
    pairs = {
        (0, 1): (0.02, 0.3),
        (0, 2): (0.2, 0.001),
        (1, 2): (-0.18, 0.01),
        (3, 0): (-0.3, 0.05),
        (3, 1): (0, None),
    }
    assert wins(4, pairs) == [[2, 3], [], [1], []]
    assert leaders(0, 4, pairs) == [0, 1]
    assert leaders(0, 4, pairs, alpha=0.01) == [0, 1, 3]
