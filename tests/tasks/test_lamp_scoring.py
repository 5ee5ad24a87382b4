"""Parsing and scoring of LaMP answers: acceptance numbers and edge cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from lamp_files import sample, scores

from personabench.errors import UsageError
from personabench.metrics.text import ROUGE
from personabench.tasks.lamp import Lamp1, Lamp2M, Lamp2N, Lamp3, Lamp4, Lamp7


def test_acceptance_1_f1_is_over_the_full_label_list() -> None:
    metrics, _ = scores(
        Lamp2M(), ["comedy", "action", "comedy"], ["comedy", "action", "action"], "official"
    )
    assert metrics == {"accuracy": pytest.approx(2 / 3), "f1": pytest.approx(0.0889, abs=5e-5)}


def test_acceptance_2_citations() -> None:
    golds, answers = ["[1]", "[2]"], ["[1]", "[1] because"]
    assert scores(Lamp1(), golds, answers, "official") == ({"accuracy": 0.5, "f1": 0.5}, 1)
    metrics, failures = scores(Lamp1(), golds, answers, "lenient")
    assert (metrics["accuracy"], failures) == (0.5, 0)


def test_acceptance_3_ratings() -> None:
    golds, answers = ["5", "3", "1", "4"], ["5 stars", "good", "0", "4.5"]
    metrics, failures = scores(Lamp3(), golds, answers, "official")
    assert metrics == {"MAE": 1.875, "RMSE": pytest.approx(2.3049, abs=5e-5)}
    assert failures == 2
    assert scores(Lamp3(), golds, answers, "lenient") == ({"MAE": 1.625, "RMSE": 2.25}, 2)


@pytest.mark.parametrize("answer", ["nan", "inf", "-inf", "", "4/5"])
def test_acceptance_3_what_is_no_number_gets_the_worst_rating(answer: str) -> None:
    assert scores(Lamp3(), ["3"], [answer], "official") == ({"MAE": 2.0, "RMSE": 2.0}, 1)


def test_acceptance_4_rouge() -> None:
    apostrophe, _ = scores(Lamp4(), ["Don’t look back"], ["Dont look back"], "official")
    assert apostrophe == dict.fromkeys([metric.name for metric in ROUGE], pytest.approx(4 / 7))
    turned, _ = scores(Lamp4(), ["the cat"], ["cat the"], "official")
    assert turned == {
        "rouge-1": 1.0,
        "rouge-L": 0.5,
        "rouge-1-unicode": 1.0,
        "rouge-L-unicode": 0.5,
    }
    japanese, _ = scores(Lamp4(), ["橋が閉まる"], ["橋が閉まる"], "official")
    assert japanese == {
        "rouge-1": 0.0,
        "rouge-L": 0.0,
        "rouge-1-unicode": 1.0,
        "rouge-L-unicode": 1.0,
    }


def test_acceptance_5_wrong_categories_score_zero() -> None:
    metrics, failures = scores(Lamp2N(), ["sports", "crime"], ["crime", "comedy"], "official")
    assert metrics == {"accuracy": 0.0, "f1": 0.0}
    assert failures == 1


def test_metrics_accept_any_resample_of_rows() -> None:
    pairs = np.array([[0.0, 0.0], [3.0, -1.0], [14.0, 3.0]])
    _, f1 = Lamp2M.metrics
    for rows in itertools.product(range(3), repeat=3):
        chosen = pairs[list(rows)]
        assert f1.aggregate(chosen) == pytest.approx((1 / 15) * bool(0 in rows))


def test_ratings_are_not_clamped_by_the_official_scorer() -> None:
    assert scores(Lamp3(), ["1", "5"], ["0", "100"], "official") == (
        {"MAE": 48.0, "RMSE": pytest.approx((0.5 * (1 + 95**2)) ** 0.5)},
        0,
    )


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("comedy", "comedy"),
        (" Dark Comedy.", "dark comedy"),
        ("**Tag:** `twist ending`", "twist ending"),
        ("<think>an action film? or comedy?</think>\nThe answer is: Sci-Fi", "sci-fi"),
        ("comedy, or romance", None),
        ("comedy comedy", "comedy"),
        ("a comedy-drama", None),
        ("tragicomedy", None),
        ("<think>comedy", None),
    ],
)
def test_lenient_reading_of_labels(answer: str, read: str | None) -> None:
    assert Lamp2M().parse(answer, sample("lamp2m"), "lenient") == read


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("[2]", "[2]"),
        ("Answer: 1", "[1]"),
        ("[1] rather than [2]", None),
        ("Reference [2], published in 1 of 12 journals", "[2]"),
        ("12", None),
        ("1.5", None),
    ],
)
def test_lenient_reading_of_citations(answer: str, read: str | None) -> None:
    assert Lamp1().parse(answer, sample("lamp1"), "lenient") == read


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("4", "4"),
        ("4.5", "4.5"),
        ("Score: 4/5", "4"),
        ("4 out of 5 stars", "4"),
        ("Four stars!", "4"),
        ("On a scale of 1 to 5, I would say 2.", "2"),
        ("8/10", None),
        ("3 or 4", None),
        ("-3", None),
        ("100", None),
        ("5. It is one of the best.", "5"),
    ],
)
def test_lenient_reading_of_ratings(answer: str, read: str | None) -> None:
    assert Lamp3().parse(answer, sample("lamp3"), "lenient") == read


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ('Headline: "Bridge Shut Again"', "Bridge Shut Again"),
        ("```\nBridge Shut Again\n```", "Bridge Shut Again"),
        ("Sure! Here is a headline for the article:\n\n**Bridge Shut Again**", "Bridge Shut Again"),
        ('"Shut" Bridge, "Open" Ferry', '"Shut" Bridge, "Open" Ferry'),
        ("Title Fight at the Quay", "Title Fight at the Quay"),
        ("<think>hm</think>", None),
    ],
)
def test_lenient_reading_of_text(answer: str, read: str | None) -> None:
    assert Lamp4().parse(answer, sample("lamp4"), "lenient") == read


def test_official_reading_of_text_takes_it_as_it_stands() -> None:
    assert Lamp7().parse(' "rain" ', sample("lamp7"), "official") == ' "rain" '


def test_a_sample_without_gold_has_no_values() -> None:
    assert Lamp3().measure("4", sample("lamp3")) == {}


def test_an_unknown_scorer_is_refused() -> None:
    with pytest.raises(UsageError, match="official, lenient"):
        Lamp3().parse("4", sample("lamp3"), "strict")
