"""BM25 Okapi over one list of documents, and the order of results for every scored search.

The index is two flat arrays of postings (term by term: document, gain), built in one vectorised
pass, so a user's hundred records cost a few milliseconds and a population's 200,000 fit in memory
at 12 bytes a posting.  A query touches only the postings of its own tokens.  Scores equal those of
`rank_bm25.BM25Okapi` to the last bit: the same formula, and gains added in the order of the query's
tokens.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, count

import numpy as np
import numpy.typing as npt

from personabench.retrieval.tokenizers import get_tokenizer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Postings whose gains are computed at once.
_BLOCK = 1 << 18
# Documents that are split at once.
_DOCUMENTS = 1 << 12


class BM25:
    """BM25 Okapi, called ATIRE BM25 by Trotman et al.

    Source: "Improvements to BM25 and Language Models Examined", 2014.  Stop words are kept.  The
    weight of a token in `df` of `n` documents is ln(n - df + .5) - ln(df + .5); a negative weight
    is replaced by `epsilon` times the mean weight of the vocabulary (the mean before any
    replacement), which may itself be negative.

    Attributes:
        tokenize: the function that splits documents and queries into tokens.
    """

    def __init__(
        self,
        documents: Sequence[str],
        k1: float = 1.5,
        b: float = 0.75,
        epsilon: float = 0.25,
        *,
        tokenizer: str = "whitespace",
    ) -> None:
        self.tokenize = tokenize = get_tokenizer(tokenizer)
        self._n = n = len(documents)
        lengths: list[int] = []

        # A missing key gets the next number, so terms are numbered in order of appearance.
        ids: defaultdict[str, int] = defaultdict(count().__next__)
        blocks: list[npt.NDArray[np.int32]] = []
        for start in range(0, n, _DOCUMENTS):
            split = [tokenize(document) for document in documents[start : start + _DOCUMENTS]]
            lengths += map(len, split)
            stream = map(ids.__getitem__, chain.from_iterable(split))
            blocks.append(np.fromiter(stream, np.int32))
        self._ids: dict[str, int] = ids
        if not sum(lengths):
            return

        # Each large array is freed or narrowed before the next one: of a population they have
        # tens of millions of entries.
        pairs = _pair(blocks, np.array(lengths))
        pairs.sort()
        size = pairs.size
        is_start = np.empty(size, np.bool_)
        is_start[0] = True
        np.not_equal(pairs[1:], pairs[:-1], out=is_start[1:])
        postings = pairs[is_start]
        del pairs
        starts = np.flatnonzero(is_start)
        del is_start
        frequencies = np.empty(starts.size, np.int32)
        np.subtract(starts[1:], starts[:-1], out=frequencies[:-1], casting="unsafe")
        frequencies[-1] = size - starts[-1]
        del starts

        self._documents = (postings % n).astype(np.int32)
        postings //= n
        document_frequencies = np.bincount(postings)
        self._bounds: list[int] = [0, *np.cumsum(document_frequencies).tolist()]

        weights = _compute_weights(document_frequencies, n, epsilon)
        mean_length = sum(lengths) / n
        norms = k1 * (1 - b + b * np.array(lengths) / mean_length)
        self._gains: Floats = np.empty(postings.size)
        for start in range(0, postings.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            counts = frequencies[block]
            saturated = counts * (k1 + 1) / (counts + norms[self._documents[block]])
            self._gains[block] = weights[postings[block]] * saturated

    def __len__(self) -> int:
        return self._n

    def has_match(self, query: str) -> bool:
        """Whether any token of the query occurs in a document."""
        return any(token in self._ids for token in self.tokenize(query))

    def scores(self, query: str) -> Floats:
        """Score every document, shape (n,).

        A token that the query repeats counts again; documents sharing no token with the query score
        0, as do all documents when all are empty.
        """
        terms = [self._ids[token] for token in self.tokenize(query) if token in self._ids]
        if not terms:
            return np.zeros(self._n)

        documents = []
        gains = []
        for term in terms:
            postings = slice(self._bounds[term], self._bounds[term + 1])
            documents.append(self._documents[postings])
            gains.append(self._gains[postings])

        totals = np.bincount(
            np.concatenate(documents),
            np.concatenate(gains),
            minlength=self._n,
        )
        return totals.astype(np.float64, copy=False)


def _pair(blocks: list[npt.NDArray[np.int32]], lengths: Ints) -> Ints:
    """Write every token as one integer, term * n + document; the blocks are used up.

    After sorting, equal neighbours are one posting, and postings of a term are adjacent.

    Args:
        blocks: the terms of the tokens, document by document, of `_DOCUMENTS` documents each.
        lengths: the numbers of tokens of the documents, shape (n,).
    """
    n = len(lengths)
    pairs = np.empty(lengths.sum(), np.int64)
    end = 0
    for start in range(0, n, _DOCUMENTS):
        terms = blocks.pop(0)
        counts = lengths[start : start + _DOCUMENTS]
        block = pairs[end : end + terms.size]
        np.multiply(terms, n, out=block, dtype=np.int64)
        block += np.repeat(np.arange(start, start + len(counts)), counts)
        end += terms.size
    return pairs


def _compute_weights(
    document_frequencies: Ints,
    n: int,
    epsilon: float,
) -> Floats:
    """Weight every term by its document frequency."""
    # `math.log`, since NumPy's logarithm may differ from it in the last bit.  It is called once for
    # each distinct frequency: most terms share one of a few.
    distinct, inverse = np.unique(document_frequencies, return_inverse=True)
    distinct_weights = []
    for df in distinct.tolist():
        distinct_weights.append(math.log(n - df + 0.5) - math.log(df + 0.5))
    weights = np.array(distinct_weights)[inverse]

    # The last cumulative sum adds term by term, as the reference does; `sum` adds in pairs.
    mean = np.cumsum(weights)[-1] / weights.size
    replaced: Floats = np.where(weights < 0, epsilon * mean, weights)
    return replaced


def top(
    scores: npt.NDArray[np.floating],
    k: int,
) -> list[int]:
    """Find the indices of the k highest scores, best first; ties put the later index first.

    `scores` has shape (n,) and no NaN; k beyond n gives all n, k of 0 or less none.
    """
    n = len(scores)
    k = min(k, n)
    if k <= 0:
        return []

    # Most documents share no token with a query, and partitioning many equal scores is slow.
    positive = np.flatnonzero(scores > 0)
    if len(positive) < k:
        positive = np.arange(n)
    values = scores[positive]
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    # Reversed, so that the stable sort leaves the later of equal scores in front.
    candidates = positive[values >= threshold][::-1]
    order = np.argsort(-scores[candidates], kind="stable")[:k]
    indices: list[int] = candidates[order].tolist()
    return indices
