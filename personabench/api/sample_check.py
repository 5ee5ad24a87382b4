"""Say which field of a sample has a wrong type, in the words of the person who wrote the task."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from personabench.api.guard import locate
from personabench.types import Message, Record, Sample

_TEXT = ("id", "user_id", "input")
_OPTIONAL_TEXT = ("stimulus", "time", "item", "history_owner")
_TEXTS = ("references", "choices", "evidence")
_MAPPINGS = ("attributes", "hidden")
_RECORD_TEXT = ("id", "response")
_RECORD_OPTIONAL_TEXT = ("stimulus", "time", "item")


def module_file(cls: type[Any]) -> Path | None:
    """Return the file that defines a class; None for a class made at run time."""
    module = sys.modules.get(cls.__module__)
    path = getattr(module, "__file__", None)
    return Path(path) if path else None


def locate_class(cls: type[Any], member: str = "") -> str:
    """Name a class, or a member of it, with file and line for a message."""
    name = f"{cls.__name__}.{member}" if member else cls.__name__
    return f"{name} ({locate(cls, member)})" if module_file(cls) else name


def describe_sample(cls: type[Any], number: int, sample_id: Any) -> str:
    """Name a sample of a task for a message: class, file, number and id."""
    name = f" ('{sample_id}')" if isinstance(sample_id, str) and sample_id else ""
    return f"{locate_class(cls, 'load')}, sample {number}{name}"


def describe_problem(sample: Any) -> str:
    """Describe the first wrong field of a sample; empty if every field has its type."""
    if type(sample) is not Sample:
        return f"expected a Sample, got {_show(sample)}"
    return next(_list_problems(sample), "")


def describe_empty_record(history: Sequence[Record]) -> str:
    """Describe the first record of a history without content; empty if there is none."""
    for index, record in enumerate(history):
        if not record.response and not record.stimulus:
            return f"history[{index}] is empty, expected a stimulus or a response"
    return ""


def _list_problems(sample: Sample) -> Iterator[str]:
    yield from _check_texts(sample, "", _TEXT, _OPTIONAL_TEXT)

    for field in _TEXTS:
        values = getattr(sample, field)
        yield from _check_sequence(field, values, "texts")
        for index, value in _enumerate(values):
            yield from _check_text(f"{field}[{index}]", value)

    for field in _MAPPINGS:
        yield from _check_mapping(field, getattr(sample, field))

    yield from _check_sequence("history", sample.history, "Records")
    for index, record in _enumerate(sample.history):
        yield from _check_record(f"history[{index}]", record)

    yield from _check_sequence("dialogue", sample.dialogue, "Messages")
    for index, message in _enumerate(sample.dialogue):
        if type(message) is not Message:
            yield f"dialogue[{index}] is {_show(message)}, expected a Message"


def _check_record(name: str, record: Any) -> Iterator[str]:
    if type(record) is not Record:
        yield f"{name} is {_show(record)}, expected a Record"
        return
    yield from _check_texts(record, f"{name}.", _RECORD_TEXT, _RECORD_OPTIONAL_TEXT)
    yield from _check_mapping(f"{name}.fields", record.fields)


def _check_texts(
    value: Any,
    prefix: str,
    required: tuple[str, ...],
    optional: tuple[str, ...],
) -> Iterator[str]:
    for field in required:
        yield from _check_text(f"{prefix}{field}", getattr(value, field))
    for field in optional:
        if getattr(value, field) is not None:
            yield from _check_text(f"{prefix}{field}", getattr(value, field))


def _check_text(name: str, value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        hint = f"; write str({value!r})" if isinstance(value, int | float) else ""
        yield f"{name} is {_show(value)}, expected text{hint}"
        return
    try:
        value.encode()
    except UnicodeEncodeError as error:
        yield f"{name} holds half a character at position {error.start}; it is no valid text"


def _check_sequence(name: str, value: Any, items: str) -> Iterator[str]:
    if not isinstance(value, list | tuple):
        hint = f"; write [{value!r}]" if isinstance(value, str) else ""
        yield f"{name} is {_show(value)}, expected a list or tuple of {items}{hint}"


def _check_mapping(name: str, value: Any) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{name} is {_show(value)}, expected a dictionary of texts"
        return
    for key, item in value.items():
        if not isinstance(key, str):
            yield f"a key of {name} is {_show(key)}, expected text"
        else:
            yield from _check_text(f"{name}['{key}']", item)


def _enumerate(values: Any) -> Iterator[tuple[int, Any]]:
    if isinstance(values, list | tuple):
        yield from enumerate(values)


def _show(value: Any) -> str:
    if value is None:
        return "None"
    text = repr(value)
    excerpt = text if len(text) <= 40 else f"{text[:37]}..."
    return f"{excerpt} ({type(value).__name__})"
