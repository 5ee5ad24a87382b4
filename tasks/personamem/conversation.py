"""Conversations as records, and back as messages in a form that chat models accept.

A record is by default one user message without its `User: ` prefix. Its field `turns` holds the
published messages that belong to it, so that all records of a history together are the
conversation again, word for word. The whole history is shown in this way, and a control that
truncates or swaps histories affects every message.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from personabench.tasks.personamem.files import Turn
from personabench.types import Message, Record

Unit = Literal["user", "message", "exchange", "block"]
Roles = Literal["merge", "raw", "hoist", "transcript"]
NEUTRAL = "Hello."
BLOCK = "[A new conversation begins.]"
_PREFIX = re.compile(r"(?:User|Assistant): ?")


class _MergedMessage(NamedTuple):
    """Consecutive messages of one role."""

    role: str
    parts: list[str]

    def join(self) -> Message:
        return Message(self.role, "\n".join(self.parts))  # type: ignore[arg-type]


def strip_speaker(text: str) -> str:
    """Remove the prefix that names a message's speaker."""
    match = _PREFIX.match(text)
    return text[match.end() :] if match else text


class ConversationRecords:
    """The records of a conversation up to any message; complete ones are built once and shared.

    `user` makes one record of each user message, `message` one of each message of either side,
    `exchange` one of consecutive user messages and the replies to them, `block` one of each block.
    System messages open blocks and become no records.

    A record covers the messages from its start to the start of the next one, so messages before
    the first record belong to that record. It exists once the message at its anchor was sent.
    """

    def __init__(self, turns: Sequence[Turn], unit: Unit) -> None:
        self._turns = turns
        self._unit = unit
        self._starts: list[int] = []
        self._anchors: list[int] = []
        self._blocks: list[int] = []
        self._find_boundaries()

        # The last record has no successor yet: it depends on the end of the history.
        ends = self._starts[1:]
        self._complete = [self._build(index, end) for index, end in enumerate(ends)]

    def before(self, end: int) -> tuple[Record, ...]:
        """Return the records of the messages before `end`."""
        count = bisect_left(self._anchors, end)
        if count == 0:
            return ()
        last = self._build(count - 1, end)
        return (*self._complete[: count - 1], last)

    def _find_boundaries(self) -> None:
        start: int | None = None
        for index, turn in enumerate(self._turns):
            # After a system message, the next message belongs to the record it opened.
            is_first = not self._starts or start is not None or turn.role == "system"
            previous = self._turns[index - 1]
            if not is_first and not _opens_record(self._unit, turn, previous):
                continue
            if start is None:
                start = index

            if _can_anchor(self._unit, turn):
                self._add_boundary(start, index)
                start = None

    def _add_boundary(self, start: int, anchor: int) -> None:
        block = self._blocks[-1] if self._blocks else 0
        if self._turns[start].role == "system":
            block += 1
        self._starts.append(start)
        self._anchors.append(anchor)
        # A conversation without a leading system message still begins with block 1.
        self._blocks.append(max(block, 1))

    def _build(self, index: int, end: int) -> Record:
        start = self._starts[index]
        turns = self._turns[start:end]
        return _make_record(turns, start, self._unit, self._blocks[index])


def make_records(turns: Sequence[Turn], unit: Unit) -> tuple[Record, ...]:
    """Return the records of a history; see `ConversationRecords`."""
    return ConversationRecords(turns, unit).before(len(turns))


def _can_anchor(unit: Unit, turn: Turn) -> bool:
    """Whether a record can be named after a message."""
    return turn.role == "user" or (turn.role == "assistant" and unit != "user")


def _opens_record(unit: Unit, turn: Turn, previous: Turn) -> bool:
    """Whether a message begins a new record within its block."""
    if unit == "exchange":
        return turn.role == "user" and previous.role == "assistant"
    return unit == "message" or (unit == "user" and turn.role == "user")


def _make_record(turns: Sequence[Turn], start: int, unit: Unit, block: int) -> Record:
    spoken = [
        (index, turn)
        for index, turn in enumerate(turns, start)
        if turn.role == "user" or (turn.role == "assistant" and unit != "user")
    ]
    anchor, first = spoken[0]

    if unit in ("user", "message"):
        text = strip_speaker(first.content)
        role = first.role
    else:
        text = "\n".join(
            f"{turn.role.capitalize()}: {strip_speaker(turn.content)}" for _, turn in spoken
        )
        role = "user"

    fields = {
        "role": role,
        "index": str(anchor),
        "block": str(block),
        "turns": msgspec.json.encode(turns).decode(),
    }
    return Record(
        id=str(anchor),
        stimulus=None,
        response=text,
        fields=fields,
    )


def restore_turns(history: Sequence[Record]) -> list[Turn]:
    """Return the published messages of some records, in the order of the conversation."""
    # Records of the control `records=questions` are questions and have no messages.
    chats = [record for record in history if "turns" in record.fields]
    chats.sort(key=lambda record: int(record.fields["index"]))

    turns: list[Turn] = []
    for record in chats:
        stored = record.fields["turns"]
        turns += msgspec.json.decode(stored, type=list[Turn])
    return turns


def find_exchanges(history: Sequence[Record]) -> tuple[Record, ...]:
    """Find each user message that answers a reply: one record with the reply and what preceded it.

    No exchange spans two blocks.
    """
    answers: list[Record] = []
    previous = reply = ""
    for turn in restore_turns(history):
        if turn.role == "assistant":
            reply = turn.content
            continue

        if turn.role == "user" and previous and reply:
            answer = Record(
                f"reply-{len(answers)}",
                stimulus=strip_speaker(previous),
                response=strip_speaker(turn.content),
                fields={"reply": strip_speaker(reply)},
            )
            answers.append(answer)
        # A system message opens a block, so it ends the exchange.
        previous = turn.content if turn.role == "user" else ""
        reply = ""
    return tuple(answers)


def find_persona(history: Sequence[Record]) -> str:
    """Return the first system message of a history; empty without one."""
    for turn in restore_turns(history):
        if turn.role == "system":
            return turn.content
    return ""


def make_messages(
    turns: Sequence[Turn], query: str, roles: Roles
) -> tuple[tuple[Message, ...], dict[str, float]]:
    """Convert a conversation with the question as its last message into a chat request.

    - raw: unchanged.
    - merge: a system text goes, marked, in front of the next message; consecutive messages of one
      role become one message.
    - hoist: the distinct system texts become one first message, a line marks the beginning of each
      block; consecutive messages of one role become one message.
    - transcript: the history as labelled text in front of the question, in one user message.

    Returns the messages and flags: `neutral_turns` counts neutral user messages put in front of an
    assistant message that would come first.
    """
    if roles == "transcript":
        return (Message("user", _format_transcript(turns, query)),), {}

    turns = [*turns, Turn("user", query)]
    if roles == "raw":
        unchanged = [_MergedMessage(turn.role, [turn.content]) for turn in turns]
        return tuple(message.join() for message in unchanged), {}

    system_texts, merged = _merge_turns(turns, roles)
    flags: dict[str, float] = {}
    # Chat templates of many models refuse a conversation that the assistant begins.
    if merged[0].role == "assistant":
        merged.insert(0, _MergedMessage("user", [NEUTRAL]))
        flags["neutral_turns"] = 1

    messages = [message.join() for message in merged]
    if system_texts:
        messages.insert(0, Message("system", "\n\n".join(system_texts)))
    return tuple(messages), flags


def _format_transcript(turns: Sequence[Turn], query: str) -> str:
    if not turns:
        return query

    # The contents of user and assistant messages name their speakers already.
    contents = [
        f"[System]: {turn.content}" if turn.role == "system" else turn.content for turn in turns
    ]
    return "\n\n".join(
        [
            "The conversation so far:",
            *contents,
            "The user now says:",
            query,
        ]
    )


def _merge_turns(turns: Sequence[Turn], roles: Roles) -> tuple[list[str], list[_MergedMessage]]:
    """Return the hoisted system texts and the merged messages."""
    system_texts: list[str] = []
    merged: list[_MergedMessage] = []
    pending: list[str] = []

    for turn in turns:
        if turn.role == "system" and roles == "merge":
            pending.append(f"[System]: {turn.content}")
            continue
        if turn.role == "system":
            pending.append(BLOCK)
            if turn.content not in system_texts:
                system_texts.append(turn.content)
            continue

        parts = [*pending, turn.content]
        pending = []
        if merged and merged[-1].role == turn.role:
            merged[-1].parts.extend(parts)
        else:
            merged.append(_MergedMessage(turn.role, parts))
    return system_texts, merged
