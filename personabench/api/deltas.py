"""Differences of JSON values: what to store of a state that mostly stays as it was.

A delta is JSON itself: `{"set": value}` replaces a value, `{"keys": {...}, "drop": [...]}` changes
an object, and `{"keep": n, "new": [...], "items": {...}, "tail": n}` a list, whose first and last
elements stay.  `{}` is no change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personabench.types import to_json

Delta = Mapping[str, Any]


def make_delta(old: Any, new: Any) -> Delta:
    """Return the delta that turns one JSON value into another."""
    if isinstance(old, dict) and isinstance(new, dict):
        return _compare_objects(old, new)
    if isinstance(old, list) and isinstance(new, list):
        return _compare_lists(old, new)
    return {} if _is_same(old, new) else {"set": new}


def apply_delta(old: Any, delta: Delta) -> Any:
    """Return the value that a delta makes of another; that one is not changed."""
    if "set" in delta:
        return delta["set"]
    if isinstance(old, dict):
        kept = {key: value for key, value in old.items() if key not in delta.get("drop", ())}
        changed = delta.get("keys", {}).items()
        return {**kept, **{key: apply_delta(kept.get(key), part) for key, part in changed}}
    if isinstance(old, list) and delta:
        return _apply_to_list(old, delta)
    return old


def _is_same(old: Any, new: Any) -> bool:
    # 1, 1.0 and true are equal in Python, but other texts in JSON.
    return bool(old == new) and to_json(old) == to_json(new)


def _compare_objects(old: dict[str, Any], new: dict[str, Any]) -> Delta:
    keys = {}
    for key, value in new.items():
        delta = make_delta(old[key], value) if key in old else {"set": value}
        if delta:
            keys[key] = delta
    drop = [key for key in old if key not in new]

    delta = {}
    if keys:
        delta["keys"] = keys
    if drop:
        delta["drop"] = drop
    return delta


def _compare_lists(old: list[Any], new: list[Any]) -> Delta:
    shorter = min(len(old), len(new))
    # Most lists have grown at their end, which is found much faster as a whole.
    keep = shorter if _is_same(old[:shorter], new[:shorter]) else 0
    while keep < shorter and _is_same(old[keep], new[keep]):
        keep += 1
    tail = 0
    while tail < shorter - keep and _is_same(old[-1 - tail], new[-1 - tail]):
        tail += 1
    if keep == len(old) == len(new):
        return {}

    middle_old = old[keep : len(old) - tail]
    middle_new = new[keep : len(new) - tail]
    delta: dict[str, Any] = {"keep": keep, "tail": tail}
    if len(middle_old) <= len(middle_new):
        # Elements that changed in place, then those that were inserted after them.
        pairs = zip(middle_old, middle_new, strict=False)
        deltas = [make_delta(before, after) for before, after in pairs]
        delta["items"] = {str(index): part for index, part in enumerate(deltas) if part}
        delta["new"] = middle_new[len(middle_old) :]
    else:
        delta["drop"] = len(middle_old)
        delta["new"] = middle_new
    return delta


def _apply_to_list(old: list[Any], delta: Delta) -> list[Any]:
    keep, tail = delta["keep"], delta["tail"]
    middle = old[keep : len(old) - tail]
    if "drop" in delta:
        middle = []
    for index, part in delta.get("items", {}).items():
        middle[int(index)] = apply_delta(middle[int(index)], part)
    return [*old[:keep], *middle, *delta["new"], *old[len(old) - tail :]]
