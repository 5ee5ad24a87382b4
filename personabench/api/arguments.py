"""Check the arguments of a method's calls of its `Context`.

A wrong one would otherwise fail in the code of the task or of a backend, which would be taken for
the code at fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from personabench.api.guard import describe_value
from personabench.types import Message, Record, Sample


class Argument(NamedTuple):
    """The meaning of an argument; `check` returns a clause, empty if nothing is wrong."""

    expected: str
    check: Callable[[Any], str]


def check_arguments(call: str, **arguments: Any) -> None:
    """Check arguments by their names.

    Raises:
        TypeError: the first wrong one.
    """
    for name, value in arguments.items():
        expected, check = _ARGUMENTS[name]
        problem = check(value)
        if problem:
            raise TypeError(f"ctx.{call}: {name} {problem}, not {expected}")


def _is(kind: type[Any]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        # True is an int to Python, but no number of records.
        right = isinstance(value, kind) and not isinstance(value, bool)
        return "" if right else f"is {describe_value(value)}"

    return check


def _sequence_of(kind: type[Any]) -> Callable[[Any], str]:
    def check(values: Any) -> str:
        if isinstance(values, str) or not isinstance(values, Sequence):
            return f"is {describe_value(values)}"
        for value in values:
            if not isinstance(value, kind):
                return f"contains {describe_value(value)}"
        return ""

    return check


def _allowance(value: Any) -> str:
    return _is(int)(value) or ("" if value > 0 else f"is {value}")


_ARGUMENTS: Mapping[str, Argument] = {
    "sample": Argument("a `Sample`", _is(Sample)),
    "records": Argument("a list of `Record`s", _sequence_of(Record)),
    "messages": Argument("a list of `Message`s", _sequence_of(Message)),
    "notes": Argument("text (str)", _is(str)),
    "contract": Argument("text (str)", _is(str)),
    "k": Argument("a whole number (int)", _is(int)),
    "max_tokens": Argument("a whole number above 0", _allowance),
}
