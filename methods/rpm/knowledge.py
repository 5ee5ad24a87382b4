"""RPM's knowledge of a user, and the statistics computed from it.

The state of a user is items (a query, its features, the answer, a rationale) and factors;
everything numerical is a pure function of these and is computed when it is shown, never stored.
The units differ on purpose: support, coverage and influence count items, polarity counts features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from personabench import Vocabulary

POLARITIES = ("positive", "neutral", "negative")
# More shares than these are noise in histories of the usual size.
SHOWN_LABELS = 5


class Feature(msgspec.Struct):
    """A feature of a query that may matter for the answer, with the meaning of its name there.

    `factor` is an index into the user's factors, None without one.  `influential` is None if it was
    not judged.
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

    `shown` is the answer as an example shows it, if that is more than the answer.  `position` is
    the message of a preference that later ones may update; `dimensions` are those that the answer
    covers, if the task names them.
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

    `closed`: answers are labels, `labels` in the order of the task.  `adapted`: the pairs differ
        from
    those of the paper.  `seen` is the digest of the history it was made from; `rounds` are the
    pairs of an online task, also those not yet studied, `open` the query of the round that waits
    for the user's edit.
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
    """The distribution of answers over the items of a factor, and the mean of numeric ones."""

    support: int
    shares: dict[str, float]
    mean: float | None


class Influence(NamedTuple):
    """Counts of items that have a factor and that it shaped, and its polarity shares."""

    coverage: int
    influence: int
    polarity: tuple[float, float, float] | None


def feature_text(features: Sequence[Feature]) -> str:
    """The text by which an item is found."""
    return "; ".join(feature.text for feature in features)


def ordered_labels(declared: Sequence[str], answers: Sequence[str]) -> list[str]:
    """The labels a task declares, then others that occur, by size or alphabet."""
    others = set(answers) - set(declared)
    return [*declared, *sorted(others, key=lambda label: (_number(label) or 0.0, label))]


def propensity(knowledge: Knowledge, factor: int, alpha: float = 0.0) -> Propensity:
    """Shares of each label over the items with the factor, best first, ties in label order.

    The shares sum to 1; `alpha` smooths them.
    """
    answers = [item.answer for item in _items_with(knowledge, factor)]
    counts = Counter(answers)
    labels = [label for label in knowledge.labels if counts[label] or alpha]
    total = len(answers) + alpha * len(labels)
    shares: dict[str, float] = {}
    if total:
        shares = {label: (counts[label] + alpha) / total for label in labels}

    values = [value for value in map(_number, answers) if value is not None]
    mean = None
    # A mean over the numbers alone would hide the answers that are none.
    if values and len(values) == len(answers):
        mean = sum(values) / len(values)
    ordered = dict(sorted(shares.items(), key=lambda pair: -pair[1]))
    return Propensity(len(answers), ordered, mean)


def influence(knowledge: Knowledge, factor: int) -> Influence:
    """How often a factor occurs and shapes the answer; unjudged features count as not shaping."""
    items = _items_with(knowledge, factor)
    shaped = 0
    tones: Counter[str] = Counter()
    for item in items:
        polarities = [
            feature.polarity
            for feature in item.features
            if feature.factor == factor and feature.influential
        ]
        shaped += bool(polarities)
        tones.update(polarities)

    total = sum(tones.values())
    if not total:
        return Influence(len(items), shaped, None)
    positive, neutral, negative = (tones[name] / total for name in POLARITIES)
    return Influence(len(items), shaped, (positive, neutral, negative))


def dimension_shares(knowledge: Knowledge, factor: int) -> dict[str, float]:
    """The share of a factor's items whose answer covers a dimension, best first.

    An answer may cover several dimensions, so the shares do not sum to 1.
    """
    items = _items_with(knowledge, factor)
    counts: Counter[str] = Counter()
    for item in items:
        counts.update(set(item.dimensions))
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return {name: count / len(items) for name, count in ordered}


def statistics_line(
    knowledge: Knowledge,
    factor: int,
    words: Vocabulary,
    alpha: float = 0.0,
    labels_shown: int = SHOWN_LABELS,
) -> str:
    """A factor with its numbers, as every prompt shows it; `labels_shown` shares at most."""
    parts = list(_format_numbers(knowledge, factor, words, alpha, labels_shown))
    shares = dimension_shares(knowledge, factor)
    if shares:
        parts.append(_format_shares(shares, labels_shown))
    parts += _format_preferences(_items_with(knowledge, factor))
    return f"{knowledge.factors[factor].name}: {'; '.join(parts)}"


def _items_with(knowledge: Knowledge, factor: int) -> list[Item]:
    return [item for item in knowledge.items if item.has(factor)]


def _format_numbers(
    knowledge: Knowledge,
    factor: int,
    words: Vocabulary,
    alpha: float,
    labels_shown: int,
) -> Iterator[str]:
    if knowledge.closed:
        distribution = propensity(knowledge, factor, alpha)
        yield f"in {_count_records(distribution.support)}"
        yield _format_shares(distribution.shares, labels_shown)
        if distribution.mean is not None:
            yield f"mean {distribution.mean:.2f}"
        return

    coverage, shaped, polarity = influence(knowledge, factor)
    total = len(knowledge.items)
    shaped_share = shaped / coverage if coverage else 0
    yield f"in {coverage} of {_count_records(total)} ({coverage / total:.0%})"
    yield f"shaped the {words.response} in {shaped} of them ({shaped_share:.0%})"
    if polarity is None:
        yield "polarity none"
    else:
        yield f"polarity {_format_shares(dict(zip(POLARITIES, polarity, strict=True)), 3)}"


def _format_preferences(items: Sequence[Item]) -> Iterator[str]:
    """The stated preferences of a factor, the newest first and marked, since it replaces others."""
    positioned = [
        (item.position, index, item.answer)
        for index, item in enumerate(items)
        if item.position is not None
    ]
    for age, (position, _, answer) in enumerate(sorted(positioned, reverse=True)):
        yield f"{'earlier' if age else 'newest'} (message {position}): {answer}"


def _format_shares(shares: dict[str, float], most: int) -> str:
    largest = list(shares.items())[:most]
    return ", ".join(f"{name} {share:.0%}" for name, share in largest)


def _count_records(count: int) -> str:
    return "1 record" if count == 1 else f"{count} records"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
