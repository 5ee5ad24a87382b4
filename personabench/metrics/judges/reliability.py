"""A judge's report card: what its verdicts say of the judge itself.

Conflicts between orders and the share of first places are biases of position, flips between samples are noise; labels
of people add accuracy and kappa, certainties add calibration.  Rates come with the number they are shares of, and what
was not asked for is None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from personabench.metrics.judges import verbal_certainty
from personabench.metrics.judges.verdict import PICKS, Pick, Verdict
from personabench.types import Judgement


class Rate(msgspec.Struct, frozen=True):
    """A share and what it is a share of; None of nothing."""

    value: float | None
    n: int


class Agreement(msgspec.Struct, frozen=True):
    """Verdicts against labels: accuracy, Cohen's kappa (None where chance alone agrees fully), and how many."""

    accuracy: float
    kappa: float | None
    n: int


class ReliabilityReport(msgspec.Struct, frozen=True):
    """The report card of the judge behind some verdicts.

    Attributes:
        items, unjudged: items put before the judge, and those without a verdict; votes, unread: replies that could be
            read and that could not.
        win, tie, loss: verdicts for a, for neither, for b.
        conflict: items whose two orders disagree; flip: pairs of samples of one order that disagree; first: votes for
            the answer shown first, of those for either; entropy: mean spread of votes in nats, at most ln 3.
        agreement: with labels; ties: the same on the items that are labelled a tie.
        coverage, calibration: of certainties, against labels; calls, input_tokens, output_tokens: what it took.
    """

    items: int
    unjudged: int
    votes: int
    unread: int
    win: int
    tie: int
    loss: int
    conflict: Rate
    flip: Rate
    first: Rate
    entropy: float | None
    agreement: Agreement | None
    ties: Agreement | None
    coverage: tuple[verbal_certainty.Line, ...]
    calibration: float | None
    calls: int
    input_tokens: int
    output_tokens: int


def reliability_report(
    verdicts: Sequence[Verdict], labels: Mapping[str, Pick] | None = None
) -> ReliabilityReport:
    """The report card; `labels` are people's picks by sample id."""
    judged = {verdict.sample_id: verdict for verdict in verdicts if verdict.judged}
    picks = {name: pick for name, verdict in judged.items() if (pick := verdict.pick)}
    counts = Counter(picks.values())
    conflicts = [verdict.conflict for verdict in judged.values() if verdict.conflict is not None]
    known = {name: label for name, label in (labels or {}).items() if name in picks}
    plain = {
        name: label for name, label in known.items() if label != "tie" and picks[name] != "tie"
    }
    told = [(judged[name].certainty, picks[name] == label) for name, label in plain.items()]
    calls = [call for verdict in verdicts for call in verdict.calls]
    single = any(verdict.certainty is not None for verdict in judged.values())
    main = plain if single else known
    return ReliabilityReport(
        items=len(verdicts),
        unjudged=len(verdicts) - len(judged),
        votes=sum(len(verdict.votes) for verdict in verdicts),
        unread=sum(verdict.asked - len(verdict.votes) for verdict in verdicts),
        win=counts["a"],
        tie=counts["tie"],
        loss=counts["b"],
        conflict=_rate([(sum(conflicts), len(conflicts))]),
        flip=_rate([verdict.flips for verdict in judged.values()]),
        first=_rate([verdict.firsts for verdict in judged.values()]),
        entropy=sum(verdict.entropy for verdict in judged.values()) / len(judged)
        if judged
        else None,
        agreement=agreement([(picks[name], label) for name, label in main.items()]),
        ties=agreement([(picks[name], label) for name, label in known.items() if label == "tie"])
        if single
        else None,
        coverage=tuple(verbal_certainty.coverage(told)) if single and told else (),
        calibration=verbal_certainty.calibration_error(told),
        calls=len(calls),
        input_tokens=sum(call.input_tokens for call in calls),
        output_tokens=sum(call.output_tokens for call in calls),
    )


class Scoring(msgspec.Struct, frozen=True):
    """The report card of a judge who scores single answers: unjudged, asked again, and what it cost."""

    items: int
    unjudged: int
    repeated: int
    calls: int
    input_tokens: int
    output_tokens: int


def scoring(judgements: Sequence[Judgement]) -> Scoring:
    """The report card of the judgements of a run, one per answer."""
    calls = [call for judgement in judgements for call in judgement.calls]
    return Scoring(
        items=len(judgements),
        unjudged=sum(judgement.values is None for judgement in judgements),
        repeated=int(sum(judgement.flags.get("judge_retried", 0) for judgement in judgements)),
        calls=len(calls),
        input_tokens=sum(call.input_tokens for call in calls),
        output_tokens=sum(call.output_tokens for call in calls),
    )


def agreement(pairs: Sequence[tuple[Pick, Pick]]) -> Agreement | None:
    """Accuracy and Cohen's kappa of (verdict, label) pairs; None without any."""
    if not pairs:
        return None
    n = len(pairs)
    observed = sum(verdict == label for verdict, label in pairs) / n
    left, right = (Counter(side) for side in zip(*pairs, strict=True))
    chance = sum(left[pick] * right[pick] for pick in PICKS) / n**2
    return Agreement(observed, (observed - chance) / (1 - chance) if chance < 1 else None, n)


def _rate(counts: Sequence[tuple[int, int]]) -> Rate:
    hits, n = (sum(side) for side in zip(*counts, strict=True)) if counts else (0, 0)
    return Rate(hits / n if n else None, n)
