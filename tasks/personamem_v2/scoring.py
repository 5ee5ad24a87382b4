"""Reading of PersonaMem-v2's letters, the metrics of its subsets, and the marks of distractors.

A distractor that repeats the preference of before a change, or the fact that the user asked to
forget, tells a stale memory from a wrong one.  The data do not mark them, so they are found by
shared words: a heuristic.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from personabench.metrics.metric import Metric, Value
from personabench.models.reply import split_reply
from personabench.tasks.personamem_v2.files import FORGET, OTHERS, TYPES
from personabench.types import normalized

LETTERS = "ABCD"
CONTAINED = 0.6
"""The share of a fact's content words that a distractor must hold to count as repeating it."""

# Shorter words are mostly function words, as are these.
_CONTENT_WORD = 4
_FUNCTION_WORDS = {
    "about",
    "also",
    "been",
    "does",
    "from",
    "have",
    "into",
    "likes",
    "more",
    "than",
    "that",
    "their",
    "them",
    "then",
    "they",
    "this",
    "very",
    "what",
    "when",
    "where",
    "which",
    "while",
    "will",
    "with",
    "would",
    "your",
}
_MARK = re.compile(r"final answer", re.IGNORECASE)
_AFTER_MARK = re.compile(
    r"[\W_]{0,12}(?:is[\W_]{1,12})?(?:\\?boxed\W{1,4})?(?:option\W{1,4})?([a-d])(?![\w'])",
    re.IGNORECASE,
)
_ALTERNATIVE = re.compile(r"\W{0,6}(?:or|and|/|,)\W{0,6}([a-d])(?![\w'])", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\W{1,4}(?:text\W{1,4})?([a-d])(?![\w'])", re.IGNORECASE)


def read_letter(output: str) -> str | None:
    """Read the letter of a reply that marks it: after the last "Final Answer", else in a box.

    Thoughts are removed first.  None without a marked letter, and empty for two different ones.
    """
    answer = split_reply(output).answer
    marks = list(_MARK.finditer(answer))
    if marks:
        stated = _AFTER_MARK.match(answer, marks[-1].end())
        if stated:
            letter = stated[1].upper()
            other = _ALTERNATIVE.match(answer, stated.end())
            return "" if other and other[1].upper() != letter else letter
    boxed = {letter.upper() for letter in _BOXED.findall(answer)}
    if boxed:
        return boxed.pop() if len(boxed) == 1 else ""
    return None


def repeats(text: str, fact: str) -> bool:
    """Whether a text holds most content words of a fact; False for a fact without any."""
    words = _content_words(fact)
    if not words:
        return False
    shared = words & _content_words(text)
    return len(shared) / len(words) >= CONTAINED


def _content_words(text: str) -> set[str]:
    words = {word for word in normalized(text).split() if len(word) >= _CONTENT_WORD}
    return words - _FUNCTION_WORDS


# Metrics -----------------------------------------------------------------------------------------


def _mean_of_members(values: npt.NDArray[np.float64]) -> float:
    """Mean over the samples of a subset; rows of `values` are (whether it belongs, score)."""
    scores = values[values[:, 0] == 1, 1]
    return float(scores.mean()) if len(scores) else float("nan")


def _count_members(values: npt.NDArray[np.float64]) -> int:
    return int((values[:, 0] == 1).sum())


def _mean_of_types(values: npt.NDArray[np.float64]) -> float:
    """Mean over types of the mean score; rows of `values` are (type, score)."""
    types = np.unique(values[:, 0])
    return float(np.mean([values[values[:, 0] == index, 1].mean() for index in types]))


def _make_subset(name: str) -> Metric:
    return Metric(name, aggregate=_mean_of_members, size=_count_members)


def _make_error(name: str) -> Metric:
    return dataclasses.replace(_make_subset(name), higher_is_better=False)


UNPLACED = "unplaced"
_ERRORS = ("leak-rate", "stale-rate")


class Subsets:
    """The subsets of a table's questions, and the metrics on them.

    Args:
        types, scenarios: labels of the opened data; those that are not published come last.
        primary: the name of the metric over all questions.
    """

    def __init__(
        self,
        types: Iterable[str],
        scenarios: Iterable[str],
        primary: str = "accuracy",
        errors: Sequence[str] = _ERRORS,
    ) -> None:
        labels = set(types)
        unknown = sorted(labels.difference(TYPES))
        self.types = [*TYPES, *unknown]
        self.primary = primary
        self._errors = tuple(errors)
        groups = [label for label in self.types if label != FORGET]
        groups += ["self", OTHERS, "updated", UNPLACED]
        groups += [f"in-{scenario}" for scenario in sorted(set(scenarios)) if scenario]
        self._groups = groups

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics, the primary one first."""
        return (
            Metric(self.primary),
            Metric("macro", aggregate=_mean_of_types),
            _make_subset(f"forget-{self.primary}"),
            *(_make_error(name) for name in self._errors),
            *(_make_subset(f"{self.primary}-{group}") for group in self._groups),
        )

    def measure(self, score: float, facts: Mapping[str, str]) -> dict[str, Value]:
        """A sample's values of all metrics but the errors.

        Args:
            facts: `type`, `who`, `updated`, `scenario` and `distance` of the sample.
        """
        memberships = {
            facts["type"],
            facts["who"],
            f"in-{facts['scenario']}",
            *(["updated"] if facts["updated"] == "True" else []),
            *([UNPLACED] if facts["distance"] == "0" else []),
        }
        labels = self.types
        # A type that the opened data do not have is counted as one of its own.
        index = labels.index(facts["type"]) if facts["type"] in labels else len(labels)
        values: dict[str, Value] = {
            self.primary: score,
            "macro": [float(index), score],
            f"forget-{self.primary}": [float(facts["type"] == FORGET), score],
        }
        for group in self._groups:
            values[f"{self.primary}-{group}"] = [float(group in memberships), score]
        return values


def find_metrics(names: Collection[str], primary: str) -> tuple[Metric, ...]:
    """Make the metrics of a run by their names, whatever its data."""
    made = []
    for name in names:
        if name == primary:
            made.append(Metric(name))
        elif name == "macro":
            made.append(Metric(name, aggregate=_mean_of_types))
        elif name in _ERRORS:
            made.append(_make_error(name))
        elif name.startswith((f"{primary}-", "forget-")):
            made.append(_make_subset(name))
    return tuple(made)
