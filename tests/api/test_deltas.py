"""Deltas of JSON values turn the one into the other, to the byte."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personabench.api.deltas import apply_delta, make_delta
from personabench.types import to_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0]) | st.text("ab"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab"), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_a_delta_makes_the_new_value_of_the_old_one(old: Any, new: Any) -> None:
    before = to_json(old)
    assert to_json(apply_delta(old, make_delta(old, new))) == to_json(new)
    assert to_json(old) == before


@pytest.mark.parametrize(
    ("old", "new", "delta"),
    [
        ([1, 2], [1, 2, 3], {"keep": 2, "tail": 0, "items": {}, "new": [3]}),
        ([1, 2, 3], [1, 3], {"keep": 1, "tail": 1, "drop": 1, "new": []}),
        ({"a": 1, "b": 2}, {"a": 1}, {"drop": ["b"]}),
        ({"a": {"x": 1}}, {"a": {"x": 2}}, {"keys": {"a": {"keys": {"x": {"set": 2}}}}}),
        (1, True, {"set": True}),
        ("same", "same", {}),
    ],
)
def test_a_delta_holds_the_change_alone(old: Any, new: Any, delta: Any) -> None:
    assert make_delta(old, new) == delta
