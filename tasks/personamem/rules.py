"""Rules that answer PersonaMem without a history: what its options give away by themselves.

Lengths are in code points of the trimmed option text, the first of equal ones is taken.  The rules marked as learned
have seen golds, those of the whole split or of the other personas.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from personabench.tasks.personamem.files import LETTERS, Question

Pick = Callable[[Sequence[int]], int]


def lengths(question: Question) -> list[int]:
    """The lengths of the options, in their published order."""
    return [len(text.strip()) for text in question.texts]


def extreme(question: Question, pick: Pick) -> int:
    """The position of the longest (`max`) or shortest (`min`) option."""
    found = lengths(question)
    return found.index(pick(found))


def majority(golds: Iterable[str]) -> str:
    """The most frequent gold letter, the earlier of equally frequent ones."""
    counts = Counter(golds)
    return min(LETTERS, key=lambda letter: (-counts[letter], letter))


def by_type(questions: Sequence[Question]) -> list[int]:
    """For each question the position of its longest or shortest option, whichever is better for its published type.

    Better on the other personas; longest where both are equal.
    """
    tally: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for question in questions:
        for at, pick in enumerate((max, min)):
            tally[question.type, question.persona][at] += extreme(question, pick) == question.gold
    total: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for (label, _), pair in tally.items():
        total[label][0] += pair[0]
        total[label][1] += pair[1]
    picked = []
    for question in questions:
        own = tally[question.type, question.persona]
        longest, shortest = (total[question.type][at] - own[at] for at in (0, 1))
        picked.append(extreme(question, max if longest >= shortest else min))
    return picked
