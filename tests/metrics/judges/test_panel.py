"""Ranks and agreement of judges, by hand."""

from __future__ import annotations

import random

import pytest

from personabench.metrics.judges.panel import Column, Panel, Verdicts, compare_judges, kappa

A, B = Column("a"), Column("b", "strict")


def verdicts(run: str, column: Column, *scores: float) -> Verdicts:
    mean = sum(scores) / len(scores)
    return Verdicts(run, column, mean, {str(n): score for n, score in enumerate(scores)})


def test_ranks_and_the_runs_that_depend_on_the_judge() -> None:
    panel = Panel(
        "judged",
        True,
        [
            verdicts("x", A, 1, 1),
            verdicts("y", A, 1, 0),
            verdicts("z", A, 0, 0),
            verdicts("x", B, 0, 1),
            verdicts("y", B, 1, 1),
            Verdicts("z", B, None, {}, unjudged=2),
        ],
        [],
        [],
    )
    assert panel.ranks() == {
        ("x", A): 1,
        ("y", A): 2,
        ("z", A): 3,
        ("x", B): 2,
        ("y", B): 1,
    }
    assert panel.unstable_runs() == ["x", "y"]


def test_agreement_counts_answers_that_both_judged() -> None:
    (agreement,) = compare_judges([verdicts("x", A, 1, 1, 0, 0), verdicts("x", B, 1, 0, 0)])
    assert (agreement.n, agreement.flips) == (3, 1)
    assert agreement.kappa == pytest.approx(0.4)


def test_kappa_equals_an_independent_computation() -> None:
    from sklearn.metrics import cohen_kappa_score

    draw = random.Random(0)
    for _ in range(50):
        pairs = [(draw.random() < 0.6, draw.random() < 0.5) for _ in range(20)]
        left, right = zip(*pairs, strict=True)
        assert kappa(pairs) == pytest.approx(cohen_kappa_score(left, right))
    assert kappa([]) is None and kappa([(True, True)]) is None
