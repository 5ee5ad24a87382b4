"""Parsing of PersonaMem replies, types of its questions, and metrics.

The official parser knows the gold letter: a reply is right if either its marked tail or the whole
of it names that letter alone. The strict parser takes one letter from the reply and compares it.
Both are exact rules (arXiv 2504.14225).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from personabench.metrics.metric import Metric, Value
from personabench.models.reply import split_reply

TypeMapping = Literal["raw", "merged", "paper"]
MARK = "<final_answer>"
CLOSING = "</final_answer>"

# The published files name some types differently from the paper.
CANONICAL = {
    "recalling_facts_mentioned_by_the_user": "recall_user_shared_facts",
    "track_full_preference_updates": "track_full_preference_evolution",
    "recalling_the_reasons_behind_previous_updates": "revisit_reasons_behind_preference_updates",
    "generalizing_to_new_scenarios": "generalize_to_new_scenarios",
}
# In the order of the paper.
TYPES = (
    "recall_user_shared_facts",
    "acknowledge_latest_user_preferences",
    "suggest_new_ideas",
    "track_full_preference_evolution",
    "revisit_reasons_behind_preference_updates",
    "provide_preference_aligned_recommendations",
    "generalize_to_new_scenarios",
)
_BRACKETED_LETTER = re.compile(r"\(([a-d])\)")
_BARE_LETTER = re.compile(r"\b([a-d])\b")


class Facts(msgspec.Struct, frozen=True):
    """Facts about a question for scoring only; stored in `Sample.hidden`, out of methods' sight.

    Attributes:
        type: the published label.
        split: the question's file.
        topic, context: the question's topic and conversation.
        blocks, tokens, proportion: its distances to the preference it refers to.
        rights: all letters that count as right.
        order: the original position of each option shown.
    """

    type: str
    split: str
    topic: str
    context: str
    blocks: int
    tokens: int
    proportion: float
    rights: tuple[str, ...]
    order: tuple[int, ...]


def strip_thoughts(output: str) -> str:
    """Remove the model's thoughts from a reply."""
    return split_reply(output).answer


def find_letters(text: str) -> set[str]:
    """Find the letters a to d in round brackets; without any, those that are separate words."""
    lowered = text.lower()
    bracketed = set(_BRACKETED_LETTER.findall(lowered))
    return bracketed or set(_BARE_LETTER.findall(lowered))


def read_letters(output: str) -> tuple[set[str], set[str]]:
    """Return the letters of a reply's tail and of the whole reply."""
    answer = strip_thoughts(output)
    tail = answer.strip()
    if MARK in tail:
        tail = tail.rpartition(MARK)[2].strip()
    if tail.endswith(CLOSING):
        tail = tail.removesuffix(CLOSING).strip()
    return find_letters(tail), find_letters(answer)


def parse_strict(output: str) -> str | None:
    """Return the one letter that a reply names, as `(a)`; None if it names none or several."""
    for letters in read_letters(output):
        if len(letters) == 1:
            (letter,) = letters
            return f"({letter})"
    return None


def classify_reply(output: str) -> str:
    """Return `letter` if a reply names exactly one, `none` if it names none, else `multiple`."""
    tail, whole = read_letters(output)
    if len(tail) == 1 or len(whole) == 1:
        return "letter"
    return "multiple" if tail or whole else "none"


def parse_official(output: str, rights: Iterable[str]) -> str | None:
    """Return the right letter if tail or whole reply name it alone, else the strict reading."""
    readings = read_letters(output)
    for right in rights:
        if {right[1]} in readings:
            return right
    return parse_strict(output)


def map_type(label: str, split: str, mapping: TypeMapping) -> str:
    """Return the type under which a label is counted; an unknown label is a type of its own."""
    if mapping == "raw":
        return label
    # The authors' posted 32k tables count these questions under the other type.
    if mapping == "paper" and split == "32k" and label == "recall_user_shared_facts":
        return "acknowledge_latest_user_preferences"
    return CANONICAL.get(label, label)


def is_known_type(label: str) -> bool:
    """Whether the published files use a label."""
    return label in TYPES or label in CANONICAL


def order_types(labels: Iterable[str]) -> list[str]:
    """Sort distinct labels in the order of the paper, unknown ones last."""

    def sort_key(label: str) -> tuple[int, str]:
        canonical = CANONICAL.get(label, label)
        rank = TYPES.index(canonical) if canonical in TYPES else len(TYPES)
        return rank, label

    return sorted(set(labels), key=sort_key)


def macro_accuracy(values: npt.NDArray[np.float64]) -> float:
    """Return the unweighted mean accuracy over types; rows of `values` are (type index, right)."""
    types, rights = values.T
    # Only types that are present: a bootstrap resample may lack some.
    accuracies = [rights[types == index].mean() for index in np.unique(types)]
    return float(np.mean(accuracies))


def type_accuracy(values: npt.NDArray[np.float64], index: int) -> float:
    """Return the accuracy on one type; NaN without questions of it."""
    rights = values[values[:, 0] == index, 1]
    return float(rights.mean()) if len(rights) else float("nan")


BASIC: tuple[Metric, ...] = (
    Metric("accuracy"),
    Metric("macro", aggregate=macro_accuracy),
)


def make_metrics(types: Sequence[str]) -> tuple[Metric, ...]:
    """Return micro and macro accuracy and the accuracy of each type."""
    per_type = [
        Metric(name, aggregate=partial(type_accuracy, index=index))
        for index, name in enumerate(types)
    ]
    return *BASIC, *per_type


def make_values(right: bool, label: str, types: Sequence[str]) -> Mapping[str, Value]:
    """Return the contribution of one answer to each of those metrics."""
    pair = [float(types.index(label)), float(right)]
    return {
        "accuracy": float(right),
        "macro": pair,
        **dict.fromkeys(types, pair),
    }
