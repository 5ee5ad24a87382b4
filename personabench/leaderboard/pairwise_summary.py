"""Summarise the verdicts of a judge that compared two runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from personabench.leaderboard.stats import Comparison, Scores
from personabench.metrics.judges import faireval
from personabench.metrics.judges.ask import check_independence
from personabench.metrics.judges.reliability import reliability_report
from personabench.metrics.judges.verdict import PICKS, Pick, Verdict
from personabench.run.pairwise_judging import JudgeConfig


def summary(
    verdicts: Sequence[Verdict],
    agreed: JudgeConfig,
    sides: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, Pick] | None = None,
) -> dict[str, Any]:
    """Summarize a judge's verdicts on runs a and b, with the judge's own reliability.

    `gain` is the share of wins of a minus that of its losses, with a bootstrap interval and a
    sign-flip test over users. With `labels` of judged samples, the labels of human raters replace
    the judge's verdicts and the result is marked `hitl`.
    """
    human = labels or {}
    picks = faireval.apply_labels(verdicts, human)
    users = {verdict.sample_id: verdict.user_id for verdict in verdicts}
    judged = {sample: pick for sample, pick in picks.items() if pick is not None}
    comparison = _compare_picks(judged, users)

    models = [str(fields["model"]) for fields in sides.values()]
    warnings = [check_independence(agreed.judge["name"], model) for model in models]
    ruled = [sample for sample in human if sample in users]
    if human and users and not ruled:
        warnings.append(
            f"no label is for a judged sample: ids are such as {next(iter(users))}, "
            f"not {next(iter(human))}"
        )
    return {
        **{side: dict(fields) for side, fields in sides.items()},
        "terms": msgspec.to_builtins(agreed),
        "hitl": bool(ruled),
        "n": len(judged),
        "users": len({users[sample] for sample in judged}),
        "shares": _shares(list(judged.values())),
        "gain": msgspec.to_builtins(comparison.gain),
        "p": comparison.p,
        "card": msgspec.to_builtins(reliability_report(verdicts, labels)),
        "warnings": list(dict.fromkeys(filter(None, warnings))),
    }


def _compare_picks(judged: Mapping[str, Pick], users: Mapping[str, str]) -> Comparison:
    # A tie counts half for each side, so that the gain is wins minus losses.
    worth = {"a": 1.0, "b": 0.0, "tie": 0.5}
    wins = np.array([worth[pick] for pick in judged.values()])
    scores = Scores([wins, 1 - wins], [users[sample] for sample in judged])
    return scores.compare(0, 1)


def _shares(picks: Sequence[Pick]) -> dict[str, float | None]:
    return {pick: picks.count(pick) / len(picks) if picks else None for pick in PICKS}
