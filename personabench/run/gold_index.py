"""Texts of gold answers, searched for in other texts by the word triples that they share.

One pass over the golds makes the index, one pass over the records asks it, so that the time grows
with the number of words and not with the number of pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from personabench.retrieval.tokenizers import split_words

MIN_SHARED = 3
"""Fewer shared triples, that is fewer than five words in a row, repeat by chance."""

NEAR = 0.6
"""The share of a gold's triples that a near-duplicate holds: one of ten words may differ."""

# A triple in so many golds is a phrase of the domain; looking all of them up would take the square.
_COMMON = 200
# Shared by the many texts that hold no gold.
_NONE: Mapping[int, float] = {}


def list_shingles(text: str) -> set[int]:
    """Return the hashes of a text's word triples."""
    return set(_hash_triples(text))


def _hash_triples(text: str) -> Iterator[int]:
    words = split_words(text)
    return map(hash, zip(words, words[1:], words[2:], strict=False))


class GoldIndex:
    """Gold texts by their word triples."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._golds: dict[int, list[int]] = {}
        self._matches: dict[int, Mapping[int, float]] = {}

    def add(self, text: str) -> int | None:
        """Add a gold text; return its number, or None if it is too short to be told apart."""
        shingles = list_shingles(text)
        if len(shingles) < MIN_SHARED:
            return None

        number = len(self._sizes)
        self._sizes.append(len(shingles))
        for shingle in shingles:
            holders = self._golds.setdefault(shingle, [])
            if len(holders) < _COMMON:
                holders.append(number)
        return number

    def find(self, text: str) -> Mapping[int, float]:
        """Return the numbers of the golds that a text holds, with the share of each that it holds.

        The share is 1 for a gold that occurs word for word.
        """
        # Questions of one user mostly show the same records.
        key = hash(text)
        if key not in self._matches:
            self._matches[key] = self._search(text) or _NONE
        return self._matches[key]

    def _search(self, text: str) -> Mapping[int, float]:
        # Most texts have no triple of any gold.
        if self._golds.keys().isdisjoint(_hash_triples(text)):
            return _NONE
        shared: Counter[int] = Counter()
        for shingle in self._golds.keys() & list_shingles(text):
            shared.update(self._golds[shingle])
        shares = {number: count / self._sizes[number] for number, count in shared.items()}
        return {
            number: share
            for number, share in shares.items()
            if share >= NEAR and shared[number] >= MIN_SHARED
        }
