"""How PersonaMem replies are read, which types its questions have, and what the numbers are.

The official reading knows the gold letter: a reply is right when either its marked tail or the whole of it names that
letter alone.  The strict one takes one letter from the reply and compares.  Both are exact rules (arXiv 2504.14225).
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
from personabench.models.reply import split

TypeMapping = Literal["raw", "merged", "paper"]
MARK = "<final_answer>"
CLOSING = "</final_answer>"

CANONICAL = {
    "recalling_facts_mentioned_by_the_user": "recall_user_shared_facts",
    "track_full_preference_updates": "track_full_preference_evolution",
    "recalling_the_reasons_behind_previous_updates": "revisit_reasons_behind_preference_updates",
    "generalizing_to_new_scenarios": "generalize_to_new_scenarios",
}
TYPES = (
    "recall_user_shared_facts",
    "acknowledge_latest_user_preferences",
    "suggest_new_ideas",
    "track_full_preference_evolution",
    "revisit_reasons_behind_preference_updates",
    "provide_preference_aligned_recommendations",
    "generalize_to_new_scenarios",
)


class Facts(msgspec.Struct, frozen=True):
    """What only scoring may know of a question beside its gold letter; travels where views cannot look.

    `type` is the published label, `split` its file; `rights` are all letters that count as right; `order` the
    original position of each option shown.
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


def reply_of(output: str) -> str:
    """A reply without the model's thoughts."""
    return split(output).answer


def letters(text: str) -> set[str]:
    """The letters a to d in round brackets; where there are none, those that stand alone between word boundaries."""
    low = text.lower()
    return set(re.findall(r"\(([a-d])\)", low)) or set(re.findall(r"\b([a-d])\b", low))


def read(output: str) -> tuple[set[str], set[str]]:
    """The letters of a reply's tail and of the whole of it."""
    full = reply_of(output)
    tail = full.strip()
    if MARK in tail:
        tail = tail.rpartition(MARK)[2].strip()
    if tail.endswith(CLOSING):
        tail = tail.removesuffix(CLOSING).strip()
    return letters(tail), letters(full)


def reported(output: str) -> str | None:
    """The one letter a reply reports, as `(a)`; None where it reports none or several."""
    found = next((each for each in read(output) if len(each) == 1), None)
    return f"({next(iter(found))})" if found else None


def status(output: str) -> str:
    """`letter` for a reply that reports one, `none` for one without letters, `multiple` for the others."""
    tail, full = read(output)
    if 1 in (len(tail), len(full)):
        return "letter"
    return "multiple" if tail or full else "none"


def official(output: str, rights: Iterable[str]) -> str | None:
    """The right letter where tail or whole name it alone, else the reported one."""
    found = read(output)
    return next((letter for letter in rights if {letter[1]} in found), None) or reported(output)


def bucket(label: str, split: str, mapping: TypeMapping) -> str:
    """The type under which a label is counted; an unknown label is its own."""
    if mapping == "raw":
        return label
    if mapping == "paper" and split == "32k" and label == "recall_user_shared_facts":
        return "acknowledge_latest_user_preferences"
    return CANONICAL.get(label, label)


def known(label: str) -> bool:
    """Whether a label is one that the published files use."""
    return label in TYPES or label in CANONICAL


def ordered_types(labels: Iterable[str]) -> list[str]:
    """The types present, in the order of the paper, unknown ones last."""

    def place(label: str) -> tuple[int, str]:
        name = CANONICAL.get(label, label)
        return TYPES.index(name) if name in TYPES else len(TYPES), label

    return sorted(set(labels), key=place)


def macro(values: npt.NDArray[np.float64]) -> float:
    """The plain mean over the types present of the share of right answers; rows are (number of type, right)."""
    types, rights = values.T
    return float(np.mean([rights[types == each].mean() for each in np.unique(types)]))


def of_type(values: npt.NDArray[np.float64], number: int) -> float:
    """The share of right answers of one type; not a number without any."""
    rights = values[values[:, 0] == number, 1]
    return float(rights.mean()) if len(rights) else float("nan")


BASIC: tuple[Metric, ...] = Metric("accuracy"), Metric("macro", aggregate=macro)


def metrics(types: Sequence[str]) -> tuple[Metric, ...]:
    """Micro and macro accuracy and the accuracy of each type, so that no aggregate stands alone."""
    return *BASIC, *(
        Metric(name, aggregate=partial(of_type, number=at)) for at, name in enumerate(types)
    )


def values(right: bool, label: str, types: Sequence[str]) -> Mapping[str, Value]:
    """What one answer contributes to each of those metrics."""
    pair = [float(types.index(label)), float(right)]
    return {"accuracy": float(right), "macro": pair, **dict.fromkeys(types, pair)}
