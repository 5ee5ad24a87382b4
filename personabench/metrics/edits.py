"""Edit cost of PRELUDE (arXiv 2404.15269), plain and normalised.

The cost counts NLTK word tokens: with another tokenizer the numbers differ, which would make it
another metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from personabench.metrics.meteor import tokenize


class Edit(NamedTuple):
    """The size of an edit from a draft to the final text.

    Attributes:
        cost: tokens inserted, deleted or substituted.
        draft_tokens, final_tokens: length of each text.
    """

    cost: int
    draft_tokens: int
    final_tokens: int

    @property
    def per_draft_token(self) -> float:
        """Cost over the draft's tokens (arXiv 2601.19055); an empty draft counts as one token."""
        return self.cost / max(self.draft_tokens, 1)

    @property
    def per_longer_text(self) -> float:
        """Cost over the longer text's tokens, 0 to 1 (PLUME)."""
        return self.cost / max(self.draft_tokens, self.final_tokens, 1)


def measure_edit(draft: str, final: str) -> Edit:
    """Measure the edit from a draft to the final text.

    Case counts, the amount of white space does not.
    """
    draft_tokens = tokenize(draft)
    final_tokens = tokenize(final)
    return Edit(
        cost=levenshtein(draft_tokens, final_tokens),
        draft_tokens=len(draft_tokens),
        final_tokens=len(final_tokens),
    )


def edit_cost(draft: str, final: str) -> int:
    """Levenshtein distance between two texts' NLTK word tokens, not normalised."""
    return measure_edit(draft, final).cost


def levenshtein(
    source: Sequence[str],
    target: Sequence[str],
) -> int:
    """Levenshtein distance with unit costs."""
    # Imported late, like every library that the command line can do without.
    from rapidfuzz.distance import Levenshtein

    # Numbers are compared as they are, and texts by hashes, which differ between processes.
    numbers: dict[str, int] = {}
    sequences = [
        [numbers.setdefault(token, len(numbers)) for token in side] for side in (source, target)
    ]
    return int(Levenshtein.distance(*sequences))
