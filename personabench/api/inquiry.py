"""Inquiries: a method asks for one attribute of the user at a time before it answers.

This is the form that a dialogue task with the capability `inquiry` and a method that needs it have
in common: the task lists in an attribute of the sample what may be asked for, the method replies
with a line `ASK: name`, and the task puts question and answer into the sample's dialogue.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from personabench.types import Message, Sample, normalized

UNKNOWN = "unknown"
"""The answer about an attribute that the user does not have, or does not tell."""

_FIELD = "askable"
_ASK = re.compile(r"\A[\s*_#\"'`(\[]*ask\s*[:=]\s*([^\n]+)", re.IGNORECASE)
_MARKS = " \t*_#\"'`()[]<>.?!,;:"


def allow_inquiries(sample: Sample, names: Sequence[str]) -> Sample:
    """Return a sample that allows to ask for these attributes; without names, for none."""
    attributes = {name: text for name, text in sample.attributes.items() if name != _FIELD}
    if names:
        attributes[_FIELD] = "\n".join(names)
    return msgspec.structs.replace(sample, attributes=attributes)


def list_askable(sample: Sample) -> tuple[str, ...]:
    """The attributes that may be asked for now; empty if the answer is due."""
    names = sample.attributes.get(_FIELD, "")
    return tuple(names.split("\n")) if names else ()


def write_inquiry(name: str) -> str:
    """The reply that asks for an attribute."""
    return f"ASK: {name}"


def read_inquiry(reply: str) -> str | None:
    """The attribute that a reply asks for, as the reply names it; None if it is an answer."""
    match = _ASK.match(reply)
    return match[1].strip(_MARKS) or None if match else None


def find_attribute(name: str, names: Sequence[str]) -> str | None:
    """The one of the attributes that a name stands for, without regard to case and punctuation."""
    target = normalized(name.replace("_", " "))
    for candidate in names:
        if normalized(candidate.replace("_", " ")) == target:
            return candidate
    return None


def record_answer(name: str, value: str) -> tuple[Message, Message]:
    """The two turns of a question and its answer."""
    return Message("assistant", write_inquiry(name)), Message("user", f"{name}: {value}")


def read_answers(sample: Sample) -> Mapping[str, str]:
    """The answers so far, by the attribute as it was asked for."""
    answers = {}
    turns = sample.dialogue
    for question, answer in zip(turns[::2], turns[1::2], strict=False):
        name = read_inquiry(question.content)
        if name is not None:
            answers[name] = answer.content.removeprefix(f"{name}: ")
    return answers
