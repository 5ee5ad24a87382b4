"""What RPM knows of a user, and the numbers that are read off it.

The state of a user is items (a query, its features, the answer, a rationale) and factors; everything numerical is a
pure function of these and is computed where it is shown, never stored.  The units differ on purpose: support, coverage
and influence count items, polarity counts features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from personabench import Vocabulary

POLARITIES = ("positive", "neutral", "negative")
SHOWN_LABELS = 5


class Feature(msgspec.Struct):
    """One thing about a query that may matter for the answer, and what its name means there.

    `factor` is an index into the user's factors, None where it belongs to none.  `influential` is None where nobody
    judged it.
    """

    name: str
    context: str
    factor: int | None = None
    influential: bool | None = None
    polarity: str = ""

    @property
    def text(self) -> str:
        """The feature in one line."""
        return f"{self.name}: {self.context}" if self.context else self.name


class Item(msgspec.Struct):
    """One past query and answer; `id` is the record's.

    `shown` is the answer as an example shows it, where that is more than the answer.  `position` places what may be
    updated later on, `dimensions` names what the answer spoke of, where the task says so.
    """

    id: str
    query: str
    answer: str
    shown: str = ""
    position: int | None = None
    dimensions: list[str] = []
    features: list[Feature] = []
    reasoning: str = ""

    def has(self, factor: int) -> bool:
        """Whether any feature belongs to the factor."""
        return any(feature.factor == factor for feature in self.features)


class Factor(msgspec.Struct):
    """A user-level group of features."""

    name: str
    description: str


class Knowledge(msgspec.Struct):
    """The state of one user.

    `closed`: answers are labels, `labels` in the order of the task.  `adapted`: the pairs are not those of the paper.
    `seen` names the history it was made from; `rounds` are the pairs of an online task, also those not yet studied,
    `open` the query of the round that waits for the user's edit.
    """

    seen: str = ""
    closed: bool = False
    adapted: bool = False
    labels: list[str] = []
    items: list[Item] = []
    factors: list[Factor] = []
    rounds: list[tuple[str, str]] = []
    open: str = ""


class Propensity(NamedTuple):
    """How answers are shared out over the items of one factor; `mean` of labels that are numbers."""

    support: int
    shares: dict[str, float]
    mean: float | None


class Influence(NamedTuple):
    """Items that have a factor, items whose answer it shaped, and the shares of `POLARITIES` among features."""

    coverage: int
    influence: int
    polarity: tuple[float, float, float] | None


def feature_text(features: Sequence[Feature]) -> str:
    """What an item is found by."""
    return "; ".join(feature.text for feature in features)


def ordered_labels(declared: Sequence[str], answers: Sequence[str]) -> list[str]:
    """The labels a task declares, then those that only occur: numbers by size, others by alphabet."""
    found = sorted(set(answers) - set(declared), key=lambda label: (_number(label) or 0.0, label))
    return [*declared, *found]


def propensity(knowledge: Knowledge, factor: int, alpha: float = 0.0) -> Propensity:
    """Shares of each label over the items that have the factor, best first, ties in label order; they sum to 1."""
    answers = [item.answer for item in knowledge.items if item.has(factor)]
    counts = Counter(answers)
    labels = [label for label in knowledge.labels if counts[label] or alpha]
    total = len(answers) + alpha * len(labels)
    shares = {label: (counts[label] + alpha) / total for label in labels} if total else {}
    values = [value for value in map(_number, answers) if value is not None]
    mean = sum(values) / len(values) if values and len(values) == len(answers) else None
    return Propensity(len(answers), dict(sorted(shares.items(), key=lambda pair: -pair[1])), mean)


def influence(knowledge: Knowledge, factor: int) -> Influence:
    """How often a factor is met and how often it shapes the answer; features nobody judged do not count as shaping."""
    having = [item for item in knowledge.items if item.has(factor)]
    shaping = [
        [feature for feature in item.features if feature.factor == factor and feature.influential]
        for item in having
    ]
    tones = Counter(feature.polarity for features in shaping for feature in features)
    total = sum(tones.values())
    positive, neutral, negative = (tones[name] / total if total else 0.0 for name in POLARITIES)
    return Influence(
        len(having), sum(map(bool, shaping)), (positive, neutral, negative) if total else None
    )


def dimension_shares(knowledge: Knowledge, factor: int) -> dict[str, float]:
    """The share of a factor's items whose answer spoke of a dimension, best first; does not sum to 1."""
    having = [item for item in knowledge.items if item.has(factor)]
    counts = Counter(name for item in having for name in dict.fromkeys(item.dimensions))
    return {
        name: count / len(having)
        for name, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    }


def statistics_line(
    knowledge: Knowledge, factor: int, words: Vocabulary, alpha: float = 0.0
) -> str:
    """A factor with its numbers, as every prompt shows it."""
    parts = list(_numbers(knowledge, factor, words, alpha))
    if shares := dimension_shares(knowledge, factor):
        parts.append(_listed(shares))
    parts += _preferences([item for item in knowledge.items if item.has(factor)])
    return f"{knowledge.factors[factor].name}: {'; '.join(parts)}"


def _numbers(knowledge: Knowledge, factor: int, words: Vocabulary, alpha: float) -> Iterator[str]:
    if knowledge.closed:
        told = propensity(knowledge, factor, alpha)
        yield f"in {_records(told.support)}"
        yield _listed(told.shares)
        if told.mean is not None:
            yield f"mean {told.mean:.2f}"
        return
    coverage, shaped, polarity = influence(knowledge, factor)
    total = len(knowledge.items)
    yield f"in {coverage} of {_records(total)} ({coverage / total:.0%})"
    yield f"shaped the {words.response} in {shaped} of them ({shaped / coverage if coverage else 0:.0%})"
    yield f"polarity {'none' if polarity is None else _listed(dict(zip(POLARITIES, polarity, strict=True)))}"


def _preferences(items: Sequence[Item]) -> Iterator[str]:
    placed = [
        (item.position, at, item.answer)
        for at, item in enumerate(items)
        if item.position is not None
    ]
    for age, (position, _, answer) in enumerate(sorted(placed, reverse=True)):
        yield f"{'earlier' if age else 'newest'} (message {position}): {answer}"


def _listed(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:SHOWN_LABELS])


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count} records"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
