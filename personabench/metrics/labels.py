"""Answers from a fixed list of labels: find one in free text, and macro-F1 over the whole list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from personabench.metrics.metric import Floats


@lru_cache(maxsize=64)
def _compile_pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    # The first alternative that matches wins, so "dark comedy" has to precede "comedy".
    folded = [label.casefold() for label in labels]
    longest_first = sorted(folded, key=len, reverse=True)
    alternatives = "|".join(map(re.escape, longest_first))
    return re.compile(rf"(?<![\w-])(?:{alternatives})(?![\w-])")


def find_label(
    text: str,
    labels: Sequence[str],
) -> str | None:
    """Find the only label that a text contains as whole words, in any case.

    None if the text contains none or several.  Longer labels win over labels inside them: "dark
    comedy" does not count as "comedy".
    """
    by_folded = {label.casefold(): label for label in labels}
    pattern = _compile_pattern(tuple(labels))
    matches = pattern.findall(text.casefold())
    found_labels = {by_folded[match] for match in matches}
    return found_labels.pop() if len(found_labels) == 1 else None


def label_pair(
    parsed: str | None,
    gold: str,
    labels: Sequence[str],
) -> list[float]:
    """Encode a sample for macro-F1: [gold index, predicted index].

    The latter is -1 if there is no prediction or it is not a label.
    """
    predicted = labels.index(parsed) if parsed in labels else -1
    return [float(labels.index(gold)), float(predicted)]


def macro_f1(
    pairs: Floats,
    labels: int,
) -> float:
    """Macro-F1 over a full list of `labels` labels; labels that never occur contribute 0.

    `pairs` has the shape (n, 2): gold and predicted index per sample, -1 for an unknown prediction.
    """
    # Imported late: the command line loads tasks without computing anything.
    import numpy as np

    gold, predicted = pairs.astype(np.int64).T
    hits = np.bincount(gold[gold == predicted], minlength=labels)
    gold_counts = np.bincount(gold, minlength=labels)
    predicted_counts = np.bincount(predicted[predicted >= 0], minlength=labels)

    # F1 is 2 hits / (gold + predicted); a label in neither has no hits, so 1 is a safe divisor.
    totals = np.maximum(gold_counts + predicted_counts, 1)
    return float(np.mean(2 * hits / totals))
