"""Answers from a fixed list of labels: finding one in free text, and macro-F1 over the whole list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt


@lru_cache(maxsize=64)
def _pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted((label.casefold() for label in labels), key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])")


def find_label(text: str, labels: Sequence[str]) -> str | None:
    """The only label that a text names as whole words, in any case; None when it names none or several.

    Longer labels win over labels inside them: "dark comedy" does not name "comedy".
    """
    names = {label.casefold(): label for label in labels}
    found = {names[match] for match in _pattern(tuple(labels)).findall(text.casefold())}
    return found.pop() if len(found) == 1 else None


def label_pair(parsed: str | None, gold: str, labels: Sequence[str]) -> list[float]:
    """[gold index, predicted index], the latter -1 for no or an unknown label: what macro-F1 needs of a sample."""
    return [float(labels.index(gold)), float(labels.index(parsed)) if parsed in labels else -1.0]


def macro_f1(pairs: npt.NDArray[np.float64], labels: int) -> float:
    """Macro-F1 over a full list of `labels` labels; labels that occur nowhere contribute 0.

    `pairs` has the shape (n, 2): gold and predicted index per sample, -1 for an unknown prediction.
    """
    gold, predicted = pairs.astype(np.int64).T
    hits = np.bincount(gold[gold == predicted], minlength=labels)
    total = np.bincount(gold, minlength=labels) + np.bincount(
        predicted[predicted >= 0], minlength=labels
    )
    return float(np.mean(2 * hits / np.maximum(total, 1)))
