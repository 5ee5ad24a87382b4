"""Summarise the verdicts of a judge that compared two runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from personabench.leaderboard.stats import Scores
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
    """What the verdicts say of a and b, and of the judge.

    `gain` is the share of wins minus that of losses of a, with a bootstrap interval and a sign-flip test over users;
    with `labels` of judged samples, people's picks stand in for the judge's and the result is marked `hitl`.
    """
    picks = faireval.apply_labels(verdicts, labels or {})
    users = {verdict.sample_id: verdict.user_id for verdict in verdicts}
    judged = {name: pick for name, pick in picks.items() if pick is not None}
    worth = {"a": 1.0, "b": 0.0, "tie": 0.5}
    wins = np.array([worth[pick] for pick in judged.values()])
    found = Scores([wins, 1 - wins], [users[name] for name in judged]).compare(0, 1)
    relations = [check_independence(agreed.judge["name"], each["model"]) for each in sides.values()]
    own = reliability_report(verdicts, labels)
    ruled = [name for name in labels or {} if name in users]
    if labels and users and not ruled:
        relations.append(
            f"no label is for a judged sample: ids are such as {next(iter(users))}, not {next(iter(labels))}"
        )
    shares = {
        pick: list(judged.values()).count(pick) / len(judged) if judged else None for pick in PICKS
    }
    return {
        **{side: dict(each) for side, each in sides.items()},
        "terms": msgspec.to_builtins(agreed),
        "hitl": bool(ruled),
        "n": len(judged),
        "users": len({users[name] for name in judged}),
        "shares": shares,
        "gain": msgspec.to_builtins(found.gain),
        "p": found.p,
        "card": msgspec.to_builtins(own),
        "warnings": list(dict.fromkeys(filter(None, relations))),
    }
