"""The F-measures of ROUGE on lists of words, as the `rouge_score` package computes them.

The numbers are the package's to the last digit, in a fraction of its time and without the toolkit
that it imports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise


def rouge_1(answer: Sequence[str], gold: Sequence[str]) -> float:
    """The F-measure of shared words, 0 to 1."""
    return _share_grams(answer, gold)


def rouge_2(answer: Sequence[str], gold: Sequence[str]) -> float:
    """The F-measure of shared pairs of neighbours, 0 to 1."""
    return _share_grams(list(pairwise(answer)), list(pairwise(gold)))


def rouge_l(answer: Sequence[str], gold: Sequence[str]) -> float:
    """The F-measure of the longest common subsequence (Lin, 2004), 0 to 1."""
    return _f_measure(longest_common(answer, gold), len(answer), len(gold))


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence of two lists of words.

    A whole row of the usual table is the bits of one number (Hyyrö, 2004): a bit is 0 where the
    length grows.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(first)) - 1
    row = every
    for word in second:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & every
    return len(first) - row.bit_count()


def _share_grams(answer: Sequence[Hashable], gold: Sequence[Hashable]) -> float:
    # Each counts as often as both have it.
    common = (Counter(answer) & Counter(gold)).total()
    return _f_measure(common, len(answer), len(gold))


def _f_measure(common: int, answer_length: int, gold_length: int) -> float:
    if not common:
        return 0.0
    # In this order, which gives the package's last digit.
    precision = common / answer_length
    recall = common / gold_length
    return 2 * precision * recall / (precision + recall)
