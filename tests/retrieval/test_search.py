"""The rules and edges of choosing records, and ranking files."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from personabench.errors import DataError, UsageError
from personabench.retrieval.rankings import read_rankings
from personabench.retrieval.search import SEARCHES, search
from personabench.types import Record


def records(*texts: str, times: Sequence[str | None] = ()) -> list[Record]:
    dates = times or [None] * len(texts)
    return [
        Record(f"r{i}", text, "answer", time=time)
        for i, (text, time) in enumerate(zip(texts, dates, strict=True))
    ]


async def by_length(texts: Sequence[str]) -> np.ndarray:
    """Similarity of two texts is the product of their lengths."""
    return np.array([[len(text)] for text in texts], np.float32)


async def no_embedding(texts: Sequence[str]) -> np.ndarray:
    raise AssertionError("asked for vectors")


async def find(
    history: Sequence[Record], k: int, by: str, query: str = "query", **changes: Any
) -> list[str]:
    flags: dict[str, float] = changes.pop("flags", {})
    options: dict[str, Any] = {
        "document": lambda record: record.stimulus,
        "tokenizer": "whitespace",
        "rng": random.Random(7),
        "embed": by_length,
        "ranking": None,
        "flag": lambda name, amount=1: flags.update({name: flags.get(name, 0) + amount}),
    }
    results = await search(history, query=query, k=k, by=by, **(options | changes))
    return [record.id for record in results]


async def test_acceptance_7_bm25_edges_of_search() -> None:
    profile = records("a b c", "a b d", "x y z", "q")
    assert await find(profile, 2, "bm25", "zzz") == ["r3", "r2"]
    assert sorted(await find(profile, 9, "bm25", "zzz")) == ["r0", "r1", "r2", "r3"]
    assert await find(records("a", "a b"), 2, "bm25", "a") == ["r1", "r0"]
    assert await find(records("", ""), 1, "bm25", "a") == ["r1"]
    assert await find([], 4, "bm25") == []


async def test_acceptance_11_recency_order() -> None:
    dated = records("a", "b", "c", times=["2012-12-31", "2013", "2013-01-02"])
    assert await find(dated, 3, "recency") == ["r2", "r1", "r0"]
    assert await find(dated[::-1], 2, "recency") == ["r2", "r1"]


async def test_acceptance_11_recency_without_dates_is_refused_before_any_vector() -> None:
    for times in (None, "soon", ""):
        partly = records("a", "b", times=["2013", times])
        for by in ("recency", "recency+dense"):
            with pytest.raises(UsageError, match="'r1'"):
                await find(partly, 2, by, embed=no_embedding)


async def test_equal_dates_put_the_later_record_first() -> None:
    dated = records("a", "b", "c", "d", times=["2013-05-01", "2013-5-1", "2014", "2013-05-01"])
    assert await find(dated, 4, "recency") == ["r2", "r3", "r1", "r0"]


async def test_dates_are_compared_as_numbers() -> None:
    dated = records(
        "a", "b", "c", times=["2013-9-30", "2013-10-01T08:00:00", "2013-10-01T10:00:00"]
    )
    assert await find(dated, 3, "recency") == ["r2", "r1", "r0"]


@pytest.mark.parametrize("by", SEARCHES)
async def test_counts_at_the_edges(by: str) -> None:
    profile = records(
        "a b", "b c", "c", "d e f", "g", times=["2010", "2011", "2012", "2013", "2014"]
    )
    ranking = [record.id for record in profile]
    assert await find(profile, 0, by, ranking=ranking) == []
    assert await find([], 3, by, ranking=ranking) == []
    for k in range(1, 8):
        ids = await find(profile, k, by, "a b", ranking=ranking)
        assert len(ids) == len(set(ids)) == min(k, 5)
    with pytest.raises(UsageError, match="-1"):
        await find(profile, -1, by, ranking=ranking)


async def test_an_unknown_retriever_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match=r"'bm52'.*bm25, dense"):
        await find(records("a"), 1, "bm52")


async def test_dense_ranks_by_dot_product_and_ties_put_the_later_first() -> None:
    assert await find(records("aa", "aaaa", "a", "bbbb"), 4, "dense") == ["r3", "r1", "r0", "r2"]


async def test_equal_texts_tie_exactly_under_dense() -> None:
    rng = np.random.default_rng(0)
    vectors = {text: rng.normal(size=257).astype(np.float32) for text in ("query", "same", "other")}

    async def embed(texts: Sequence[str]) -> np.ndarray:
        return np.stack([vectors[text] for text in texts])

    mixed = records(*["same", "other", "same"] * 11)
    same = [f"r{i}" for i in range(33) if i % 3 != 1][::-1]
    ids = await find(mixed, 33, "dense", embed=embed)
    assert [record_id for record_id in ids if record_id in same] == same


async def test_random_draws_without_replacement_and_by_seed() -> None:
    profile = records(*"abcdefghij")
    first = await find(profile, 10, "random", rng=random.Random("1"))
    assert sorted(first) == [f"r{i}" for i in range(10)]
    assert first == await find(profile, 10, "random", rng=random.Random("1"))
    assert first != await find(profile, 10, "random", rng=random.Random("2"))


async def test_ranked_follows_the_ranking_and_counts_what_does_not_fit() -> None:
    flags: dict[str, float] = {}
    ranking = ["r3", "gone", "r1", "r3", "r3", "r0"]
    assert await find(records(*"abcde"), 2, "ranked", ranking=ranking, flags=flags) == ["r3", "r1"]
    assert flags == {"ranked_unknown_ids": 1, "ranked_repeated_ids": 2, "ranked_missing_ids": 2}
    assert await find(records(*"abcde"), 4, "ranked", ranking=ranking) == ["r3", "r1", "r0"]


async def test_a_complete_ranking_raises_no_flag() -> None:
    flags: dict[str, float] = {}
    assert await find(records(*"abc"), 3, "ranked", ranking=["r1", "r2", "r0"], flags=flags) == [
        "r1",
        "r2",
        "r0",
    ]
    assert flags == {}


async def test_texts_of_a_ranking_are_held_against_the_records(tmp_path: Path) -> None:
    path = tmp_path / "ranks.json"
    path.write_text(
        json.dumps({"q": [{"id": "r1", "text": " a  b"}, "r0", {"id": "gone", "text": "x"}]})
    )
    ranking = read_rankings(path)["q"]
    assert ranking == ("r1", "r0", "gone")
    assert await find(records("a", "a b"), 2, "ranked", ranking=ranking) == ["r1", "r0"]
    with pytest.raises(UsageError, match="the id 'r1' to the text of another record"):
        await find(records("a b", "a"), 2, "ranked", ranking=ranking)


async def test_file_order_is_the_last_record_first_whatever_its_date() -> None:
    dated = records(*"abcde", times=["2015", "2014", "2013", "2012", "2011"])
    assert await find(dated, 2, "file-order") == ["r4", "r3"]
    assert await find(records(*"ab"), 5, "file-order") == ["r1", "r0"]


async def test_ranked_without_a_ranking_is_refused() -> None:
    with pytest.raises(UsageError, match="ranking=FILE"):
        await find(records("a"), 1, "ranked")


async def test_recency_and_dense_halves_without_repeats() -> None:
    # Dense order: r4 r3 r2 r1 r0.
    texts = ("a", "aa", "aaa", "aaaa", "aaaaa")
    apart = records(*texts, times=["2015", "2014", "2013", "2012", "2011"])
    assert await find(apart, 4, "recency+dense") == ["r4", "r3", "r0", "r1"]
    together = records(*texts, times=["2011", "2012", "2013", "2014", "2015"])
    assert await find(together, 4, "recency+dense") == ["r4", "r3", "r2", "r1"]
    assert await find(apart, 3, "recency+dense") == ["r4", "r0", "r3"]
    assert await find(apart, 1, "recency+dense") == ["r4"]


async def test_only_dense_retrievers_ask_for_vectors() -> None:
    profile = records("a", "b", times=["2011", "2012"])
    for by in ("bm25", "recency", "random", "ranked"):
        assert len(await find(profile, 2, by, ranking=["r0", "r1"], embed=no_embedding)) == 2


def test_ids_stay_strings(tmp_path: Path) -> None:
    rankings = {"011": ["0110", "0111"], "11": [], "ü\n": ["x"]}
    path = tmp_path / "ranks.json"
    path.write_text(json.dumps(rankings))
    assert read_rankings(path) == {question: tuple(ids) for question, ids in rankings.items()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"1": ["a"', "not JSON"),
        ('["a"]', "holds a list"),
        ('{"1": "a"}', "question '1' has a str"),
        ('{"1": ["a", 11]}', "question '1', position 1: 11 is not a string"),
        ('{"1": ["a"], "1": ["b"]}', "question '1' is ranked twice"),
    ],
)
def test_a_broken_ranking_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "ranks.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_rankings(path)
    assert "ranks.json" in str(caught.value)


def test_a_missing_ranking_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_rankings(tmp_path / "absent.json")


async def test_bm25_without_a_shared_token_is_flagged() -> None:
    history = records("A trip to Paris.", "the garden", "bread")
    flags: dict[str, float] = {}
    assert await find(history, 2, "bm25", "paris", flags=flags) == ["r2", "r1"]
    assert flags == {"bm25_no_match": 1}

    flags = {}
    assert await find(history, 2, "bm25", "paris", tokenizer="words", flags=flags) == ["r0", "r2"]
    assert flags == {}
