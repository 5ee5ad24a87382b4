"""Rules that answer PersonaMem without a history, from features of the options alone.

Lengths are in code points of the trimmed option text; of equal lengths the first is taken. The
rules marked as learned have seen golds, those of the whole split or of the other personas.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from personabench.tasks.personamem.files import LETTERS, Question

Pick = Callable[[Sequence[int]], int]


@dataclass(slots=True)
class _Hits:
    """Questions that the longest or the shortest option answers correctly."""

    longest: int = 0
    shortest: int = 0


def option_lengths(question: Question) -> list[int]:
    """Return the lengths of the options, in their published order."""
    return [len(text.strip()) for text in question.texts]


def find_extreme(question: Question, pick: Pick) -> int:
    """Return the position of the longest (`max`) or shortest (`min`) option."""
    lengths = option_lengths(question)
    return lengths.index(pick(lengths))


def majority_letter(golds: Iterable[str]) -> str:
    """Return the most frequent gold letter; of equally frequent ones the earliest."""
    counts = Counter(golds)
    return min(LETTERS, key=lambda letter: (-counts[letter], letter))


def pick_by_type(questions: Sequence[Question]) -> list[int]:
    """Pick the longest or shortest option, whichever is better for the question's published type.

    Better on the other personas; the longest if both are equal.
    """
    per_persona: dict[tuple[str, str], _Hits] = defaultdict(_Hits)
    per_type: dict[str, _Hits] = defaultdict(_Hits)
    for question in questions:
        longest_hits = find_extreme(question, max) == question.gold
        shortest_hits = find_extreme(question, min) == question.gold
        persona = per_persona[question.type, question.persona]
        for hits in (persona, per_type[question.type]):
            hits.longest += longest_hits
            hits.shortest += shortest_hits

    positions = []
    for question in questions:
        # The persona's own questions are left out, or the rule would learn from the question it
        # is about to answer.
        total = per_type[question.type]
        persona = per_persona[question.type, question.persona]
        longest = total.longest - persona.longest
        shortest = total.shortest - persona.shortest
        pick = max if longest >= shortest else min
        positions.append(find_extreme(question, pick))
    return positions
