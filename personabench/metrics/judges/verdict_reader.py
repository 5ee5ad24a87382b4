"""Read the verdict of a judge's reply: the one reader of all judges.

A judge quotes the answer that it assesses, so an answer that contains a verdict must not decide.
A verdict counts if it is alone on its line, or a field of a JSON object that is the whole reply or
alone on its lines.  Several different verdicts are none: the reply is unparsed, and is requested
again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from personabench.models.reply import split_reply

T = TypeVar("T")

# Objects that are tried at most, so that a reply of nothing but braces is read in linear time.
_ATTEMPTS = 50
_EMPHASIS = str.maketrans("", "", "*`")


def strip_thoughts(reply: str) -> str:
    """Drop the model's thoughts from a reply; unfinished thoughts leave nothing."""
    return split_reply(reply).answer.strip()


def read_verdict(reply: str, read_line: Callable[[str], T | None]) -> T | None:
    """Read the verdict that is alone on its line.

    Args:
        read_line: reads a line without emphasis; None for one that is no verdict.

    Returns:
        the verdict; None without one, or with several different ones.
    """

    def read_unlabelled(line: str) -> tuple[str, T] | None:
        value = read_line(line)
        return None if value is None else ("", value)

    return read_verdicts(reply, read_unlabelled).get("")


def read_verdicts(reply: str, read_line: Callable[[str], tuple[str, T] | None]) -> dict[str, T]:
    """Read verdicts with a label, each alone on its line, such as those on two answers.

    Args:
        read_line: reads label and value of a line without emphasis.

    Returns:
        values by label, without the labels that have several different ones.
    """
    verdicts = []
    for line in strip_thoughts(reply).splitlines():
        verdict = read_line(line.translate(_EMPHASIS).strip())
        if verdict is not None:
            verdicts.append(verdict)
    return _agreeing(verdicts)


def read_json_verdict(reply: str, read_fields: Callable[[Mapping[str, Any]], T | None]) -> T | None:
    """Read the verdict of the reply's JSON objects.

    Args:
        read_fields: reads the fields of an object; None for one without a verdict.

    Returns:
        the verdict; None without one, or with several different ones.
    """
    verdicts = []
    for fields in _objects_on_own_lines(strip_thoughts(reply)):
        if fields is None:
            return None
        verdict = read_fields(fields)
        if verdict is not None:
            verdicts.append(("", verdict))
    return _agreeing(verdicts).get("")


def _agreeing(verdicts: Iterable[tuple[str, T]]) -> dict[str, T]:
    values: dict[str, list[T]] = {}
    for label, value in verdicts:
        values.setdefault(label, []).append(value)
    return {
        label: given[0]
        for label, given in values.items()
        if all(value == given[0] for value in given)
    }


def _objects_on_own_lines(text: str) -> Iterable[dict[str, Any] | None]:
    """The JSON objects that begin and end a line; None for one that states a field twice.

    An answer that is quoted without escapes can close a string and add fields to the object.
    """
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_unique_fields)
    start = 0
    for _ in range(_ATTEMPTS):
        start = _next_object(text, start)
        if start < 0:
            return
        try:
            fields, end = decoder.raw_decode(text, start)
        except _RepeatedFieldError:
            yield None
            return
        except (ValueError, RecursionError):
            # Deeply nested garbage exhausts the stack; like other garbage it is no verdict.
            start += 1
            continue
        rest_of_line = text[end:].split("\n", 1)[0]
        if not rest_of_line.strip(" \t\r`"):
            yield fields
        start = end


def _next_object(text: str, start: int) -> int:
    """The next brace at the beginning of a line; -1 if there is none."""
    while True:
        start = text.find("{", start)
        if start < 0:
            return -1
        line_start = text.rfind("\n", 0, start) + 1
        if not text[line_start:start].strip(" \t`"):
            return start
        start = text.find("\n", start)
        if start < 0:
            return -1


class _RepeatedFieldError(Exception):
    """An object states a field twice."""


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _RepeatedFieldError
    return fields
