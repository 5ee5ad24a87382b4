"""Select k records of a history for one question, by the rules that all retrievers share.

One function, because the edge cases are the protocol: the order of ties, k = 0, records without
dates.  It knows neither tasks nor models; the `Context` provides texts, vectors and randomness.
"""

from __future__ import annotations

import random
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from personabench.errors import UsageError
from personabench.types import Record, moment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from personabench.retrieval.bm25 import BM25

    Embed = Callable[[Sequence[str]], Awaitable[npt.NDArray[np.float32]]]
    Floats = npt.NDArray[np.float64]

SEARCHES: tuple[str, ...] = (
    "bm25",
    "dense",
    "recency",
    "random",
    "ranked",
    "recency+dense",
    "file-order",
)


async def search(
    records: Sequence[Record],
    *,
    query: str,
    document: Callable[[Record], str],
    k: int,
    by: str,
    tokenizer: str,
    rng: random.Random,
    embed: Embed,
    ranking: Sequence[str] | None,
    flag: Callable[..., None],
) -> list[Record]:
    """Select the k records that fit a query, best first.

    If k is larger than the history all records are returned, if k is 0 none.  `by` is one of
    `SEARCHES`:

    - bm25: BM25 Okapi of query and `document(record)`, both split by `tokenizer`.  If they share
      no token, the order is that of equal scores, and `flag` counts `bm25_no_match`.
    - dense: dot product of their vectors (`embed`: texts to shape (n, d)).
    - recency: newest first; a date is compared as its numbers, so "2013-01-02" is newer than
      "2013".
    - random: drawn without replacement with `rng`.
    - ranked: in the order of `ranking`, record ids best first.  Ids of no record, repeated ids and
      records without a rank are left out and counted by `flag` as `ranked_unknown_ids`,
      `ranked_repeated_ids`, `ranked_missing_ids`.
    - file-order: the last records of the history first, whatever their dates.
    - recency+dense: the k // 2 best by dense, then the k // 2 newest; repeats are dropped and the
      rest filled from the dense order.

    Equal scores and equal dates put the later record first.

    Raises:
        UsageError: unknown `by`, negative k, a record without a date under recency, no ranking
            under ranked, or one that gives a record another text.
    """
    if by not in SEARCHES:
        raise UsageError(f"unknown retriever {by!r}; choose one of {', '.join(SEARCHES)}")
    if k < 0:
        raise UsageError(f"k is {k}: the number of records to retrieve must be 0 or more")
    if k == 0 or not records:
        return []

    # Imported on use: a run without a history to search needs no arrays.
    from personabench.retrieval.bm25 import top

    k = min(k, len(records))
    match by:
        case "bm25":
            documents = tuple(map(document, records))
            index = _indexes.get(documents, tokenizer)
            if not index.has_match(query):
                flag("bm25_no_match")
            indices = top(index.scores(query), k)
        case "dense":
            similarities = await _compute_similarities(records, query, document, embed)
            indices = top(similarities, k)
        case "recency":
            indices = _order_by_date(records)[:k]
        case "random":
            indices = rng.sample(range(len(records)), k)
        case "ranked":
            indices = _order_by_rank(records, ranking, document, flag)[:k]
        case "file-order":
            indices = list(range(len(records) - 1, -1, -1))[:k]
        case _:
            newest = _order_by_date(records)[: k // 2]
            similarities = await _compute_similarities(records, query, document, embed)
            nearest = top(similarities, len(records))
            candidates = [*nearest[: k // 2], *newest, *nearest]
            indices = list(dict.fromkeys(candidates))[:k]
    return [records[index] for index in indices]


class IndexCache:
    """The BM25 indexes that were used last: one, or several of at most `limit` characters in all.

    A user's samples often share their history, and a method may search it several times for each.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._entries: OrderedDict[tuple[str, tuple[str, ...]], tuple[BM25, int]] = OrderedDict()

    def get(self, documents: tuple[str, ...], tokenizer: str) -> BM25:
        """Return the index of documents; it is built if it is not in the cache."""
        key = (tokenizer, documents)
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key][0]

        from personabench.retrieval.bm25 import BM25

        index = BM25(documents, tokenizer=tokenizer)
        size = sum(map(len, documents))
        self._entries[key] = index, size
        self._size += size
        while self._size > self._limit and len(self._entries) > 1:
            _, (_, dropped) = self._entries.popitem(last=False)
            self._size -= dropped
        return index


# An index takes up to six times as much memory as its documents.  Samples of one user follow each
# other, so a few users' indexes are enough.
_indexes = IndexCache(1 << 22)


async def _compute_similarities(
    records: Sequence[Record],
    query: str,
    document: Callable[[Record], str],
    embed: Embed,
) -> Floats:
    documents = map(document, records)
    vectors = await embed([query, *documents])
    exact = vectors.astype("float64")
    # Not a matrix product: BLAS may add up equal rows in different orders, and equal texts must
    # tie.
    similarities: Floats = (exact[1:] * exact[0]).sum(axis=1)
    return similarities


def _order_by_date(records: Sequence[Record]) -> list[int]:
    keys = []
    for index, record in enumerate(records):
        if record.time is None or not re.match(r"[0-9]", record.time):
            date = "no date" if record.time is None else f"the date {record.time!r}"
            raise UsageError(
                f"recency needs dated records, but record {record.id!r} has {date}; "
                "choose another retriever or data with dates (YYYY-MM-DD or a year)"
            )
        keys.append((moment(record.time), index))
    keys.sort(reverse=True)
    return [index for _, index in keys]


def _order_by_rank(
    records: Sequence[Record],
    ranking: Sequence[str] | None,
    document: Callable[[Record], str],
    flag: Callable[..., None],
) -> list[int]:
    if ranking is None:
        raise UsageError(
            "ranked retrieval has no ranking for this question; name a JSON file that ranks every "
            'question ({"question id": ["record id", ...], ...}) with --set ranking=FILE'
        )
    index_of = {record.id: index for index, record in enumerate(records)}
    distinct = dict.fromkeys(ranking)
    for ranked in distinct:
        text = getattr(ranked, "text", None)
        if text is not None and ranked in index_of:
            _check_text(records[index_of[ranked]], text, document)
    indices = [index_of[record_id] for record_id in distinct if record_id in index_of]

    counts = {
        "ranked_unknown_ids": len(distinct) - len(indices),
        "ranked_repeated_ids": len(ranking) - len(distinct),
        "ranked_missing_ids": len(index_of) - len(indices),
    }
    for name, amount in counts.items():
        if amount:
            flag(name, amount)
    return indices


def _check_text(record: Record, text: str, document: Callable[[Record], str]) -> None:
    """Refuse a ranking that attaches the id of a record to another record's text."""
    words = text.split()
    if words not in (record.response.split(), document(record).split()):
        raise UsageError(
            f"the ranking attaches the id {record.id!r} to the text of another record "
            f"({text[:60]!r}); rank again with a ranker that keeps ids and texts together"
        )
