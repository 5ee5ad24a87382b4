"""Reliability of a judge, measured from its own verdicts.

Conflicts between orders and the share of first places are biases of position, flips between votes
are noise; annotators' labels add accuracy and kappa, certainties add calibration.  Rates come with
the number they are shares of, and a rate that does not apply is None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from personabench.metrics.judges.score_agreement import ScoreAgreement, compare_scores
from personabench.metrics.judges.verbal_certainty import (
    CoverageLevel,
    calibration_error,
    coverage_levels,
)
from personabench.metrics.judges.verdict import PICKS, Pick, Verdict
from personabench.types import Judgement


class Rate(msgspec.Struct, frozen=True):
    """A share and the number it is a share of; the share of nothing is None."""

    value: float | None
    n: int


class Agreement(msgspec.Struct, frozen=True):
    """Agreement of `n` verdicts with labels: accuracy and Cohen's kappa.

    Kappa is None if chance alone agrees fully.
    """

    accuracy: float
    kappa: float | None
    n: int


class ReliabilityReport(msgspec.Struct, frozen=True):
    """Reliability of the judge of some verdicts.

    Attributes:
        items, unjudged: items shown to the judge, and those without a verdict.
        votes, unparsed: parsed and unparsed replies.
        win, tie, loss: verdicts for a, for neither, for b.
        conflict: items whose two orders disagree.
        flip: pairs of votes of one order that disagree.
        first: votes for the answer shown first, of those for either.
        entropy: mean spread of votes in nats, at most ln 3.
        agreement: with labels; ties: the same on the items that are labelled a tie.
        coverage, calibration: of certainties, against labels.
        calls, input_tokens, output_tokens: usage.
    """

    items: int
    unjudged: int
    votes: int
    unparsed: int
    win: int
    tie: int
    loss: int
    conflict: Rate
    flip: Rate
    first: Rate
    entropy: float | None
    agreement: Agreement | None
    ties: Agreement | None
    coverage: tuple[CoverageLevel, ...]
    calibration: float | None
    calls: int
    input_tokens: int
    output_tokens: int


class _LabelComparison(msgspec.Struct, frozen=True):
    """The part of a `ReliabilityReport` that needs labels."""

    agreement: Agreement | None
    ties: Agreement | None
    coverage: tuple[CoverageLevel, ...]
    calibration: float | None


def reliability_report(
    verdicts: Sequence[Verdict],
    labels: Mapping[str, Pick] | None = None,
) -> ReliabilityReport:
    """Report on the judge of these verdicts; `labels` are annotators' picks by sample id."""
    judged = {}
    for verdict in verdicts:
        if verdict.judged:
            judged[verdict.sample_id] = verdict
    outcomes = Counter(verdict.pick for verdict in judged.values())
    conflicts = []
    for verdict in judged.values():
        if verdict.conflict is not None:
            conflicts.append(verdict.conflict)
    entropies = [verdict.entropy for verdict in judged.values()]
    votes = sum(len(verdict.votes) for verdict in verdicts)
    calls = [call for verdict in verdicts for call in verdict.calls]
    comparison = _compare_with_labels(judged, labels or {})

    return ReliabilityReport(
        items=len(verdicts),
        unjudged=len(verdicts) - len(judged),
        votes=votes,
        unparsed=sum(verdict.asked for verdict in verdicts) - votes,
        win=outcomes["a"],
        tie=outcomes["tie"],
        loss=outcomes["b"],
        conflict=_pool_rate([(sum(conflicts), len(conflicts))]),
        flip=_pool_rate(verdict.flip_counts for verdict in judged.values()),
        first=_pool_rate(verdict.first_place_counts for verdict in judged.values()),
        entropy=sum(entropies) / len(entropies) if entropies else None,
        agreement=comparison.agreement,
        ties=comparison.ties,
        coverage=comparison.coverage,
        calibration=comparison.calibration,
        calls=len(calls),
        input_tokens=sum(call.input_tokens for call in calls),
        output_tokens=sum(call.output_tokens for call in calls),
    )


def _compare_with_labels(
    judged: Mapping[str, Verdict],
    labels: Mapping[str, Pick],
) -> _LabelComparison:
    pairs = []
    ties = []
    answers = []
    for sample_id, label in labels.items():
        verdict = judged.get(sample_id)
        if verdict is None or verdict.pick is None:
            continue
        # A choice in one order, which can state its certainty, is one between two answers, so ties
        # are reported on their own. Whether it did state it must not decide which items count.
        is_choice = not verdict.both
        if is_choice and label == "tie":
            ties.append((verdict.pick, label))
        if is_choice and "tie" in (label, verdict.pick):
            continue
        pairs.append((verdict.pick, label))
        if is_choice:
            answers.append((verdict.certainty, verdict.pick == label))

    has_certainty = any(certainty is not None for certainty, _ in answers)
    return _LabelComparison(
        agreement=agreement(pairs),
        ties=agreement(ties),
        coverage=tuple(coverage_levels(answers)) if has_certainty else (),
        calibration=calibration_error(answers),
    )


class ScoringReport(msgspec.Struct, frozen=True):
    """Reliability of a judge that scores single answers: unjudged, retried, and its usage.

    Attributes:
        labelled: judged answers with a label.
        agreement: with labels, by criterion.
    """

    items: int
    unjudged: int
    repeated: int
    calls: int
    input_tokens: int
    output_tokens: int
    labelled: int = 0
    agreement: tuple[ScoreAgreement, ...] = ()


def scoring_report(
    judgements: Sequence[Judgement],
    labels: Mapping[str, Mapping[str, float]] | None = None,
) -> ScoringReport:
    """Report on the judge of a run's judgements, one per answer.

    `labels` are a person's scores by sample id and criterion.
    """
    labels = labels or {}
    calls = [call for judgement in judgements for call in judgement.calls]
    retries = sum(judgement.flags.get("judge_retried", 0) for judgement in judgements)
    return ScoringReport(
        items=len(judgements),
        unjudged=sum(judgement.values is None for judgement in judgements),
        repeated=int(retries),
        calls=len(calls),
        input_tokens=sum(call.input_tokens for call in calls),
        output_tokens=sum(call.output_tokens for call in calls),
        labelled=sum(item.sample_id in labels for item in judgements if item.values),
        agreement=tuple(compare_scores(judgements, labels)) if labels else (),
    )


def agreement(pairs: Sequence[tuple[Pick, Pick]]) -> Agreement | None:
    """Accuracy and Cohen's kappa of (verdict, label) pairs; None without any."""
    if not pairs:
        return None
    total = len(pairs)
    matches = sum(pick == label for pick, label in pairs)
    accuracy = matches / total

    picks = Counter(pick for pick, _ in pairs)
    labels = Counter(label for _, label in pairs)
    # Pairs that would agree if picks and labels were independent, times the number of all pairs.
    expected = sum(picks[outcome] * labels[outcome] for outcome in PICKS)
    chance = expected / total**2
    kappa = (accuracy - chance) / (1 - chance) if chance < 1 else None
    return Agreement(accuracy, kappa, total)


def _pool_rate(counts: Iterable[tuple[int, int]]) -> Rate:
    hits = total = 0
    for item_hits, item_total in counts:
        hits += item_hits
        total += item_total
    return Rate(hits / total if total else None, total)
