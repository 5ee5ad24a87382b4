"""Signs that a run measured something else than the method, found before any statistics.

A server that gives everybody one answer, answers that repeat their question, and empty or truncated
answers all have scores, intervals and tests like any others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from itertools import islice

from personabench.types import Sample, normalized

# Fewer answers than this show nothing.
_FEWEST = 5
_FEWEST_LABELS = 10
# Free text whose references differ is expected to differ itself.
_FEW_DISTINCT = 0.2
_MANY_DISTINCT = 0.5
_MOST_ECHOES = 0.2
_MOST_TRUNCATED = 0.5
_MOST_EMPTY = 0.1
# An answer that begins like its question, for so many words, repeats it.
_ECHOED_WORDS = 8


_WORD = re.compile(r"[^\W_]+")


def hash_answer(output: str) -> str:
    """Hash an answer without case, punctuation and white space, to find equal ones."""
    return _hash_words(normalized(output), output)


def _hash_words(words: str, output: str) -> str:
    return hashlib.sha256((words or output).encode()).hexdigest()[:8]


class AnswerWatch:
    """Counts suspicious features of the answers of a run, one after the other."""

    def __init__(self) -> None:
        self._answers: set[str] = set()
        self._references: set[int] = set()
        self._questions: set[int] = set()
        self._answered = 0
        self._referenced = 0
        self._echoes = 0

    def add(self, sample: Sample, output: str) -> str:
        """Add an answer; return its hash."""
        words = normalized(output)
        answer = _hash_words(words, output)
        self._answered += 1
        self._answers.add(answer)
        self._questions.add(hash(sample.input))
        self._echoes += _is_echo(words, sample.input)
        for reference in sample.references[:1]:
            self._referenced += 1
            self._references.add(hash(normalized(reference) or reference))
        return answer

    @property
    def distinct(self) -> int:
        """The number of different answers."""
        return len(self._answers)

    def describe(self, *, truncated: float, empty: float, is_rule: bool) -> list[str]:
        """Describe the suspicious features in clauses; empty without any.

        Args:
            truncated, empty: numbers of such answers.
            is_rule: the method is a rule without a model, which may repeat itself or the question.
        """
        if self._answered < _FEWEST:
            return []
        return list(self._list(truncated, empty, is_rule))

    def _list(self, truncated: float, empty: float, is_rule: bool) -> Iterator[str]:
        count = self._answered
        if not is_rule:
            yield from self._find_repetition()
            if self._echoes > _MOST_ECHOES * count:
                yield f"{self._echoes} of {count} answers begin by repeating their question"
        if truncated > _MOST_TRUNCATED * count:
            yield f"{truncated:g} replies were truncated, for {count} answers"
        if empty > _MOST_EMPTY * count:
            yield f"{empty:g} of {count} answers are empty"

    def _find_repetition(self) -> Iterator[str]:
        count, distinct = self._answered, self.distinct
        if self._referenced and len(self._references) == 1:
            return
        # Questions that users share have an answer each, for a method that sees no history.
        is_by_question = 1 < distinct == len(self._questions)
        is_few = distinct <= _FEW_DISTINCT * count and not is_by_question
        is_varied = len(self._references) >= _MANY_DISTINCT * self._referenced
        if distinct == 1 and (is_varied or count >= _FEWEST_LABELS):
            yield f"one answer for all {count} samples"
        elif is_varied and self._referenced and is_few:
            yield f"{distinct} different answers for {count} samples"


def _is_echo(answer: str, question: str) -> bool:
    """Whether a normalized answer begins like its question."""
    # Only the beginning of a question, which may be long, is read, and of most the first word.
    matches = _WORD.finditer(question.lower())
    beginning = [match[0] for match in islice(matches, 1)]
    if not beginning or not answer.startswith(beginning[0]):
        return False
    beginning += [match[0] for match in islice(matches, _ECHOED_WORDS - 1)]
    return len(beginning) == _ECHOED_WORDS and answer.startswith(" ".join(beginning))
