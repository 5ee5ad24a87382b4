"""Write docs/reference.md: the classes that methods and tasks are written against.

    python docs/reference_page.py

Everything comes from signatures and docstrings. A test compares the page with what this script
writes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

import personabench
from personabench import results, testing

PAGE = Path(__file__).parent / "reference.md"

INTRODUCTION = """# Reference

The classes and functions that methods and tasks are written against, from their docstrings, as
`python docs/reference_page.py` writes them. [Write a method](write-a-method.md) and
[Write a task](write-a-task.md) show how they are used, and [Stability](stability.md) says what may
change.
"""

PARTS: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = (
    (
        "For methods",
        tuple(
            ("personabench", name)
            for name in (
                "Method",
                "Wrapper",
                "Context",
                "Population",
                "Memory",
                "MemoryItem",
                "TrainedMethod",
                "TrainContext",
            )
        ),
    ),
    (
        "For memories",
        (("personabench", "Memory"), ("personabench", "Batch"), ("personabench", "MemoryItem")),
    ),
    (
        "Data",
        tuple(
            ("personabench", name)
            for name in ("Sample", "Record", "User", "Message", "Response", "Usage")
        ),
    ),
    (
        "For tasks",
        tuple(
            ("personabench", name)
            for name in ("Task", "Wording", "Vocabulary", "Metric", "Rendered", "Dataset")
        ),
    ),
    (
        "Functions",
        (
            ("personabench", "read_rows"),
            ("personabench.testing", "trial"),
            ("personabench.testing", "check_task"),
            ("personabench.testing", "check_method"),
            ("personabench.results", "load"),
        ),
    ),
)
MODULES = {
    "personabench": personabench,
    "personabench.testing": testing,
    "personabench.results": results,
}
_SECTION = re.compile(r"^(Attributes|Args|Returns|Raises|Yields):$", re.MULTILINE)
_ENTRY = re.compile(r"^    (\S[^:]*): ", re.MULTILINE)
_ANNOTATION = re.compile(r"(: |-> )(['\"])(.*?)\2(?=[,)\s]|$)")
_LONGEST_SIGNATURE = 96


def write_page() -> str:
    """The text of the whole page."""
    parts = [INTRODUCTION]
    for title, names in PARTS:
        parts.append(f"## {title}\n")
        for module, name in names:
            parts.extend(_describe(module, name))
    return "\n".join(parts).rstrip() + "\n"


def _describe(module: str, name: str) -> Iterator[str]:
    value = getattr(MODULES[module], name)
    yield f"### {name}\n"
    yield f"`from {module} import {name}`\n"
    if inspect.isclass(value):
        yield from _describe_class(value)
    else:
        yield _signature(name, value)
        yield from _docstring(value)


def _describe_class(cls: type[Any]) -> Iterator[str]:
    fields = getattr(cls, "__struct_fields__", ())
    if fields:
        yield _list_fields(cls)
    yield from _docstring(cls)
    for name, member in _list_members(cls):
        if name in fields:
            continue
        yield f"#### {cls.__name__}.{name}\n"
        if not isinstance(member, property):
            yield _signature(name, member)
        yield from _docstring(member)


def _list_fields(cls: type[Any]) -> str:
    """The fields of a struct, with their types and defaults."""
    annotations = cls.__annotations__
    lines = []
    for field in msgspec.structs.fields(cls):
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        line = f"{field.name}: {annotations[field.name]}"
        if isinstance(default, msgspec.Struct):
            line += f" = {type(default).__name__}()"
        elif default is not msgspec.NODEFAULT:
            line += f" = {default!r}"
        lines.append(line)
    return "\n".join(["```text", *lines, "```\n"])


def _list_members(cls: type[Any]) -> Iterator[tuple[str, Any]]:
    """Public methods and properties with a docstring, those of the engine's bases last."""
    seen: set[str] = set()
    for base in cls.__mro__:
        # The wording that a task inherits has an entry of its own.
        is_described = base is not cls and base.__name__ in personabench.__all__
        if not base.__module__.startswith("personabench") or is_described:
            continue
        for name, member in vars(base).items():
            if isinstance(member, classmethod | staticmethod):
                member = member.__func__
            is_member = inspect.isfunction(member) or isinstance(member, property)
            if name.startswith("_") or name in seen or not is_member or not member.__doc__:
                continue
            seen.add(name)
            yield name, member


def _signature(name: str, function: Any) -> str:
    function = inspect.unwrap(function)
    signature = inspect.signature(function)
    parameters = [
        parameter for parameter in signature.parameters.values() if parameter.name != "self"
    ]
    signature = signature.replace(parameters=parameters)
    prefix = "async " if inspect.iscoroutinefunction(function) else ""
    # Annotations are texts, and so quoted; defaults keep their quotes.
    text = _ANNOTATION.sub(r"\1\3", f"{prefix}{name}{signature}")
    text = re.sub(r"<function (\w+) at 0x[0-9a-f]+>", r"\1", text)
    if len(text) > _LONGEST_SIGNATURE:
        listed, _, result = text.partition("(")[2].rpartition(")")
        lines = [f"    {part}," for part in _split_arguments(listed)]
        text = "\n".join([f"{prefix}{name}(", *lines, f"){result}"])
    return f"```text\n{text}\n```\n"


def _split_arguments(listed: str) -> list[str]:
    """Split at the commas that are not inside brackets."""
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(listed):
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append(listed[start:position].strip())
            start = position + 1
    return [*parts, listed[start:].strip()]


def _docstring(value: Any) -> Iterator[str]:
    """Paragraphs, and the sections as lists."""
    text = inspect.cleandoc(value.__doc__ or "")
    pieces = _SECTION.split(text)
    yield _join_lines(pieces[0])
    for title, body in zip(pieces[1::2], pieces[2::2], strict=True):
        entries, rest = _split_section(body)
        if entries:
            yield f"{title}:\n"
            yield "\n".join(f"- `{name}`: {meaning}" for name, meaning in entries) + "\n"
        else:
            yield f"{title}: {rest}\n"
            rest = ""
        if rest:
            yield _join_lines(rest)


def _split_section(body: str) -> tuple[list[tuple[str, str]], str]:
    """The entries of a section, and the text after it."""
    indented = re.match(r"(?:\n|    .*(?:\n|$))*", body)
    assert indented
    section, rest = body[: indented.end()], body[indented.end() :]
    names = _ENTRY.split(section)
    entries = [
        (name, " ".join(meaning.split()))
        for name, meaning in zip(names[1::2], names[2::2], strict=True)
    ]
    return entries, rest if entries else " ".join(section.split())


def _join_lines(text: str) -> str:
    """Paragraphs on one line each, so that the page does not depend on the source's line length."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


if __name__ == "__main__":
    PAGE.write_text(write_page(), encoding="utf-8")
