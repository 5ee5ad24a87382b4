"""The wording of a task: vocabulary and rendered requests."""

from __future__ import annotations

import dataclasses
from typing import Literal

import msgspec

from personabench.types import Message, Record

ResponseKind = Literal["text", "category", "ordinal"]


class Vocabulary(msgspec.Struct, frozen=True):
    """A task's vocabulary, shared by all methods' prompts.

    Attributes:
        person: who the user is to the task ("author").
        stimulus: what they respond to ("article").
        response: what they produce ("headline").
        profile_question: what a summary of the person should answer.
        axes: the dimensions on which two people's responses may differ, as (name, definition) pairs.
        instruction: the output contract in one sentence.
    """

    person: str
    stimulus: str
    response: str
    profile_question: str
    axes: tuple[tuple[str, str], ...]
    instruction: str


@dataclasses.dataclass
class Rendered:
    """A request in the task's wording: messages, the records that made it in, and what happened on the way."""

    messages: tuple[Message, ...]
    records: tuple[Record, ...] = ()
    flags: dict[str, float] = dataclasses.field(default_factory=dict)
