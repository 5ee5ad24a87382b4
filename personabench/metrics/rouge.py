"""ROUGE's F-measures, the same to the last digit as those of the `rouge_score` package.

The package fills a table for the longest common subsequence, which takes a second for two texts of
a thousand words; here one integer holds a row of it.  Only the union of subsequences of ROUGE-Lsum
is left to the package, without the toolkit that it imports: all of NLTK, which takes longer than
many a run, for stemming and for splitting sentences.  No scorer here does either.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from personabench.metrics.preload import IMPORTING

IMPORTS = ("absl.logging",)
"""What `rouge_score` imports beside the toolkit."""
_UNUSED = ("nltk", "nltk.stem", "nltk.stem.porter")
_MODULE = "rouge_score.rouge_scorer"
_SUMMARY = "rougeLsum"
_WORD = re.compile("[a-z0-9]+")


class Tokenizer(Protocol):
    """Splits texts, as the package's tokenizers do."""

    def tokenize(self, text: str) -> list[str]:
        """Split a text into tokens."""


class LatinTokens:
    """The tokenizer of the official scores: lower case, every run outside a-z and 0-9 separates."""

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words."""
        return _WORD.findall(text.lower())


class RougeScore(NamedTuple):
    """The value of one type for a pair of texts, 0 to 1."""

    fmeasure: float


class RougeScorer:
    """Scores pairs of texts by several types of ROUGE.

    Args:
        types: as `rouge_score` names them: "rouge1" to "rouge9", "rougeL" and "rougeLsum".
    """

    def __init__(self, types: Sequence[str], tokenizer: Tokenizer) -> None:
        self._types = types
        self._tokenizer = tokenizer
        self._package: Any = None
        if _SUMMARY in types:
            # Named, because a scorer that chooses its tokenizer logs that, which makes the root
            # logger print the tracebacks of failed samples to the terminal.
            self._package = _load().RougeScorer([_SUMMARY], tokenizer=tokenizer)

    def score(self, target: str, prediction: str) -> dict[str, RougeScore]:
        """Score a prediction against its reference; 0 if either has no tokens."""
        wanted = self._tokenizer.tokenize(target)
        given = self._tokenizer.tokenize(prediction)
        scores = {}
        for name in self._types:
            if name == _SUMMARY:
                value = self._package.score(target, prediction)[name].fmeasure
            elif name == "rougeL":
                value = _f_measure(_count_common(wanted, given), len(wanted), len(given))
            else:
                value = _score_grams(wanted, given, int(name.removeprefix("rouge")))
            scores[name] = RougeScore(value)
        return scores


def create_scorer(types: Sequence[str], tokenizer: Tokenizer | None = None) -> RougeScorer:
    """Create a scorer without stemming.

    Args:
        tokenizer: None for the tokenizer of the official scores.
    """
    return RougeScorer(tuple(types), tokenizer or LatinTokens())


def _score_grams(target: Sequence[str], prediction: Sequence[str], width: int) -> float:
    """The F-measure of the sequences of `width` tokens that two texts share."""
    wanted, given = _list_grams(target, width), _list_grams(prediction, width)
    shared = (Counter(wanted) & Counter(given)).total()
    return _f_measure(shared, len(wanted), len(given))


def _list_grams(tokens: Sequence[str], width: int) -> Sequence[Any]:
    if width == 1:
        return tokens
    return list(zip(*(tokens[start:] for start in range(width)), strict=False))


def _f_measure(shared: int, target: int, prediction: int) -> float:
    """The harmonic mean of precision and recall, in the order of the package's operations."""
    if not shared:
        return 0.0
    precision, recall = shared / prediction, shared / target
    return 2 * precision * recall / (precision + recall)


def _count_common(target: Sequence[str], prediction: Sequence[str]) -> int:
    """The length of the longest common subsequence of two texts.

    Bits that are zero in `row` are the steps of a row of the table.  Source: Hyyrö, "Bit-Parallel
    LCS-length Computation Revisited", 2004.
    """
    places: dict[str, int] = {}
    for index, token in enumerate(target):
        places[token] = places.get(token, 0) | 1 << index
    full = (1 << len(target)) - 1
    row = full
    for token in prediction:
        matches = row & places.get(token, 0)
        if matches:
            row = (row + matches | row - matches) & full
    return len(target) - row.bit_count()


@lru_cache(maxsize=1)
def _load() -> Any:
    """Import the package's module for the scorers here; other code imports its own copy."""
    with IMPORTING:
        return _import_without_toolkit()


def _import_without_toolkit() -> Any:
    names = [name for name in sys.modules if name.split(".")[0] in ("nltk", "rouge_score")]
    if "nltk" in names:
        return importlib.import_module(_MODULE)

    saved = {name: sys.modules.pop(name) for name in names}
    try:
        for name in _UNUSED:
            sys.modules[name] = ModuleType(name)
        sys.modules["nltk.stem"].__dict__["porter"] = sys.modules["nltk.stem.porter"]
        return importlib.import_module(_MODULE)
    finally:
        # The modules that saw placeholders must not reach code that does stem.
        for name in list(sys.modules):
            if name in _UNUSED or name.split(".")[0] == "rouge_score":
                del sys.modules[name]
        sys.modules.update(saved)
