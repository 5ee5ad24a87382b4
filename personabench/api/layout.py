"""The layout of a request: where a task puts notes about the user, records and the question.

A task states its parts and the layout that it has by default; the options in `Layout` choose
another one for any method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from personabench.types import Message, Record

# Reasons for `check_layout`.
NO_TURNS = "records are parts of conversations, and no answers to questions"
BY_TIME = "records stand in the order of time"

Form = Literal["turns", "list", "message"]
Order = Literal["best_last", "best_first"]


@dataclass(frozen=True)
class Layout:
    """Options of the layout, to derive the `Params` of a task from.

    Attributes:
        layout: auto, the task's own; turns, records as earlier turns; list, records and notes in
            the system message; message, all in one user message, as many papers have it.
        profile: notes about the user before or after the records; auto is before.
        order: the best record last, next to the question, or first; auto is the task's own.
    """

    layout: Literal["auto", "turns", "list", "message"] = "auto"
    profile: Literal["auto", "before", "after"] = "auto"
    order: Literal["auto", "best_last", "best_first"] = "auto"


def has_layout(params: object) -> bool:
    """Return whether options choose another layout than the task's own."""
    return isinstance(params, Layout) and any(
        getattr(params, field.name) != field.default for field in fields(Layout)
    )


def list_options(params: Any) -> dict[str, Any]:
    """List a task's options by name, without those of a layout that is the task's own.

    A run in that layout is the same run whether or not its task has such options.
    """
    options = asdict(params)
    if isinstance(params, Layout):
        for field in fields(Layout):
            if options[field.name] == field.default:
                del options[field.name]
    return options


def check_layout(options: Layout, *, turns: str = "", order: str = "") -> None:
    """Refuse options that have no meaning for a task's records.

    Args:
        turns, order: why records cannot be turns, or have one order; empty if they can.

    Raises:
        ValueError: such an option is chosen.
    """
    if turns and options.layout == "turns":
        raise ValueError(f"layout=turns: {turns}; use list or message")
    if order and options.order != "auto":
        raise ValueError(f"order={options.order}: {order}; leave it at auto")


@dataclass(frozen=True)
class Parts:
    """The parts of a request.

    Attributes:
        question: the last user message.
        notes: notes about the user under their heading; empty without any.
        records: the chosen records, best first.
        word_turn: words a record as an earlier question.
        word_list: words records, in the order given, as a list under its heading.
        opening: the beginning of every system message, with or without facts about the user.
    """

    question: str
    notes: str
    records: Sequence[Record]
    word_turn: Callable[[Record], str]
    word_list: Callable[[Sequence[Record]], str]
    opening: str = ""


def arrange(
    parts: Parts,
    options: Layout,
    form: Form,
    order: Order = "best_last",
) -> list[Message]:
    """Arrange the parts of a request as the options say.

    Args:
        form, order: the task's own, for options that are auto.
    """
    if options.layout != "auto":
        form = options.layout
    if options.order != "auto":
        order = options.order
    is_after = options.profile == "after"
    records = list(parts.records if order == "best_first" else reversed(parts.records))

    if form == "turns":
        return _arrange_turns(parts, records, is_after)

    listed = parts.word_list(records) if records else ""
    sections = [listed, parts.notes] if is_after else [parts.notes, listed]
    if form == "message":
        return [*_system(parts.opening), Message("user", _join(*sections, parts.question))]
    return [*_system(parts.opening, *sections), Message("user", parts.question)]


def _arrange_turns(parts: Parts, records: Sequence[Record], is_after: bool) -> list[Message]:
    turns: list[Message] = []
    for record in records:
        turns.append(Message("user", parts.word_turn(record)))
        turns.append(Message("assistant", record.response))

    # After the turns there is no place but the question's own message.
    if is_after:
        question = Message("user", _join(parts.notes, parts.question))
        return [*_system(parts.opening), *turns, question]
    return [*_system(parts.opening, parts.notes), *turns, Message("user", parts.question)]


def _system(*texts: str) -> list[Message]:
    content = _join(*texts)
    return [Message("system", content)] if content else []


def _join(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text)
