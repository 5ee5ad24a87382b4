"""Typed parameters from the command line: `key=value` text into a frozen dataclass."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from personabench.errors import UsageError


def fill(params: type[Any], given: Mapping[str, str], owner: str) -> Any:
    """An instance of a parameter dataclass, with text values converted to the declared types.

    Raises:
        UsageError: an unknown key (with the nearest known one) or a value of the wrong type.
    """
    known = [field.name for field in dataclasses.fields(params)]
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has: {', '.join(known) or 'none'}"
            raise UsageError(f"{owner} has no parameter '{key}'; {hint}")
    try:
        return msgspec.convert(dict(given), params, strict=False)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$.")
        key = place.rstrip("`")
        where = f"parameter '{key}': " if key else ""
        kind = get_type_hints(params).get(key)
        choices = f"; choose {' or '.join(get_args(kind))}" if get_origin(kind) is Literal else ""
        raise UsageError(f"{owner}: {where}{problem}{choices}") from error


def assignments(texts: list[str], owners: list[str]) -> dict[str, dict[str, str]]:
    """`[owner.]key=value` texts by owner; an assignment without an owner is under "".

    Raises:
        UsageError: no equals sign, or an owner that is not part of the run.
    """
    result: dict[str, dict[str, str]] = {}
    for text in texts:
        target, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: write key=value or method.key=value")
        owner, dot, key = target.rpartition(".")
        if dot and owner not in owners:
            raise UsageError(
                f"--set {text}: '{owner}' is not part of this run ({', '.join(owners)})"
            )
        result.setdefault(owner, {})[key] = value
    return result


def grid(texts: Sequence[str]) -> list[list[str]]:
    """`[owner.]key=value,value` texts as lists of assignments: every combination, the last key running fastest.

    Raises:
        UsageError: no equals sign, no or an equal value, or a key twice.
    """
    axes: dict[str, list[str]] = {}
    for text in texts:
        target, equals, listed = text.partition("=")
        values = [value.strip() for value in listed.split(",")]
        if not equals or not all(values) or len(set(values)) < len(values) or target in axes:
            raise UsageError(
                f"--grid {text}: write key=value,value or method.key=value,value, each key and value once"
            )
        axes[target] = [f"{target}={value}" for value in values]
    return [list(point) for point in itertools.product(*axes.values())]
