"""Format the verdicts of a judge and the reliability of the judge for the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from personabench.cli.console import screen
from personabench.cli.judge_labels import agreement_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from personabench.leaderboard.pairwise_summary import PairwiseSummary
    from personabench.metrics.judges.reliability import (
        Agreement,
        Rate,
        ReliabilityReport,
        ScoringReport,
    )
    from personabench.metrics.judges.steering import SteeringReport

# The spread of votes if all three outcomes are equally frequent.
_MAX_ENTROPY = math.log(3)


def print_summary(summary: PairwiseSummary) -> None:
    """Print the comparison of two runs by a judge."""
    console = screen()
    for side, run in (("A", summary.a), ("B", summary.b)):
        console.print(f" {side}  {run.label} · {run.model} · {run.run}", markup=False)

    config = summary.config
    protocol = f"{config.votes} replies in each order"
    if config.protocol == "verbal-certainty":
        protocol = "a choice with a certainty"
    labelled = ", human labels replace its verdicts" if summary.hitl else ""
    console.print(f" judge {config.judge['name']}: {protocol}{labelled}", markup=False)

    if summary.n:
        for line in _outcome_lines(summary):
            console.print(f" {line}", markup=False)
    for line in report_lines(summary.reliability):
        console.print(f" {line}", markup=False)
    console.print(f" {summary.file}", markup=False, style="dim", soft_wrap=True)


def _outcome_lines(summary: PairwiseSummary) -> list[str]:
    shares = summary.shares
    outcomes = (
        f"A wins {_percent(shares['a'])}, ties {_percent(shares['tie'])}, "
        f"loses {_percent(shares['b'])} of n={summary.n}, {summary.users} users"
    )
    gain = summary.gain
    interval = f"no interval: {gain.reason}"
    if gain.low is not None:
        interval = f"{gain.low:+.3f} … {gain.high:+.3f}"
    p = "–" if summary.p is None else f"{summary.p:.4f}"
    return [
        outcomes,
        f"wins minus losses {gain.value:+.3f} ({interval}; p {p}, sign-flip over users)",
    ]


def report_lines(report: ReliabilityReport | ScoringReport) -> list[str]:
    """Format a report on a judge as lines, without the parts that were not measured."""
    from personabench.metrics.judges.reliability import ScoringReport

    unjudged = _percent(report.unjudged / report.items if report.items else None)
    items = f"items {report.items}, unjudged {report.unjudged} ({unjudged})"
    usage = (
        f"calls {report.calls:,}, {report.input_tokens:,} tokens in, {report.output_tokens:,} out"
    )
    if isinstance(report, ScoringReport):
        repeated = f"{items}; replies requested again {report.repeated}"
        return [repeated, usage, *agreement_lines(report.agreement, report.labelled)]

    return [
        f"{items}; replies {report.votes}, unparsed {report.unparsed}",
        f"verdicts: a {report.win}, tie {report.tie}, b {report.loss}",
        *_bias_lines(report),
        *_label_lines(report),
        usage,
    ]


def steering_lines(reports: Sequence[SteeringReport]) -> list[str]:
    """Format how far a judge was steered, one line per protocol and one of the attacks."""
    lines = []
    for report in reports:
        unjudged = f"unjudged {report.unjudged}, decided beforehand {report.immovable}"
        lines.append(
            f"steering {report.protocol}: {_percent(report.score)} of {report.attacks} hostile "
            f"answers moved the verdict; {unjudged}"
        )
        if report.by_attack:
            moved = ", ".join(f"{name} {count}" for name, count in report.by_attack.items())
            lines.append(f"  by {moved}")
    return lines


def _bias_lines(report: ReliabilityReport) -> list[str]:
    rates: tuple[tuple[str, Rate, str], ...] = (
        ("conflict", report.conflict, "orders that disagree, of items"),
        ("flip", report.flip, "votes that disagree, of pairs in one order"),
        ("first", report.first, "votes for the answer shown first, of votes for either"),
    )
    lines = [
        f"{name} {_percent(rate.value)} ({meaning}: {rate.n})"
        for name, rate, meaning in rates
        if rate.n
    ]
    if report.entropy is not None:
        lines.append(f"mean spread of votes {report.entropy:.3f} of at most {_MAX_ENTROPY:.3f}")
    return lines


def _label_lines(report: ReliabilityReport) -> list[str]:
    """Format the comparison with human labels."""
    lines = []
    if report.agreement:
        lines.append(_agreement_line(report.agreement, "against human labels"))
    if report.ties:
        lines.append(_agreement_line(report.ties, "on items that are labelled a tie"))
    for level in report.coverage:
        lines.append(
            f"certainty ≥ {level.threshold}: covers {_percent(level.coverage)}, "
            f"accuracy {_percent(level.accuracy)}"
        )
    if report.calibration is not None:
        lines.append(f"expected calibration error {report.calibration:.3f}")
    return lines


def _agreement_line(agreement: Agreement, subject: str) -> str:
    kappa = "undefined" if agreement.kappa is None else f"{agreement.kappa:.3f}"
    return f"accuracy {_percent(agreement.accuracy)} {subject}, kappa {kappa}, n={agreement.n}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
