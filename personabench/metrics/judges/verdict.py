"""A judge's verdict on two answers to one question, as stored on disk.

A vote is one parsed reply.  Votes are kept by the order in which the answers were shown, mapped
back to the same labels, so that everything else (verdict, conflict, spread) is a pure function of
the stored line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import msgspec

from personabench.types import Call

Pick = Literal["a", "b", "tie"]
PICKS: tuple[Pick, ...] = ("a", "b", "tie")
# Means of equal scores may differ in their last bits.
_TOLERANCE = 1e-9


class Vote(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reply: the better answer, with the scores of a and b or a certainty if it gave them."""

    pick: Pick
    scores: tuple[float, float] | None = None
    certainty: int | None = None


class Verdict(msgspec.Struct, frozen=True):
    """A judge's votes on answers a and b of one item.

    Attributes:
        orders: the votes with a shown first, and those with b shown first.
        both: the item was shown in both orders and is judged only if each has a vote.
        asked: number of replies requested, unparsed ones included.
    """

    sample_id: str
    user_id: str
    orders: tuple[tuple[Vote, ...], tuple[Vote, ...]]
    both: bool
    asked: int
    calls: tuple[Call, ...] = ()

    @property
    def votes(self) -> tuple[Vote, ...]:
        """The votes of both orders."""
        return self.orders[0] + self.orders[1]

    @property
    def judged(self) -> bool:
        """Whether every order that was requested has a vote."""
        if self.both:
            return all(self.orders)
        return any(self.orders)

    @property
    def pick(self) -> Pick | None:
        """The verdict: the sign of the mean over orders of their mean lead; None if unjudged."""
        if not self.judged:
            return None
        # Orders are averaged first: a lost vote must not let one position weigh more.
        leads = [_mean_lead(votes) for votes in self.orders if votes]
        return _pick_by_lead(_mean(leads))

    @property
    def scores(self) -> tuple[float, float] | None:
        """Calibrated scores of a and b: the mean over orders of each order's mean."""
        if not self.judged:
            return None
        means = []
        for votes in self.orders:
            if not votes:
                continue
            mean = _mean_scores(votes)
            if mean is None:
                return None
            means.append(mean)
        return _mean_pair(means)

    @property
    def conflict(self) -> bool | None:
        """Whether the two orders alone give different verdicts; None if one of them gave none."""
        if not all(self.orders):
            return None
        straight, swapped = map(_mean_lead, self.orders)
        return _pick_by_lead(straight) != _pick_by_lead(swapped)

    @property
    def shares(self) -> dict[Pick, float]:
        """The share of votes for each outcome, averaged over the orders that have votes."""
        orders = [votes for votes in self.orders if votes]
        shares = {}
        for outcome in PICKS:
            order_shares = [_share_of(outcome, votes) for votes in orders]
            shares[outcome] = _mean(order_shares)
        return shares

    @property
    def entropy(self) -> float:
        """FairEval's balanced position diversity entropy of the votes, in nats: 0 to ln 3."""
        terms = [share * math.log(share) for share in self.shares.values() if share > 0]
        # `or` turns -0.0, of unanimous votes, into 0.0.
        return -sum(terms) or 0.0

    @property
    def flip_counts(self) -> tuple[int, int]:
        """Count the pairs of votes in the same order: those that disagree, and all of them."""
        pairs = [pair for votes in self.orders for pair in combinations(votes, 2)]
        disagreeing = sum(vote.pick != later.pick for vote, later in pairs)
        return disagreeing, len(pairs)

    @property
    def first_place_counts(self) -> tuple[int, int]:
        """Count the votes that prefer an answer: those for the one shown first, and all of them."""
        for_first = total = 0
        for first, votes in zip("ab", self.orders, strict=True):
            for vote in votes:
                for_first += vote.pick == first
                total += vote.pick != "tie"
        return for_first, total

    @property
    def certainty(self) -> int | None:
        """The certainty of the only vote; None if it gave none or there are several votes."""
        return self.votes[0].certainty if len(self.votes) == 1 else None


def _mean_lead(votes: Sequence[Vote]) -> float:
    """The mean lead of a over b: in scores if the vote has them, else in votes."""
    value_of = {"a": 1.0, "b": -1.0, "tie": 0.0}
    leads = []
    for vote in votes:
        if vote.scores:
            leads.append(vote.scores[0] - vote.scores[1])
        else:
            leads.append(value_of[vote.pick])
    return _mean(leads)


def _mean_scores(votes: Sequence[Vote]) -> tuple[float, float] | None:
    pairs = [vote.scores for vote in votes if vote.scores]
    return _mean_pair(pairs) if pairs else None


def _mean_pair(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    scores_a = [a for a, _ in pairs]
    scores_b = [b for _, b in pairs]
    return _mean(scores_a), _mean(scores_b)


def _share_of(
    outcome: Pick,
    votes: Sequence[Vote],
) -> float:
    count = sum(vote.pick == outcome for vote in votes)
    return count / len(votes)


def _pick_by_lead(lead: float) -> Pick:
    if abs(lead) < _TOLERANCE:
        return "tie"
    return "a" if lead > 0 else "b"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
