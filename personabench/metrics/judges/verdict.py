"""What a judge said of two answers to one question, as it is written down.

A vote is one reply that could be read.  Votes are kept by the order in which the answers were shown, mapped back to the
same labels, so that everything else (verdict, conflict, spread) is a pure function of the line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from personabench.types import Call

Pick = Literal["a", "b", "tie"]
PICKS: tuple[Pick, ...] = ("a", "b", "tie")
_LEVEL = 1e-9


class Vote(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reply: which answer is better, with the scores of a and b or the judge's certainty where it gave them."""

    pick: Pick
    scores: tuple[float, float] | None = None
    certainty: int | None = None


class Verdict(msgspec.Struct, frozen=True):
    """A judge's votes on answers a and b of one item.

    `orders` holds the votes with a shown first and those with b shown first; with `both` the item was asked in both
    orders and counts as judged only when each has a vote.  `asked` counts replies, those that could not be read too.
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
        """Whether there is a vote in every order that was asked."""
        return bool(self.orders[0] and self.orders[1]) if self.both else bool(self.votes)

    @property
    def pick(self) -> Pick | None:
        """The verdict: the sign of the mean over orders of their mean lead; None where the item is unjudged."""
        return (
            _side(_mean([_lead(votes) for votes in self.orders if votes])) if self.judged else None
        )

    @property
    def scores(self) -> tuple[float, float] | None:
        """Calibrated scores of a and b: the mean over orders of each order's mean."""
        means = [_scores(votes) for votes in self.orders if votes]
        if not self.judged or any(each is None for each in means):
            return None
        a, b = zip(*(each for each in means if each), strict=True)
        return _mean(a), _mean(b)

    @property
    def conflict(self) -> bool | None:
        """Whether the two orders alone give different verdicts; None where one of them gave none."""
        if not (self.orders[0] and self.orders[1]):
            return None
        return _side(_lead(self.orders[0])) != _side(_lead(self.orders[1]))

    @property
    def shares(self) -> dict[Pick, float]:
        """The share of votes for each outcome, averaged over the orders that have votes."""
        asked = [votes for votes in self.orders if votes]
        return {
            pick: _mean([sum(v.pick == pick for v in votes) / len(votes) for votes in asked])
            for pick in PICKS
        }

    @property
    def entropy(self) -> float:
        """FairEval's balanced position diversity entropy of the votes, in nats: 0 to ln 3."""
        return -sum(share * math.log(share) for share in self.shares.values() if share > 0) or 0.0

    @property
    def flips(self) -> tuple[int, int]:
        """Of the pairs of samples in the same order, how many disagree, and how many there are."""
        pairs = [
            (x.pick, y.pick)
            for votes in self.orders
            for at, x in enumerate(votes)
            for y in votes[at + 1 :]
        ]
        return sum(x != y for x, y in pairs), len(pairs)

    @property
    def firsts(self) -> tuple[int, int]:
        """Of the votes that prefer an answer, how many prefer the one that was shown first, and how many there are."""
        chosen = [
            (vote.pick, first)
            for first, votes in zip("ab", self.orders, strict=True)
            for vote in votes
        ]
        decided = [pick == first for pick, first in chosen if pick != "tie"]
        return sum(decided), len(decided)

    @property
    def certainty(self) -> int | None:
        """The certainty of the only vote; None where it gave none or there are several."""
        return self.votes[0].certainty if len(self.votes) == 1 else None


def _lead(votes: Sequence[Vote]) -> float:
    """By how much a is ahead: in scores where there are, else in votes."""
    worth = {"a": 1.0, "b": -1.0, "tie": 0.0}
    return _mean(
        [vote.scores[0] - vote.scores[1] if vote.scores else worth[vote.pick] for vote in votes]
    )


def _scores(votes: Sequence[Vote]) -> tuple[float, float] | None:
    given = [vote.scores for vote in votes if vote.scores]
    return (_mean([a for a, _ in given]), _mean([b for _, b in given])) if given else None


def _side(lead: float) -> Pick:
    return "tie" if abs(lead) < _LEVEL else "a" if lead > 0 else "b"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
