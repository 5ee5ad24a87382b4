"""A metric's own unit of chance in place of users."""

from __future__ import annotations

import numpy as np
import pytest

from personabench.leaderboard.column import Column
from personabench.leaderboard.estimates import name_units
from personabench.metrics.metric import Cluster
from personabench.results.published import Vector

BY_PROMPT = Cluster(1, "prompt")


def make_column(cluster: Cluster | None) -> Column:
    """Twelve users with the same eight prompts; prompts differ, and users do not."""
    ids, users, values = [], [], []
    for user in range(12):
        for prompt in range(8):
            ids.append(f"{user}-{prompt}")
            users.append(f"user-{user}")
            values.append([float(prompt % 3 == 0), float(prompt)])
    vector = Vector(ids, users, {"official": {"solved": values}})

    def mean_of_first(rows: np.ndarray) -> float:  # type: ignore[type-arg]
        return float(rows[:, 0].mean())

    return Column([[vector], [vector]], "solved", True, mean_of_first, 500, cluster)


def test_a_cluster_is_resampled_in_place_of_users() -> None:
    by_user = make_column(None).estimate(0)
    by_prompt = make_column(BY_PROMPT).estimate(0)
    assert by_user.value == by_prompt.value == pytest.approx(3 / 8)
    assert (by_user.users, by_prompt.users) == (12, 8)
    # Users agree, so they say nothing of the uncertainty that the few prompts bring.
    assert by_user.low is None and by_user.reason == "all users score the same"
    assert by_prompt.low is not None and by_prompt.low < 3 / 8 < (by_prompt.high or 0)


def test_reasons_and_names_tell_the_unit() -> None:
    column = make_column(BY_PROMPT)
    assert column.gain(0, 1).reason == "no sample's scores differ"
    assert name_units([column.estimate(0)]) == "prompts"
    assert name_units([column.estimate(0), make_column(None).estimate(0)]) == "prompts and users"
    assert name_units([None]) == "users"
