"""Summarise the verdicts of a judge that compared two runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from personabench.leaderboard.estimates import Comparison, Estimate
from personabench.leaderboard.stats import Scores
from personabench.metrics.judges import faireval
from personabench.metrics.judges.ask import check_independence
from personabench.metrics.judges.reliability import ReliabilityReport, reliability_report
from personabench.metrics.judges.verdict import PICKS, Pick
from personabench.run.pairwise_judging import JudgeConfig, JudgingResult


class Side(msgspec.Struct, frozen=True):
    """One of two runs: its label on boards, its model, and the start of its fingerprint."""

    label: str
    model: str
    run: str


class PairwiseSummary(msgspec.Struct, frozen=True):
    """A judge's verdicts on runs a and b.

    Attributes:
        config: everything beside the answers that can change a verdict.
        hitl: labels of human annotators replaced verdicts ("human in the loop").
        n, users: judged samples and their users.
        shares: share of judged samples by outcome; None without any.
        gain: share of wins of a minus that of its losses, with a bootstrap interval over users.
        p: p-value of a sign-flip test over users.
        reliability: biases, noise and usage of the judge.
        failed: number of samples whose calls failed.
        file: the file that stores the verdicts.
    """

    a: Side
    b: Side
    config: JudgeConfig
    hitl: bool
    n: int
    users: int
    shares: dict[str, float | None]
    gain: Estimate
    p: float | None
    reliability: ReliabilityReport
    warnings: list[str]
    failed: int
    file: str


def summarize(
    result: JudgingResult,
    a: Side,
    b: Side,
    labels: Mapping[str, Pick],
    warnings: Sequence[str] = (),
) -> PairwiseSummary:
    """Summarize a judge's verdicts on two runs, with the judge's reliability.

    Args:
        labels: annotators' picks by sample id, which replace the judge's verdicts.
        warnings: warnings about the runs, which come first in the summary.
    """
    verdicts = result.verdicts
    picks = faireval.apply_labels(verdicts, labels)
    users = {verdict.sample_id: verdict.user_id for verdict in verdicts}
    judged = {sample: pick for sample, pick in picks.items() if pick is not None}
    labelled = [sample for sample in labels if sample in users]
    comparison = _compare_picks(judged, users)

    judge = result.config.judge["name"]
    all_warnings = [*warnings, *(check_independence(judge, side.model) for side in (a, b))]
    if labels and users and not labelled:
        all_warnings.append(
            f"no label is for a judged sample: ids are such as {next(iter(users))}, "
            f"not {next(iter(labels))}"
        )
    return PairwiseSummary(
        a=a,
        b=b,
        config=result.config,
        hitl=bool(labelled),
        n=len(judged),
        users=len({users[sample] for sample in judged}),
        shares=_shares(list(judged.values())),
        gain=comparison.gain,
        p=comparison.p,
        reliability=reliability_report(verdicts, labels),
        warnings=list(dict.fromkeys(warning for warning in all_warnings if warning)),
        failed=result.failed,
        file=str(result.path),
    )


def _compare_picks(judged: Mapping[str, Pick], users: Mapping[str, str]) -> Comparison:
    # A tie counts half for each side, so that the gain is wins minus losses.
    worth = {"a": 1.0, "b": 0.0, "tie": 0.5}
    wins = np.array([worth[pick] for pick in judged.values()])
    scores = Scores([wins, 1 - wins], [users[sample] for sample in judged])
    return scores.compare(0, 1)


def _shares(picks: Sequence[Pick]) -> dict[str, float | None]:
    return {pick: picks.count(pick) / len(picks) if picks else None for pick in PICKS}
