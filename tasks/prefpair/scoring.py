"""Metrics of preferences: accuracy over both orders, and the effect of the order alone.

A comparison is put once in each order, as two samples.  Values of metrics that look at both are
rows with the number of the comparison, so that any resample of users can be aggregated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from personabench.metrics.metric import Cluster, Metric, Value
from personabench.types import Sample

Floats = npt.NDArray[np.float64]

OUTSIDE = -1.0
"""The group of a sample that is not part of a subset."""


def number_of(text: str) -> float:
    """A number for a text, such as an id, that a float holds exactly."""
    return float(int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big"))


def measure(parsed: str | None, sample: Sample) -> dict[str, Value]:
    """Measure an answer to one order of a comparison; an unparsed one is wrong."""
    is_right = float(parsed in sample.references)
    position = sample.choices.index(parsed) if parsed in sample.choices else -1
    hidden = sample.hidden
    values: dict[str, Value] = {
        "accuracy": is_right,
        "accuracy-by-prompt": [is_right, number_of(sample.stimulus or sample.input)],
        "first-share": [float(position == 0), float(position >= 0)],
    }
    if hidden["orders"] == "2":
        comparison = number_of(hidden["comparison"])
        order = float(hidden["order"])
        values["strict"] = [comparison, order, is_right]
        values["flip"] = [comparison, order, _choice_number(parsed, position)]
    return values


def _choice_number(parsed: str | None, position: int) -> float:
    return number_of(str(parsed)) if position >= 0 else OUTSIDE


def measure_subsets(parsed: str | None, sample: Sample) -> dict[str, Value]:
    """Measure also the disagreement and minority subsets, which need users who judged the same."""
    values = measure(parsed, sample)
    is_right = float(parsed in sample.references)
    hidden = sample.hidden
    group = OUTSIDE
    side = OUTSIDE
    if "disagreement" in hidden:
        group = number_of(hidden["disagreement"])
        side = number_of(hidden["side"])
    values["accuracy-disagreement"] = [is_right, group, side]
    values["accuracy-minority"] = [is_right, float("departs" in hidden)]
    return values


def mean_of_subset(values: Floats) -> float:
    """Mean over the samples of a subset; rows are (value, 1 if it is in the subset else 0)."""
    inside = values[values[:, 1] == 1, 0]
    return float(inside.mean()) if len(inside) else float("nan")


def measure_groups(
    parsed: str | None, sample: Sample, field: str, groups: Sequence[str]
) -> dict[str, Value]:
    """Measure also accuracy by group, and its plain mean over groups.

    Args:
        field: the hidden field that names the sample's group.
    """
    values = measure(parsed, sample)
    is_right = float(parsed in sample.references)
    group = sample.hidden[field]
    for name in groups:
        values[f"accuracy-{name}"] = [is_right, float(name == group)]
    values["accuracy-mean"] = [is_right, float(groups.index(group))]
    return values


def group_metrics(groups: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of `measure_groups`."""
    return (
        Metric("accuracy-mean", aggregate=mean_of_groups),
        *(
            Metric(f"accuracy-{name}", aggregate=mean_of_subset, size=size_of_subset)
            for name in groups
        ),
    )


def mean_of_groups(values: Floats) -> float:
    """Plain mean over groups of their means; rows are (value, number of the group)."""
    means = [values[values[:, 1] == group, 0].mean() for group in np.unique(values[:, 1])]
    return float(np.mean(means)) if means else float("nan")


def size_of_subset(values: Floats) -> int:
    """The number of samples of a subset, of rows as in `mean_of_subset`."""
    return int((values[:, 1] == 1).sum())


def _group(values: Floats) -> tuple[npt.NDArray[np.int64], int]:
    """Number the comparisons of rows (comparison, order, ...) from 0; return numbers and count."""
    comparisons, numbers = np.unique(values[:, 0], return_inverse=True)
    return numbers, len(comparisons)


def _has_both_orders(values: Floats) -> npt.NDArray[np.bool_]:
    """Whether the comparison of each row is there in both orders, which a limit may cut."""
    numbers, count = _group(values)
    orders = np.zeros((count, 2), dtype=bool)
    orders[numbers, values[:, 1].astype(int)] = True
    has_both = orders[:, 0] & orders[:, 1]
    return np.asarray(has_both[numbers], dtype=bool)


def strict_accuracy(values: Floats) -> float:
    """Share of comparisons that are right in both orders; rows are (comparison, order, right)."""
    values = values[_has_both_orders(values)]
    if not len(values):
        return float("nan")
    numbers, count = _group(values)
    lowest = np.ones(count)
    np.minimum.at(lowest, numbers, values[:, 2])
    return float(lowest[numbers].mean())


def flip_share(values: Floats) -> float:
    """Share of comparisons whose chosen text changes with the order.

    Rows are (comparison, order, number of the chosen text, -1 if unparsed).
    """
    values = values[_has_both_orders(values)]
    if not len(values):
        return float("nan")
    numbers, count = _group(values)
    lowest = np.full(count, np.inf)
    highest = np.full(count, -np.inf)
    np.minimum.at(lowest, numbers, values[:, 2])
    np.maximum.at(highest, numbers, values[:, 2])
    flipped = lowest != highest
    return float(flipped[numbers].mean())


def count_both_orders(values: Floats) -> int:
    """The number of samples whose comparison is there in both orders."""
    return int(_has_both_orders(values).sum())


def disagreement_accuracy(values: Floats) -> float:
    """Accuracy where users prefer different responses of the same ones; at most .5 for any rule.

    Rows are (right, group, side): a group is a prompt with its responses, a side those of its users
    who prefer one response.  Sides of a group weigh the same, so a rule that gives all users the
    same answer is right on one of two or more sides.  Groups of one side count for nothing.
    """
    accuracies = [
        np.mean([group[group[:, 2] == side, 0].mean() for side in np.unique(group[:, 2])])
        for group in _split_groups(values)
    ]
    return float(np.mean(accuracies)) if accuracies else float("nan")


def _split_groups(values: Floats) -> list[Floats]:
    """The rows of each group with two or more sides."""
    inside = values[values[:, 1] != OUTSIDE]
    groups = [inside[inside[:, 1] == group] for group in np.unique(inside[:, 1])]
    return [group for group in groups if len(np.unique(group[:, 2])) > 1]


def count_disagreement(values: Floats) -> int:
    """The number of samples that `disagreement_accuracy` is over."""
    return sum(len(group) for group in _split_groups(values))


def _mean_of_first(values: Floats) -> float:
    return float(values[:, 0].mean())


BY_PROMPT = Cluster(1, "prompt")
"""The unit of chance where users are few, or judge the same prompts."""


def choice_metrics(chance: float | None) -> tuple[Metric, ...]:
    """The metrics of choices; `chance` is 1 / n of n responses, None if their number differs."""
    return (
        Metric("accuracy", chance=chance),
        Metric("accuracy-by-prompt", aggregate=_mean_of_first, cluster=BY_PROMPT),
        Metric("strict", aggregate=strict_accuracy, size=count_both_orders),
        Metric("flip", higher_is_better=False, aggregate=flip_share, size=count_both_orders),
        Metric(
            "first-share", higher_is_better=False, aggregate=mean_of_subset, size=size_of_subset
        ),
    )


METRICS = choice_metrics(chance=0.5)
SUBSET_METRICS = (
    Metric("accuracy-disagreement", aggregate=disagreement_accuracy, size=count_disagreement),
    Metric("accuracy-minority", aggregate=mean_of_subset, size=size_of_subset),
)
