"""The ranking of the additive mode: similarity, keywords and entities in one score."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Any

from personabench import Context
from personabench.methods.memory_parts import rank

Cosines = Callable[[str, Sequence[str], Context], Awaitable[list[float]]]

# Parameters of the keyword score by the most lemmas of the query: the middle, and the slope.
_KEYWORD_SCALE = ((3, 5.0, 0.7), (6, 7.0, 0.6), (9, 9.0, 0.5), (15, 10.0, 0.5))
_LONGEST_SCALE = (12.0, 0.5)
NO_CANDIDATE = float("-inf")
"""The score of an item that is not to be shown."""
_LEAST_COSINE = 0.1
_LEAST_ENTITY_COSINE = 0.5

# Words with a capital that are no name.
_COMMON = (
    " a an and are at but by did do does for from had has have he her his how i if in is it its my "
    "no not of on or our she so that the their then there they this to was we were what when "
    "where which who why will with yes you your "
)
_NAME = re.compile(r"[A-Z][\w'’-]*(?:\s+[A-Z][\w'’-]*)*")


def find_entities(text: str) -> list[str]:
    """Names in a text: runs of capitalized words without common ones at their ends."""
    names = []
    for run in _NAME.findall(text):
        words = run.split()
        while words and _is_common(words[0]):
            words.pop(0)
        while words and _is_common(words[-1]):
            words.pop()
        if words:
            names.append(" ".join(words))
    return list(dict.fromkeys(names))


def _is_common(word: str) -> bool:
    return f" {word.lower()} " in _COMMON


def score_keywords(bm25: float, lemmas: int) -> float:
    """The keyword score of a BM25 score, for a query of so many lemmas."""
    middle, slope = _LONGEST_SCALE
    for most, scale_middle, scale_slope in _KEYWORD_SCALE:
        if lemmas <= most:
            middle, slope = scale_middle, scale_slope
            break
    return 1 / (1 + math.exp(-slope * (bm25 - middle)))


def combine(
    cosine: float, keywords: float, entities: float, *, has_keywords: bool, has_entities: bool
) -> float:
    """The score of a candidate; the scale depends on the scores that any candidate has."""
    most = 1 + has_keywords + 0.5 * has_entities
    return min(1.0, (cosine + keywords + entities) / most)


async def score_additive(
    query: str,
    items: Sequence[Mapping[str, Any]],
    cosines: Sequence[float],
    k: int,
    ctx: Context,
    compute_cosines: Cosines,
) -> list[float]:
    """The scores of items, minus infinity for those that are no candidates."""
    candidates = [
        index for index in rank(cosines, max(4 * k, 60)) if cosines[index] >= _LEAST_COSINE
    ]
    keywords = _score_by_keywords(query, items, candidates)
    entities = await _score_by_entities(query, items, candidates, ctx, compute_cosines)

    scores = [NO_CANDIDATE] * len(items)
    for index in candidates:
        scores[index] = combine(
            cosines[index],
            keywords.get(index, 0.0),
            entities.get(index, 0.0),
            has_keywords=bool(keywords),
            has_entities=bool(entities),
        )
    return scores


def _score_by_keywords(
    query: str, items: Sequence[Mapping[str, Any]], candidates: Sequence[int]
) -> dict[int, float]:
    # Imported on use: a run without a search needs no index.
    from personabench.retrieval.bm25 import BM25

    lemmas = _lemmatize(query)
    index = BM25([" ".join(_lemmatize(item["text"])) for item in items])
    scores = index.scores(" ".join(lemmas))
    return {
        position: score_keywords(float(scores[position]), len(lemmas))
        for position in candidates
        if scores[position] > 0
    }


async def _score_by_entities(
    query: str,
    items: Sequence[Mapping[str, Any]],
    candidates: Sequence[int],
    ctx: Context,
    compute_cosines: Cosines,
) -> dict[int, float]:
    """The best boost that an entity of the query gives each candidate."""
    holders = Counter(name for item in items for name in set(item.get("entities", ())))
    names = sorted(holders)
    boosts: dict[int, float] = {}
    for entity in find_entities(query):
        similarities = dict(zip(names, await compute_cosines(entity, names, ctx), strict=True))
        for index in candidates:
            for name in items[index].get("entities", ()):
                if similarities[name] >= _LEAST_ENTITY_COSINE:
                    boost = boost_entity(similarities[name], holders[name])
                    boosts[index] = max(boosts.get(index, 0.0), boost)
    return boosts


def boost_entity(similarity: float, holders: int) -> float:
    """The boost of an entity, less for one that many items hold."""
    return 0.5 * similarity / (1 + 0.001 * (holders - 1) ** 2)


def _lemmatize(text: str) -> list[str]:
    return [_stem(word) for word in re.findall(r"\w+", text.lower())]


@cache
def _stemmer() -> Any:
    # Imported on use, since it takes time that most runs need not spend.
    from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]

    return PorterStemmer()


@cache
def _stem(word: str) -> str:
    stemmed: str = _stemmer().stem(word)
    return stemmed
