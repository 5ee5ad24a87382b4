"""Choosing k records of a history for one question: the rules all retrievers share.

One function, because the edges are the protocol: how ties fall, what k = 0 means, what happens without dates.  It
knows neither tasks nor models; texts, vectors and randomness are handed in by the `Context`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from personabench.errors import UsageError
from personabench.retrieval.bm25 import BM25, top
from personabench.types import Record, moment

Embed = Callable[[Sequence[str]], Awaitable[npt.NDArray[np.float32]]]

SEARCHES: tuple[str, ...] = ("bm25", "dense", "recency", "random", "ranked", "recency+dense")


async def search(
    records: Sequence[Record],
    *,
    query: str,
    document: Callable[[Record], str],
    k: int,
    by: str,
    rng: random.Random,
    embed: Embed,
    ranking: Sequence[str] | None,
    flag: Callable[..., None],
) -> list[Record]:
    """The k records that fit a query, best first; all of them when k is larger, none when k is 0.

    `by` is one of `SEARCHES`:

    - bm25: BM25 Okapi of query and `document(record)`.
    - dense: dot product of their vectors (`embed`: texts to shape (n, d)).
    - recency: newest first; a date is compared as its numbers, so "2013-01-02" is newer than "2013".
    - random: drawn without replacement with `rng`.
    - ranked: in the order of `ranking`, record ids best first.  Ids of no record, repeated ids and records without a
      rank are left out and counted by `flag` as `ranked_unknown_ids`, `ranked_repeated_ids`, `ranked_missing_ids`.
    - recency+dense: the k // 2 best by dense, then the k // 2 newest; repeats are dropped and the rest filled from
      the dense order.

    Equal scores and equal dates put the later record first.

    Raises:
        UsageError: unknown `by`, negative k, a record without a date under recency, no ranking under ranked.
    """
    if by not in SEARCHES:
        raise UsageError(f"unknown retriever {by!r}; choose one of {', '.join(SEARCHES)}")
    if k < 0:
        raise UsageError(f"k is {k}: the number of records to retrieve must be 0 or more")
    if k == 0 or not records:
        return []
    k = min(k, len(records))
    match by:
        case "bm25":
            positions = top(_index(tuple(map(document, records))).scores(query), k)
        case "dense":
            positions = top(await _similarities(records, query, document, embed), k)
        case "recency":
            positions = _newest(records)[:k]
        case "random":
            positions = rng.sample(range(len(records)), k)
        case "ranked":
            positions = _ranked(records, ranking, flag)[:k]
        case _:
            newest = _newest(records)[: k // 2]
            best = top(await _similarities(records, query, document, embed), len(records))
            positions = list(dict.fromkeys([*best[: k // 2], *newest, *best]))[:k]
    return [records[position] for position in positions]


@lru_cache(maxsize=64)
def _index(documents: tuple[str, ...]) -> BM25:
    return BM25(documents)


async def _similarities(
    records: Sequence[Record], query: str, document: Callable[[Record], str], embed: Embed
) -> npt.NDArray[np.float64]:
    vectors = (await embed([query, *map(document, records)])).astype(np.float64)
    # Not a matrix product: BLAS may add up equal rows in different orders, and equal texts must tie.
    similarities: npt.NDArray[np.float64] = (vectors[1:] * vectors[0]).sum(axis=1)
    return similarities


def _newest(records: Sequence[Record]) -> list[int]:
    dates = []
    for record in records:
        if record.time is None or not re.match(r"[0-9]", record.time):
            what = "no date" if record.time is None else f"the date {record.time!r}"
            raise UsageError(
                f"recency needs dated records, but record {record.id!r} has {what}; "
                "choose another retriever or data with dates (YYYY-MM-DD or a year)"
            )
        dates.append(moment(record.time))
    return sorted(
        range(len(records)), key=lambda position: (dates[position], position), reverse=True
    )


def _ranked(
    records: Sequence[Record], ranking: Sequence[str] | None, flag: Callable[..., None]
) -> list[int]:
    if ranking is None:
        raise UsageError(
            "ranked retrieval has no ranking for this question; name a JSON file that ranks every question "
            '({"question id": ["record id", ...], ...}) with --set ranking=FILE'
        )
    places = {record.id: position for position, record in enumerate(records)}
    distinct = dict.fromkeys(ranking)
    positions = [places[name] for name in distinct if name in places]
    counts = {
        "ranked_unknown_ids": len(distinct) - len(positions),
        "ranked_repeated_ids": len(ranking) - len(distinct),
        "ranked_missing_ids": len(places) - len(positions),
    }
    for name, amount in counts.items():
        if amount:
            flag(name, amount)
    return positions
