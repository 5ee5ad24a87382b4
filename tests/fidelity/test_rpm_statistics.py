"""RPM's statistics on invented users, restated by plain counting."""

from __future__ import annotations

import random
from typing import Any

import pytest

from personabench.methods.rpm.knowledge import (
    POLARITIES,
    Factor,
    Feature,
    Item,
    Knowledge,
    influence,
    propensity,
)

LABELS = ["comedy", "action", "drama", "classic"]
FACTORS = 5


def invent(rng: random.Random, *, labels: list[str]) -> Knowledge:
    """A user with up to 30 items of up to 6 features; several features share a factor."""
    items = []
    for number in range(rng.randint(1, 30)):
        features = []
        for _ in range(rng.randint(0, 6)):
            judged = rng.random() < 0.9
            influential = judged and rng.random() < 0.6
            features.append(
                Feature(
                    "name",
                    "context",
                    factor=rng.choice([None, *range(FACTORS)]),
                    influential=influential if judged else None,
                    polarity=rng.choice(POLARITIES) if influential else "",
                )
            )
        items.append(Item(str(number), "query", rng.choice(labels), features=features))
    factors = [Factor(f"F{number}", "") for number in range(FACTORS)]
    return Knowledge(closed=True, labels=labels, items=items, factors=factors)


def indicator(item: Item, factor: int) -> int:
    """A(i, m): 1 if any feature of the item is in the factor."""
    return 1 if [one for one in item.features if one.factor == factor] else 0


def restate_propensity(user: Knowledge, factor: int) -> tuple[int, dict[str, float]]:
    support = sum(indicator(item, factor) for item in user.items)
    shares: dict[str, float] = {}
    for label in user.labels:
        count = sum(indicator(item, factor) for item in user.items if item.answer == label)
        if count:
            shares[label] = count / support
    return support, shares


def restate_influence(user: Knowledge, factor: int) -> tuple[int, int, Any]:
    coverage = sum(indicator(item, factor) for item in user.items)
    shaped = 0
    tones = []
    for item in user.items:
        mine = [one for one in item.features if one.factor == factor and one.influential is True]
        shaped += 1 if mine else 0
        tones += [one.polarity for one in mine]
    if not tones:
        return coverage, shaped, None
    shares = [tones.count(tone) / len(tones) for tone in ("positive", "neutral", "negative")]
    return coverage, shaped, shares


@pytest.mark.parametrize("labels", [LABELS, ["1", "2", "3", "4", "5"]], ids=["tags", "scores"])
def test_shares_of_labels(labels: list[str]) -> None:
    rng = random.Random(23)
    for _ in range(150):
        user = invent(rng, labels=labels)
        for factor in range(FACTORS):
            support, shares = restate_propensity(user, factor)
            computed = propensity(user, factor)
            assert computed.support == support
            assert computed.shares == pytest.approx(shares)
            # Best first, ties in the order of the labels.
            order = sorted(shares, key=lambda label: (-shares[label], labels.index(label)))
            assert list(computed.shares) == order
            assert not support or sum(computed.shares.values()) == pytest.approx(1)
            if labels[0] == "1" and support:
                expected = sum(float(label) * share for label, share in shares.items())
                assert computed.mean == pytest.approx(expected)


def test_coverage_influence_and_polarity() -> None:
    rng = random.Random(29)
    for _ in range(150):
        user = invent(rng, labels=LABELS)
        for factor in range(FACTORS):
            coverage, shaped, tones = restate_influence(user, factor)
            computed = influence(user, factor)
            assert (computed.coverage, computed.influence) == (coverage, shaped)
            if tones is None:
                assert computed.polarity is None
            else:
                assert computed.polarity == pytest.approx(tones)
