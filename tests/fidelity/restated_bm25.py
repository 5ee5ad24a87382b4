"""BM25 Okapi and its order of results, restated from the page for the fidelity tests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def score(documents: Sequence[str], query: str) -> list[float]:
    """Scores with k1 1.5, b .75, epsilon .25; tokens between white space, case kept."""
    bags = [Counter(document.split()) for document in documents]
    average = sum(sum(bag.values()) for bag in bags) / len(bags)
    seen: Counter[str] = Counter()
    for bag in bags:
        seen.update(bag.keys())
    n = len(bags)
    idf = {word: math.log(n - df + 0.5) - math.log(df + 0.5) for word, df in seen.items()}
    floor = 0.25 * sum(idf.values()) / len(idf)

    scores = []
    for bag in bags:
        length = sum(bag.values())
        total = 0.0
        for word in query.split():
            if word not in bag:
                continue
            weight = floor if idf[word] < 0 else idf[word]
            frequency = bag[word]
            saturation = frequency + 1.5 * (1 - 0.75 + 0.75 * length / average)
            total += weight * frequency * 2.5 / saturation
        scores.append(total)
    return scores


def rank(documents: Sequence[str], query: str, k: int) -> list[int]:
    """Indices of the k best, the later of equal ones first."""
    if not documents:
        return []
    # Rounded: two ways to add up the same numbers differ in the last bit, and ties must stay ties.
    scores = [round(value, 9) for value in score(documents, query)]
    return sorted(range(len(documents)), key=lambda index: (-scores[index], -index))[:k]
