"""The order in which BM25 returns records, restated."""

from __future__ import annotations

import random

from restated_bm25 import rank

from personabench.retrieval.search import search
from personabench.types import Record


async def test_the_order_of_results_is_that_of_the_page() -> None:
    rng = random.Random(17)
    vocabulary = [f"word{number}" for number in range(30)]
    weights = [1 / (number + 1) for number in range(30)]
    ties = 0
    for _ in range(200):
        documents = [
            " ".join(rng.choices(vocabulary, weights, k=rng.randint(1, 9)))
            for _ in range(rng.randint(1, 40))
        ]
        # Copies tie, and the later one must come first.
        documents += rng.choices(documents, k=3)
        query = " ".join(rng.choices([*vocabulary, "unseen"], k=6))
        records = [Record(str(number), text, "r") for number, text in enumerate(documents)]
        k = rng.choice((1, 4, len(records), 60))
        results = await search(
            records,
            query=query,
            document=lambda record: record.stimulus or "",
            k=k,
            by="bm25",
            tokenizer="whitespace",
            rng=rng,
            embed=None,  # type: ignore[arg-type]
            ranking=None,
            flag=lambda name: None,
        )
        order = [int(record.id) for record in results]
        assert order == rank(documents, query, k)
        ties += len(order) > 1 and len({documents[index] for index in order}) < len(order)
    assert ties > 20
