"""The generic measures against independent calculations."""

from __future__ import annotations

import random
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from personabench.api.id_check import compare_ids
from personabench.errors import UsageError
from personabench.metrics.external import compute_external
from personabench.metrics.labels import find_label, macro_f1
from personabench.metrics.ratings import farthest_rating, find_rating
from personabench.metrics.text import rouge, strip_chatter


def test_macro_f1_equals_its_definition() -> None:
    rng = random.Random(5)
    pairs = [(rng.randrange(4), rng.choice([-1, 0, 1, 2, 3])) for _ in range(60)]
    expected = 0.0
    for label in range(6):
        hits = sum(gold == predicted == label for gold, predicted in pairs)
        golds = sum(gold == label for gold, _ in pairs)
        answers = sum(predicted == label for _, predicted in pairs)
        if hits:
            precision, recall = hits / answers, hits / golds
            expected += 2 * precision * recall / (precision + recall) / 6
    assert macro_f1(np.array(pairs, dtype=float), 6) == pytest.approx(expected)


def test_longer_labels_win_at_any_position() -> None:
    labels = ("war", "cold war", "war story")
    assert find_label("A Cold War!", labels) == "cold war"
    assert find_label("war story", labels) == "war story"
    assert find_label("cold war, war", labels) is None
    assert find_label("wartime", labels) is None


@pytest.mark.parametrize(("gold", "expected"), [(1, 5), (2, 5), (3, 5), (4, 1), (5, 1)])
def test_the_worst_rating_is_the_far_end(gold: float, expected: float) -> None:
    assert farthest_rating(gold, 1, 5) == expected


def test_ratings_of_other_scales() -> None:
    assert find_rating("7 of 10", 1, 10) == 7
    assert find_rating("7/10", 1, 5) is None
    assert find_rating("3 of 5, not 4 of 5", 1, 5) is None


def test_rouge_is_symmetric_and_zero_on_empty_text() -> None:
    assert (
        rouge("a b c", "b c d")
        == rouge("b c d", "a b c")
        == {"rouge-1": pytest.approx(2 / 3), "rouge-L": pytest.approx(2 / 3)}
    )
    assert rouge("", "a") == rouge("a", "") == rouge("", "") == {"rouge-1": 0.0, "rouge-L": 0.0}


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        ("hidden thoughts</think> answer", "answer"),
        ("**Bold** and _soft_ and snake_case_name", "Bold and soft and snake_case_name"),
        ("# Heading", "Heading"),
        ("“Curly”", "Curly"),
        ("'tis the season, isn't it'", "'tis the season, isn't it'"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ('Subject line: "Title: Lunch"', "Lunch"),
        ("```text\none\ntwo\n```", "one\ntwo"),
        ("", ""),
    ],
)
def test_strip_chatter(raw: str, read: str) -> None:
    assert strip_chatter(raw) == read


def test_id_differences() -> None:
    difference = compare_ids(["a", "b", "c"], ["c", "x", "c"])
    assert (difference.missing, difference.extra, difference.repeated) == (
        ("a", "b"),
        ("x",),
        ("c",),
    )
    assert str(difference) == "missing: 2 (a, b), extra: 1 (x), repeated: 1 (c)"
    assert str(compare_ids(["a"], ["a"])) == ""


def fake(monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    monkeypatch.setitem(sys.modules, "evaluate", SimpleNamespace(load=load))


def test_external_metrics_keep_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shared:
        def compute(self, predictions: list[str], references: list[str]) -> dict[str, Any]:
            same = sum(a == b for a, b in zip(predictions, references, strict=True))
            return {"score": same, "signature": "v1"}

    fake(monkeypatch, lambda name: Shared())
    assert compute_external("evaluate:shared", ["a", "b"], ["a", "c"]) == {
        "evaluate:shared.score": 1.0
    }


def test_external_metrics_that_cannot_be_loaded_or_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str) -> Any:
        raise ConnectionError(f"no route to {name}")

    fake(monkeypatch, offline)
    with pytest.raises(UsageError, match="network connection"):
        compute_external("evaluate:bleu", ["a"], ["a"])
    fake(monkeypatch, lambda name: SimpleNamespace(compute=offline))
    with pytest.raises(UsageError, match="cannot be computed"):
        compute_external("evaluate:bleu", ["a"], ["a"])
    for name in ("bleu", "evaluate:"):
        with pytest.raises(UsageError, match="are named"):
            compute_external(name, ["a"], ["a"])
    with pytest.raises(UsageError, match="1 predictions for 2 references"):
        compute_external("evaluate:bleu", ["a"], ["a", "b"])
