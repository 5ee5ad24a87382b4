"""Compare judges of the same answers: scores, ranks, agreement, and how vague answers fare.

A judge is a model with a wording.  Judges that differ in either may order methods differently, so a
result that holds under one judge only is a result about that judge.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import msgspec

from personabench.metrics.judges.ask import Judge
from personabench.types import Message, normalized

PASS = 0.5
"""The score from which an answer counts as accepted."""
PEOPLE = "labels"
"""The name of human labels among the judges."""
_VAGUE_TOKENS = 200
_VAGUE = (
    "You write an answer that sounds helpful and commits itself to nothing. It stays on the topic "
    "of the question, names no fact, name, number or date, and would fit many different truths. "
    "Answer in one or two sentences."
)


class Column(msgspec.Struct, frozen=True):
    """One judge: its model, and the wording of its prompt, empty for the only one."""

    judge: str
    prompt: str = ""

    @property
    def label(self) -> str:
        """The judge in a table."""
        return f"{self.judge} ({self.prompt})" if self.prompt else self.judge


class Verdicts(msgspec.Struct, frozen=True):
    """One judge's view of one run.

    Attributes:
        score: the metric over the judged answers; None without any.
        scores: the score of each judged answer, 0 to 1, by sample id.
        unjudged, failed: answers whose judgement could not be read, or was not obtained.
    """

    run: str
    column: Column
    score: float | None
    scores: Mapping[str, float]
    unjudged: int = 0
    failed: int = 0


class Agreement(msgspec.Struct, frozen=True):
    """Agreement of two judges over the answers that both judged.

    Attributes:
        flips: answers that one accepts and the other does not.
        kappa: Cohen's, None if both give all answers the same verdict.
    """

    first: Column
    second: Column
    n: int
    flips: int
    kappa: float | None


class Vague(msgspec.Struct, frozen=True):
    """Vague answers that a judge accepted, out of `n`.

    Attributes:
        missing: answers without a verdict, since a call failed or a reply could not be read.
    """

    column: Column
    passed: int
    n: int
    missing: int = 0


class Cost(msgspec.Struct, frozen=True):
    """Calls and tokens of one judge."""

    column: Column
    calls: int
    input_tokens: int
    output_tokens: int


class Panel(msgspec.Struct, frozen=True):
    """The report: verdicts by run and judge, in the order of runs and judges.

    Attributes:
        vague_shared: vague answers that were left out, since they hold the gold.
        vague_costs: calls for judging vague answers; vague_writing: for writing them.
    """

    metric: str
    higher_is_better: bool
    verdicts: Sequence[Verdicts]
    agreements: Sequence[Agreement]
    costs: Sequence[Cost]
    vague: Sequence[Vague] = ()
    vague_shared: int = 0
    vague_costs: Sequence[Cost] = ()
    vague_writing: Cost | None = None

    def ranks(self) -> Mapping[tuple[str, Column], int]:
        """The rank of each run under each judge, from 1; equal scores share a rank."""
        ranks = {}
        for column in dict.fromkeys(verdict.column for verdict in self.verdicts):
            scored = [verdict for verdict in self.verdicts if verdict.column == column]
            for verdict in scored:
                if verdict.score is None:
                    continue
                better = [
                    other
                    for other in scored
                    if other.score is not None and self._is_better(other.score, verdict.score)
                ]
                ranks[verdict.run, column] = len(better) + 1
        return ranks

    def unstable_runs(self) -> list[str]:
        """The runs whose rank differs between judges."""
        by_run: dict[str, set[int]] = {}
        for (run, _), rank in self.ranks().items():
            by_run.setdefault(run, set()).add(rank)
        return [run for run, ranks in by_run.items() if len(ranks) > 1]

    def _is_better(self, first: float, second: float) -> bool:
        return first > second if self.higher_is_better else first < second


def compare_judges(verdicts: Sequence[Verdicts]) -> list[Agreement]:
    """Compare every two judges over the answers of all runs that both judged."""
    columns = list(dict.fromkeys(verdict.column for verdict in verdicts))
    accepted: dict[Column, dict[tuple[str, str], bool]] = {column: {} for column in columns}
    for verdict in verdicts:
        for sample_id, score in verdict.scores.items():
            accepted[verdict.column][verdict.run, sample_id] = score >= PASS

    agreements = []
    for first, second in itertools.combinations(columns, 2):
        shared = accepted[first].keys() & accepted[second].keys()
        pairs = [(accepted[first][key], accepted[second][key]) for key in shared]
        flips = sum(left != right for left, right in pairs)
        agreements.append(Agreement(first, second, len(pairs), flips, kappa(pairs)))
    return agreements


def kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Cohen's kappa of two binary verdicts; None if chance alone would make them agree."""
    if not pairs:
        return None
    n = len(pairs)
    observed = sum(left == right for left, right in pairs) / n
    first = sum(left for left, _ in pairs) / n
    second = sum(right for _, right in pairs) / n
    expected = first * second + (1 - first) * (1 - second)
    if math.isclose(expected, 1):
        return None
    return (observed - expected) / (1 - expected)


async def write_vague_answer(writer: Judge, question: str, golds: Sequence[str]) -> str:
    """Write an answer that is vague on purpose; empty if it holds a gold after all.

    Raises:
        BackendError: a call failed for good.
    """
    messages = Message("system", _VAGUE), Message("user", f"Question: {question}")
    answer = (await writer.complete(messages, max_tokens=_VAGUE_TOKENS)).strip()
    words = f" {normalized(answer)} "
    is_told = any(f" {normalized(gold)} " in words for gold in golds if normalized(gold))
    return "" if is_told else answer
