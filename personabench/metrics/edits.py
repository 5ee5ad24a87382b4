"""How much a person changed a text: the edit cost of PRELUDE (arXiv 2404.15269), plain and normalised.

The cost counts NLTK word tokens, so NLTK's sentence data must be there: another tokenizer gives other numbers, which
would be another metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from personabench.metrics.meteor import tokens


class Edit(NamedTuple):
    """What turning a draft into the final text took.

    Attributes:
        cost: tokens inserted, deleted or substituted.
        draft, final: tokens of either text.
    """

    cost: int
    draft: int
    final: int

    @property
    def per_draft_token(self) -> float:
        """Cost over the draft's tokens (arXiv 2601.19055); an empty draft counts as one token."""
        return self.cost / max(self.draft, 1)

    @property
    def per_longer_text(self) -> float:
        """Cost over the longer text's tokens, 0 to 1 (PLUME)."""
        return self.cost / max(self.draft, self.final, 1)


def edited(draft: str, final: str) -> Edit:
    """The edit from a draft to the final text; case counts, the amount of white space does not.

    Raises:
        UsageError: NLTK's sentence data is missing; the message says how to get it.
    """
    one, other = tokens(draft), tokens(final)
    return Edit(distance(one, other), len(one), len(other))


def edit_cost(draft: str, final: str) -> int:
    """Levenshtein distance between two texts' NLTK word tokens, not normalised.

    Raises:
        UsageError: NLTK's sentence data is missing; the message says how to get it.
    """
    return edited(draft, final).cost


def distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Levenshtein distance with unit costs."""
    row = list(range(len(other) + 1))
    for place, token in enumerate(one, 1):
        diagonal, row[0] = row[0], place
        for column, candidate in enumerate(other, 1):
            cost = min(row[column] + 1, row[column - 1] + 1, diagonal + (token != candidate))
            diagonal, row[column] = row[column], cost
    return row[-1]
