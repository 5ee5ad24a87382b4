"""BM25 against the specification's numbers and, if it is installed, against rank_bm25 itself."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest

from personabench.retrieval.bm25 import BM25, top


def naive(
    documents: list[str], query: str, k1: float = 1.5, b: float = 0.75, epsilon: float = 0.25
) -> list[float]:
    """BM25 Okapi, written out."""
    bags = [Counter(document.split()) for document in documents]
    lengths = [sum(bag.values()) for bag in bags]
    n, mean_length = len(bags), sum(lengths) / len(bags)
    containing = Counter(token for bag in bags for token in bag)
    weights = {
        token: math.log(n - df + 0.5) - math.log(df + 0.5) for token, df in containing.items()
    }
    floor = epsilon * sum(weights.values()) / len(weights)
    return [
        sum(
            (floor if weights[token] < 0 else weights[token])
            * bag[token]
            * (k1 + 1)
            / (bag[token] + k1 * (1 - b + b * length / mean_length))
            for token in query.split()
            if token in bag
        )
        for bag, length in zip(bags, lengths, strict=True)
    ]


def invented(rng: random.Random, n: int, words: int = 40, longest: int = 30) -> list[str]:
    vocabulary = [f"word{i}" for i in range(words)]
    share = [1 / (i + 1) for i in range(words)]
    return [" ".join(rng.choices(vocabulary, share, k=rng.randint(0, longest))) for _ in range(n)]


def test_acceptance_7_bm25_edges() -> None:
    profile = BM25(["a b c", "a b d", "x y z", "q"])
    assert top(profile.scores("zzz"), 2) == [3, 2]
    assert len(top(profile.scores("zzz"), 9)) == 4
    assert BM25(["a"]).scores("a") == pytest.approx([-0.2747], abs=5e-5)
    two = BM25(["a", "a b"]).scores("a")
    assert two == pytest.approx([-0.2367, -0.1749], abs=5e-5)
    assert top(two, 2) == [1, 0]
    empty = BM25([])
    assert len(empty) == 0
    assert empty.scores("a").shape == (0,)
    assert top(empty.scores("a"), 3) == []


def test_only_empty_documents_score_zero() -> None:
    assert BM25(["", "  ", "\n"]).scores("a b").tolist() == [0, 0, 0]


def test_tokens_keep_case_and_punctuation() -> None:
    index = BM25(["The end.", "the end", "other words", "and more of them"])
    assert (index.scores("end.") > 0).tolist() == [True, False, False, False]
    assert (index.scores("The") > 0).tolist() == [True, False, False, False]


def test_a_repeated_query_token_counts_again() -> None:
    index = BM25(["a b", "c d", "e f", "g"])
    assert index.scores("a a a") == pytest.approx(3 * index.scores("a"))


def test_queries_do_not_change_the_index() -> None:
    index = BM25(["a b", "c d", "e"])
    before = index.scores("a e")
    index.scores("unseen a unseen")
    assert index.scores("unseen").tolist() == [0, 0, 0]
    assert (index.scores("a e") == before).all()


@pytest.mark.parametrize("seed", range(20))
def test_scores_follow_the_formula(seed: int) -> None:
    rng = random.Random(seed)
    documents = [*invented(rng, rng.randint(1, 60)), "at least one word"]
    query = " ".join(invented(rng, 3)) + " unseen"
    settings = (rng.uniform(0.5, 2), rng.random(), rng.random())
    assert BM25(documents, *settings).scores(query) == pytest.approx(
        naive(documents, query, *settings), abs=1e-12
    )


@pytest.mark.parametrize(("seed", "n"), [(0, 1), (1, 2), (2, 37), (3, 200), (4, 10_000)])
def test_scores_equal_rank_bm25(seed: int, n: int) -> None:
    rank_bm25 = pytest.importorskip("rank_bm25")
    rng = random.Random(seed)
    documents = [*invented(rng, n, words=300), "at least one word"]
    expected, actual = (
        rank_bm25.BM25Okapi([document.split() for document in documents]),
        BM25(documents),
    )
    for query in [*invented(rng, 3, words=300), "unseen word1 word1"]:
        assert np.abs(expected.get_scores(query.split()) - actual.scores(query)).max() <= 1e-12


@pytest.mark.parametrize("n", [1, 7, 16, 17, 1000, 20_000])
def test_top_puts_the_later_of_equals_first_at_any_length(n: int) -> None:
    rng = np.random.default_rng(n)
    scores = rng.integers(-3, 4, size=n).astype(float)
    expected = sorted(range(n), key=lambda i: (scores[i], i), reverse=True)
    for k in (1, 5, n // 2, n, n + 3):
        assert top(scores, k) == expected[:k]


def test_top_of_none_or_nothing() -> None:
    assert top(np.array([1.0, 2.0]), 0) == []
    assert top(np.array([1.0, 2.0]), -1) == []
    assert top(np.array([-2.0, -0.0, 0.0, -1.0]), 3) == [2, 1, 3]
