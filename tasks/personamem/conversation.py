"""Conversations as records, and back as messages in a form that chat models accept.

A record is what a memory holds: by default one user message without its `User: ` prefix.  It carries, in `turns`, the
published messages that belong to it, so that all records of a history together are the conversation again, word for
word; that is how the whole history is shown, and how a control that takes or swaps histories reaches everything.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

import msgspec

from personabench.tasks.personamem.files import Turn
from personabench.types import Message, Record

Unit = Literal["user", "message", "exchange", "block"]
Roles = Literal["merge", "raw", "hoist", "transcript"]
NEUTRAL = "Hello."
BLOCK = "[A new conversation begins.]"
_PREFIX = re.compile(r"(?:User|Assistant): ?")


def bare(text: str) -> str:
    """A message without the prefix that names its speaker."""
    return _PREFIX.sub("", text, count=1) if _PREFIX.match(text) else text


class Cuts:
    """The records of a conversation before any message of it; those that two cuts share are made once.

    `user` makes one of each user message, `message` one of each message of either side, `exchange` one of consecutive
    user messages and the replies to them, `block` one of each block.  System messages are none, but open blocks.
    Messages before the first record of a history belong to it, later ones to the record before them, so that a record
    is a stretch of the conversation, from `starts`, and is there once the message at its `anchor` was said.
    """

    def __init__(self, turns: Sequence[Turn], unit: Unit) -> None:
        self._turns, self._unit = turns, unit
        self._starts: list[int] = []
        self._anchors: list[int] = []
        self._blocks: list[int] = []
        start: int | None = None
        for at, turn in enumerate(turns):
            begins = not self._starts or start is not None or _opens(unit, turn, turns[at - 1])
            if turn.role == "system" or begins:
                start = at if start is None else start
                if turn.role == "user" or (turn.role == "assistant" and unit != "user"):
                    self._starts.append(start)
                    self._anchors.append(at)
                    before = self._blocks[-1] if self._blocks else 0
                    self._blocks.append(max(before + (turns[start].role == "system"), 1))
                    start = None
        ends = self._starts[1:]
        self._whole = [self._record(place, end) for place, end in enumerate(ends)]

    def before(self, end: int) -> tuple[Record, ...]:
        """The records of the messages before `end`."""
        count = bisect_left(self._anchors, end)
        return (*self._whole[: count - 1], self._record(count - 1, end)) if count else ()

    def _record(self, place: int, end: int) -> Record:
        start = self._starts[place]
        return _record(
            list(enumerate(self._turns[start:end], start)), self._unit, self._blocks[place]
        )


def records(turns: Sequence[Turn], unit: Unit) -> tuple[Record, ...]:
    """The records of a history; see `Cuts`."""
    return Cuts(turns, unit).before(len(turns))


def _opens(unit: Unit, turn: Turn, before: Turn) -> bool:
    """Whether a message begins a new record within its block."""
    if unit == "exchange":
        return turn.role == "user" and before.role == "assistant"
    return unit == "message" or (unit == "user" and turn.role == "user")


def _record(group: Sequence[tuple[int, Turn]], unit: Unit, block: int) -> Record:
    spoken = [(at, turn) for at, turn in group if turn.role != "system"]
    if unit == "user":
        spoken = [(at, turn) for at, turn in spoken if turn.role == "user"]
    at, first = spoken[0]
    if unit in ("user", "message"):
        text = bare(first.content)
    else:
        text = "\n".join(f"{turn.role.capitalize()}: {bare(turn.content)}" for _, turn in spoken)
    role = first.role if unit in ("user", "message") else "user"
    fields = {
        "role": role,
        "index": str(at),
        "block": str(block),
        "turns": _packed([turn for _, turn in group]),
    }
    return Record(id=str(at), stimulus=None, response=text, fields=fields)


def _packed(turns: Sequence[Turn]) -> str:
    return msgspec.json.encode(turns).decode()


def turns_of(shown: Sequence[Record]) -> list[Turn]:
    """The published messages of some records, in the order of the conversation; records of questions have none."""
    told = [record for record in shown if "turns" in record.fields]
    ordered = sorted(told, key=lambda record: int(record.fields["index"]))
    return [
        turn
        for record in ordered
        for turn in msgspec.json.decode(record.fields["turns"], type=list[Turn])
    ]


def exchanges(history: Sequence[Record]) -> tuple[Record, ...]:
    """Each user message that follows a reply to another one, with that reply and what it replied to.

    Nothing reaches from one block into the next.
    """
    found: list[Record] = []
    said = reply = ""
    for turn in turns_of(history):
        if turn.role == "assistant":
            reply = turn.content
            continue
        if turn.role == "user" and said and reply:
            fields = {"reply": bare(reply)}
            found.append(
                Record(f"reply-{len(found)}", bare(said), bare(turn.content), fields=fields)
            )
        said, reply = turn.content if turn.role == "user" else "", ""
    return tuple(found)


def persona_of(history: Sequence[Record]) -> str:
    """The first system message of a history; empty without one."""
    return next((turn.content for turn in turns_of(history) if turn.role == "system"), "")


def messages(
    turns: Sequence[Turn], query: str, roles: Roles
) -> tuple[tuple[Message, ...], dict[str, float]]:
    """A conversation with the question as its last message, normalised, and what was counted on the way.

    - raw: as it is.
    - merge: a system text goes, marked, in front of the next message; neighbours of one role become one message.
    - hoist: the distinct system texts become one first message, a line marks where blocks begin; neighbours as above.
    - transcript: the history as labelled text in front of the question, in one user message.

    Where the assistant would speak first, a neutral user message is put before it (`neutral_turns`).
    """
    if roles == "transcript":
        lines = [
            turn.content if turn.role != "system" else f"[System]: {turn.content}" for turn in turns
        ]
        text = (
            "\n\n".join(["The conversation so far:", *lines, "The user now says:", query])
            if lines
            else query
        )
        return (Message("user", text),), {}
    if roles == "raw":
        return tuple(Message(turn.role, turn.content) for turn in [*turns, Turn("user", query)]), {}  # type: ignore[arg-type]
    leading: list[str] = []
    merged: list[tuple[str, list[str]]] = []
    front: list[str] = []
    for turn in [*turns, Turn("user", query)]:
        if turn.role == "system":
            if roles == "merge":
                front.append(f"[System]: {turn.content}")
            else:
                front.append(BLOCK)
                leading += [] if turn.content in leading else [turn.content]
            continue
        parts = [*front, turn.content]
        front = []
        if merged and merged[-1][0] == turn.role:
            merged[-1][1].extend(parts)
        else:
            merged.append((turn.role, parts))
    flags: dict[str, float] = {}
    if merged[0][0] == "assistant":
        merged.insert(0, ("user", [NEUTRAL]))
        flags["neutral_turns"] = 1
    made = [Message(role, "\n".join(parts)) for role, parts in merged]  # type: ignore[arg-type]
    head = [Message("system", "\n\n".join(leading))] if leading else []
    return (*head, *made), flags
