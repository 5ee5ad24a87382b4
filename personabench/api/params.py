"""Typed parameters from the command line: `key=value` texts into a frozen dataclass."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from personabench.api.guard import explain_failure, is_fault
from personabench.errors import UsageError


def fill_params(
    params: type[Any],
    values: Mapping[str, str],
    owner: str,
) -> Any:
    """Create a parameter dataclass from texts, converted to the declared types.

    Raises:
        UsageError: an unknown key (with the nearest known one) or a value of the wrong type.
        PluginError: the class's own code fails.
    """
    _check_keys(params, values, owner)
    try:
        return msgspec.convert(dict(values), params, strict=False)
    except msgspec.ValidationError as error:
        message = _explain_wrong_type(params, error)
        raise UsageError(f"{owner}: {message}") from error
    except BaseException as error:
        if not is_fault(error):
            raise
        raise explain_failure(params, "__post_init__", "to accept the values", error) from error


def parse_assignments(
    texts: list[str],
    owners: list[str],
) -> dict[str, dict[str, str]]:
    """Group `[owner.]key=value` texts by owner; an assignment without an owner is under "".

    Raises:
        UsageError: no equals sign, or an owner that is not part of the run.
    """
    by_owner: dict[str, dict[str, str]] = {}
    for text in texts:
        target, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: write key=value or method.key=value")

        owner, dot, key = target.rpartition(".")
        if dot and owner not in owners:
            choices = ", ".join(owners)
            raise UsageError(f"--set {text}: '{owner}' is not part of this run ({choices})")

        by_owner.setdefault(owner, {})[key] = value
    return by_owner


def format_value(value: Any) -> str:
    """A value of a TOML file as the command line has it.

    Raises:
        ValueError: it is a table, or a list of lists or tables.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        if any(isinstance(item, list | dict) for item in value):
            raise ValueError("write a list of plain values")
        return ",".join(map(format_value, value))
    if isinstance(value, dict):
        raise ValueError("write a value, not a table")
    return str(value)


def expand_grid(texts: Sequence[str]) -> list[list[str]]:
    """Expand `[owner.]key=value,value` texts into lists of assignments, the last key fastest.

    Raises:
        UsageError: no equals sign, an empty or repeated value, or a repeated key.
    """
    axes: dict[str, list[str]] = {}
    for text in texts:
        target, equals, list_text = text.partition("=")
        values = [value.strip() for value in list_text.split(",")]

        # A repeated value would be the same run twice, under one fingerprint.
        unique = len(set(values)) == len(values) and target not in axes
        if not equals or not all(values) or not unique:
            raise UsageError(
                f"--grid {text}: write key=value,value or method.key=value,value, "
                "each key and value once"
            )

        axes[target] = [f"{target}={value}" for value in values]

    points = itertools.product(*axes.values())
    return [list(point) for point in points]


def _check_keys(
    params: type[Any],
    values: Mapping[str, str],
    owner: str,
) -> None:
    keys = [field.name for field in dataclasses.fields(params)]
    for key in values:
        if key in keys:
            continue
        matches = difflib.get_close_matches(key, keys, n=1)
        hint = f"did you mean {matches[0]}?" if matches else f"it has: {', '.join(keys) or 'none'}"
        raise UsageError(f"{owner} has no parameter '{key}'; {hint}")


def _explain_wrong_type(
    params: type[Any],
    error: msgspec.ValidationError,
) -> str:
    """Reword msgspec's message, which ends in a JSON path such as " - at `$.k`"."""
    problem, _, path = str(error).partition(" - at `$.")
    key = path.rstrip("`")
    parameter = f"parameter '{key}': " if key else ""

    kind = get_type_hints(params).get(key)
    if get_origin(kind) is not Literal:
        return f"{parameter}{problem}"

    # msgspec reports an invalid literal without the valid ones.
    choices = " or ".join(get_args(kind))
    return f"{parameter}{problem}; choose {choices}"
