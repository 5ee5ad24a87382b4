"""The BM25 indexes that a run keeps, and the best of many scores."""

from __future__ import annotations

import numpy as np
import pytest

from personabench.retrieval.bm25 import top
from personabench.retrieval.search import IndexCache


def test_an_index_is_built_once_while_it_is_kept() -> None:
    cache = IndexCache(10)
    first = cache.get(("abc",), "words")
    assert cache.get(("abc",), "words") is first
    assert cache.get(("abc",), "whitespace") is not first
    second = cache.get(("defg",), "words")
    assert cache.get(("abc",), "words") is first, "three, three and four characters fit"
    cache.get(("h",), "words")
    assert cache.get(("defg",), "words") is second and cache.get(("abc",), "words") is first


def test_of_documents_beyond_the_limit_the_newest_are_kept() -> None:
    cache = IndexCache(10)
    large = cache.get(("a" * 11,), "words")
    assert len(large) == 1 and cache.get(("a" * 11,), "words") is large
    cache.get(("b" * 11,), "words")
    assert cache.get(("a" * 11,), "words") is not large


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("k", [1, 7, 500, 1000])
def test_the_best_of_sparse_scores_are_those_of_a_stable_sort(share: float, k: int) -> None:
    rng = np.random.default_rng(7)
    scores = np.where(rng.random(1000) < share, rng.integers(-2, 6, 1000), 0).astype(float)
    scores[rng.integers(1000, size=50)] = -np.inf
    order = sorted(range(1000), key=lambda index: (-scores[index], -index))
    assert top(scores, k) == order[:k]
