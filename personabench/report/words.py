"""Summarize a group's numbers in sentences: leaders, significant differences, users made worse.

Only significant results are called differences; other rows are called not told apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from personabench.leaderboard.estimates import ALPHA

Rows = Sequence[Mapping[str, Any]]


def summary(group: Mapping[str, Any]) -> list[str]:
    """Summarize a described group (`tables.describe`), the most important sentence first."""
    metric, rows = group["primary"], group["rows"]
    directions = {described["name"]: described["higher"] for described in group["metrics"]}
    higher = directions[metric]
    sentences = [_describe_leader(rows, metric, higher)]
    if group["baseline"] is None and len(rows) > 1:
        sentences.append(
            "There is no run of none here, so nothing says what a user's history is worth."
        )
    sentences += _describe_gains(rows)
    sentences += _describe_controls(rows)
    if len({row["n"] for row in rows}) > 1:
        sentences.append(
            "Runs have different numbers of samples; each pair is compared on the samples that "
            "both have."
        )
    unfinished = [row["label"] for row in rows if row["status"] != "complete"]
    if unfinished:
        sentences.append(f"Not finished: {_join(unfinished)}.")
    if group["sample"]:
        sentences.append(
            "This is small example data, not the benchmark: nothing here is a result about a "
            "method."
        )
    return sentences


def _describe_leader(rows: Rows, metric: str, higher: bool) -> str:
    best = rows[0]
    value = _format_value(best["metrics"][metric])
    if len(rows) == 1:
        return f"{best['label']} is the only run here; its {metric} is {value}."
    ranked = [row for row in rows if row["ranked"]]
    superlative = f"{'highest' if higher else 'lowest'} {metric}"
    if 0 < len(ranked) < len(rows):
        superlative += " of the runs with a rank"
    start = f"{best['label']} has the {superlative}, {value}"
    if not ranked:
        return f"{start}, but no run has enough users for a rank."
    if best["n"] < max(row["n"] for row in rows):
        start += f" (on {best['n']} sample{'s' if best['n'] > 1 else ''} only)"
    if len(ranked) == 1:
        return f"{start}; no other run has enough users and samples for a rank."
    tied = [row["label"] for row in ranked[1:] if row["leader"]]
    other = "other run" if len(ranked) == len(rows) else "other run with a rank"
    if not tied:
        return f"{start}, significantly better than every {other}."
    if len(tied) == len(ranked) - 1:
        return f"{start}, but no {other} can be told apart from it."
    count = len(best["beats"])
    rivals = f"{count} other{'s' if count > 1 else ''}"
    return f"{start}, significantly better than {rivals}. Not told apart from it: {_join(tied)}."


def _describe_gains(rows: Rows) -> list[str]:
    sentences, unclear = [], []
    for row in rows:
        gain = row["gain"]
        if gain["value"] is None or row["history"] != "own":
            continue
        if not gain["value"] or gain["p"] is None or gain["p"] > ALPHA:
            unclear.append(row)
            continue
        better = "better" if gain["value"] > 0 else "worse"
        size = _format_value(_magnitude(gain))
        text = f"{row['label']} is significantly {better} than {gain['over']}, by {size}"
        text += f" (p {_format_p(gain['p'])}, corrected)"
        users = row["users_changed"]
        if users:
            total = sum(users.values())
            winners = _format_share(users["win"] / total)
            losers = _format_share(users["loss"] / total)
            text += f"; {winners} of users gain, {losers} lose"
        sentences.append(text + ".")
    if unclear:
        labels = _join(row["label"] for row in unclear)
        text = f"Not told apart from {unclear[0]['gain']['over']}: {labels}."
        detectable = [row["detectable"] for row in unclear if row["detectable"] is not None]
        if detectable:
            text += (
                f" That does not make them equal: with so many users, only a gain of about "
                f"{max(detectable):.2g} is found in 80 % of such runs."
            )
        sentences.append(text)
    return sentences


def _describe_controls(rows: Rows) -> list[str]:
    sentences = []
    beaten: dict[str, list[str]] = {}
    for row in rows:
        shuffled, trivial = row["shuffled"], row["trivial"]
        if row["personal"]:
            size = _format_value(_magnitude(shuffled))
            p = _format_p(shuffled["p"])
            sentences.append(
                f"What {row['label']} gains is personal: with another user's history it scores "
                f"{size} worse (p {p}, corrected)."
            )
        elif row["personal"] is False:
            sentences.append(
                f"What {row['label']} gains is not shown to be personal: "
                "with another user's history "
                "it is not told apart from itself."
            )
        if (
            trivial["value"] is not None
            and trivial["value"] <= 0
            and row["history"] == "own"
            and not row["baseline"]
        ):
            beaten.setdefault(trivial["over"], []).append(row["label"])
    for over, labels in beaten.items():
        verb = "does" if len(labels) == 1 else "do"
        sentences.append(f"{_join(labels)} {verb} not beat {over}, which calls no model.")
    return sentences


def _magnitude(gain: Mapping[str, Any]) -> Mapping[str, Any]:
    """The size of a gain, or of a loss without its sign."""
    if gain["value"] >= 0:
        return gain
    low, high = gain["low"], gain["high"]
    return {"value": -gain["value"], "low": high and -high, "high": low and -low}


def _format_value(estimate: Mapping[str, Any]) -> str:
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    return f"{value:.4f}" if low is None or high is None else f"{value:.4f} [{low:.4f}, {high:.4f}]"


def _format_p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _format_share(value: float) -> str:
    return f"{int(100 * value + 0.5)} %"


def _join(labels: Iterable[str]) -> str:
    *most, last = labels
    return f"{', '.join(most)} and {last}" if most else last
