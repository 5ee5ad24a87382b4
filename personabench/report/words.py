"""What a group's numbers say, in plain sentences: who leads, what differs significantly, who is hurt, what is unknown.

Only what the statistics carry is called a difference; everything else is called not told apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from personabench.leaderboard.estimates import ALPHA

Rows = Sequence[Mapping[str, Any]]


def summary(group: Mapping[str, Any]) -> list[str]:
    """Sentences about a described group (`tables.describe`) and its primary metric, most important first."""
    metric, rows = group["primary"], group["rows"]
    higher = {each["name"]: each["higher"] for each in group["metrics"]}[metric]
    said = [_leader(rows, metric, higher)]
    if group["baseline"] is None and len(rows) > 1:
        said.append("There is no run of none here, so nothing says what a user's history is worth.")
    said += _gains(rows)
    said += _controls(rows)
    if len({row["n"] for row in rows}) > 1:
        said.append(
            "Runs have different numbers of samples; each pair is compared on the samples that both have."
        )
    if late := [row["label"] for row in rows if row["status"] != "complete"]:
        said.append(f"Not finished: {_listed(late)}.")
    if group["sample"]:
        said.append(
            "This is a small bundled sample, not the benchmark: nothing here is a result about a method."
        )
    return said


def _leader(rows: Rows, metric: str, higher: bool) -> str:
    best = rows[0]
    value = _value(best["metrics"][metric])
    if len(rows) == 1:
        return f"{best['label']} is the only run here; its {metric} is {value}."
    start = f"{best['label']} has the {'highest' if higher else 'lowest'} {metric}, {value}"
    if best["n"] < max(row["n"] for row in rows):
        start += f" (on {best['n']} sample{'s' if best['n'] > 1 else ''} only)"
    tied = [row["label"] for row in rows[1:] if row["leader"]]
    if not tied:
        return f"{start}, significantly better than every other run."
    if len(tied) == len(rows) - 1:
        return f"{start}, but no other run can be told apart from it."
    others = f"{len(best['beats'])} other{'s' if len(best['beats']) > 1 else ''}"
    return f"{start}, significantly better than {others}. Not told apart from it: {_listed(tied)}."


def _gains(rows: Rows) -> list[str]:
    said, unclear = [], []
    for row in rows:
        gain = row["gain"]
        if gain["value"] is None or row["history"] != "own":
            continue
        if not gain["value"] or gain["p"] is None or gain["p"] > ALPHA:
            unclear.append(row)
            continue
        better = "better" if gain["value"] > 0 else "worse"
        text = f"{row['label']} is significantly {better} than {gain['over']}, by {_value(_sized(gain))}"
        text += f" (p {_p(gain['p'])}, corrected)"
        if users := row["users_changed"]:
            total = sum(users.values())
            text += f"; {_share(users['win'] / total)} of users gain, {_share(users['loss'] / total)} lose"
        said.append(text + ".")
    if unclear:
        text = f"Not told apart from {unclear[0]['gain']['over']}: {_listed(row['label'] for row in unclear)}."
        if found := [row["detectable"] for row in unclear if row["detectable"] is not None]:
            text += (
                f" That does not make them equal: with so many users, only a gain of about {max(found):.2g} "
                "is found in 80 % of such runs."
            )
        said.append(text)
    return said


def _controls(rows: Rows) -> list[str]:
    said = []
    beaten: dict[str, list[str]] = {}
    for row in rows:
        shuffled, trivial = row["shuffled"], row["trivial"]
        if row["personal"]:
            said.append(
                f"What {row['label']} gains is personal: with another user's history it scores "
                f"{_value(_sized(shuffled))} worse (p {_p(shuffled['p'])}, corrected)."
            )
        elif row["personal"] is False:
            said.append(
                f"What {row['label']} gains is not shown to be personal: with another user's history it is not "
                "told apart from itself."
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
        said.append(f"{_listed(labels)} {verb} not beat {over}, which asks no model.")
    return said


def _sized(gain: Mapping[str, Any]) -> Mapping[str, Any]:
    """A gain as a size: turned round where it is a loss."""
    if gain["value"] >= 0:
        return gain
    low, high = gain["low"], gain["high"]
    return {"value": -gain["value"], "low": high and -high, "high": low and -low}


def _value(estimate: Mapping[str, Any]) -> str:
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    return f"{value:.4f}" if low is None or high is None else f"{value:.4f} [{low:.4f}, {high:.4f}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _share(value: float) -> str:
    return f"{int(100 * value + 0.5)} %"


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
