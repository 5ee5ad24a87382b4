"""Two runs beside each other: what is compared, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic_scores import EACH, draw_scores, write_run

from personabench.errors import UsageError
from personabench.leaderboard.run_comparison import Harmed, compare_runs, count_harmed
from personabench.leaderboard.stats import Scores
from personabench.results.published import Vector
from personabench.types import Sampling


def test_compare_says_everything_of_two_runs(tmp_path: Path) -> None:
    a, b = (
        write_run(tmp_path, "rag", draw_scores(0.2, seed=1)),
        write_run(tmp_path, "none", draw_scores(seed=2)),
    )
    found = compare_runs(a, b)
    users = [f"u{number // EACH}" for number in range(60)]
    expected = Scores([draw_scores(0.2, seed=1), draw_scores(seed=2)], users).compare(0, 1)
    pair = found.metrics["rouge-1"]
    assert pair.gain.value == pytest.approx(expected.gain.value)
    assert pair.contrast.comparison.quantiles == pytest.approx(expected.quantiles)
    assert pair.contrast.comparison.by_user == expected.by_user
    assert (found.n, found.users, found.differences, found.only) == (
        60,
        20,
        [],
        {"a": 0, "b": 0},
    )
    assert compare_runs(b, a).metrics["rouge-1"].gain.value == pytest.approx(-pair.gain.value)


def test_compare_values_are_on_the_samples_of_both(tmp_path: Path) -> None:
    a = write_run(tmp_path, "rag", draw_scores(0.2, seed=1))
    b = write_run(tmp_path, "none", draw_scores(seed=2)[:30])
    found = compare_runs(a, b)
    pair = found.metrics["rouge-1"]
    assert (found.n, found.only) == (30, {"a": 30, "b": 0})
    assert pair.a.value == pytest.approx(float(draw_scores(0.2, seed=1)[:30].mean()))
    assert pair.a.value - pair.b.value == pytest.approx(pair.gain.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data_hash": "e" * 64}, "data_hash"),
        ({"split": "test"}, "split (test against dev)"),
        (
            {"task_params": {"template": "lamp-official"}},
            "task_params (template=lamp-official against template=None)",
        ),
        ({"model": {"name": "big"}}, "model (name=big against name=tiny)"),
        ({"sampling": Sampling(0.7)}, "sampling (temperature=0.7 against temperature=0.0)"),
        ({"window": 512}, "window (512 against None)"),
    ],
)
def test_runs_that_differ_in_more_than_the_method_are_refused(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    a, b = (
        write_run(tmp_path, "rag", draw_scores(0.2, seed=1), **changes),
        write_run(tmp_path, "none", draw_scores(seed=2)),
    )
    with pytest.raises(UsageError, match="--allow-mismatch") as error:
        compare_runs(a, b)
    assert named in str(error.value)
    assert named in compare_runs(a, b, allow_mismatch=True).differences[0]


def test_runs_without_a_common_sample_are_refused(tmp_path: Path) -> None:
    a, b = (
        write_run(tmp_path, "rag", draw_scores()),
        write_run(tmp_path, "none", draw_scores(), samples=range(100, 160)),
    )
    with pytest.raises(UsageError, match="share no scored sample"):
        compare_runs(a, b)
    with pytest.raises(UsageError, match="different tasks"):
        compare_runs(
            a, write_run(tmp_path, "rag", draw_scores(), task="lamp5"), allow_mismatch=True
        )


def test_users_below_guessing_in_one_run_only_are_counted() -> None:
    ids = [f"s{number}" for number in range(8)]
    users = ["u1", "u1", "u2", "u2", "u3", "u3", "u4", "u4"]

    def scores(values: list[float]) -> Vector:
        return Vector(ids, users, {"official": {"accuracy": list(values)}})

    # u1 falls below .5 in a, u2 in b; u3 is at .5 in both, and u4 below in both.
    a = scores([0, 0, 1, 1, 1, 0, 0, 0])
    b = scores([1, 0, 0, 0, 1, 0, 0, 0])
    assert count_harmed(a, b, "accuracy", 0.5) == Harmed(0.5, by_a=1, by_b=1, users=4)
    assert count_harmed(b, b, "accuracy", 0.5) == Harmed(0.5, by_a=0, by_b=0, users=4)
