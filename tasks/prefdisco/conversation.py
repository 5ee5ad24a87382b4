"""The turns between the model under test and the simulated user: how a reply is read, and when the talk is over.

The loop ends with an announced answer, with the user's stop, or after `max_turns` questions; in every case one more
call asks for the complete final answer, and only that reply is scored.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from personabench.errors import BackendError
from personabench.tasks.prefdisco import wording
from personabench.types import Message

if TYPE_CHECKING:
    from personabench.models.roles import Role

Kind = Literal["passive_nostop", "passive", "collaborative"]
RETRIES = 3
TEMPERATURE = 0.4
TOP_P = 0.95

_MARKS = r"[\s\"'`*_#\[({<]*"
_ENDS = r"[\s\"'`*_#\])}>]*"
_ACTION = re.compile(
    rf"^{_MARKS}action{_ENDS}[:=]{_MARKS}(ask|final)[\s_-]*(?:question|answer)?{_ENDS}[,;.]?",
    re.IGNORECASE | re.MULTILINE,
)
_RESPONSE = re.compile(
    r"^[\s\"'`#\[({<]*(\*{0,3})response(?:\1[\s\"'`#\])}>]*[:=]|[\s\"'`#\])}>]*[:=]\1)[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_ANNOUNCES = re.compile(
    r"\b(the (final |correct |right )?answer (is|would be)|final answer|here is (the|my|your) (solution|answer)|"
    r"the solution is|in conclusion|to conclude|we conclude|therefore,? the (answer|result)|"
    r"(correct|right) (option|choice) is)\b",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"\b(would you (like|prefer|rather)|do you (want|prefer|like|know)|could you tell|can you tell|may i ask|"
    r"are you (familiar|comfortable)|how (familiar|comfortable|would you)|what (is|are) your|"
    r"let me know (if|whether|how|what)|before i answer)\b",
    re.IGNORECASE,
)


class Reply(NamedTuple):
    """A reply of the model under test: what it does, and what it says without labels."""

    action: Literal["ask", "final"]
    text: str


def read(output: str) -> Reply:
    """What a reply does, by its action label; without one, by whether it announces an answer and asks nothing."""
    if (
        (found := wording.json_of(output))
        and isinstance(found.get("action"), str)
        and "response" in found
    ):
        action: Literal["ask", "final"] = (
            "final" if "final" in found["action"].casefold() else "ask"
        )
        return Reply(action, str(found["response"]).strip())
    if labels := list(_ACTION.finditer(output)):
        return Reply("final" if labels[0][1].casefold() == "final" else "ask", unlabelled(output))
    text = unlabelled(output)
    announced = _ANNOUNCES.search(text) and not _ASKS.search(text) and not text.endswith("?")
    return Reply("final" if announced else "ask", text)


def unlabelled(output: str) -> str:
    """A reply without its labels: what follows the response label, else all but the action's line."""
    found = wording.json_of(output)
    if found and "response" in found and "action" in found:
        return str(found["response"]).strip()
    if label := _RESPONSE.search(output):
        text = output[label.end() :].strip()
    elif action := _ACTION.search(output):
        text = (output[: action.start()] + output[action.end() :]).strip()
    else:
        return output.strip()
    for opening, closing in ('""', "''", "[]", "()", "**"):
        if (
            len(text) > 1
            and text[0] == opening
            and text[-1] == closing
            and opening not in text[1:-1]
        ):
            return text[1:-1].strip()
    return text


@dataclass
class Discovery:
    """A finished conversation.

    Attributes:
        output: the final reply without labels; raw: as it came.
        turns: what the model did and said in each turn of the loop, and what the user answered, if anything.
        answered: questions that got an answer; `ended`: by what the loop ended.
    """

    output: str = ""
    raw: str = ""
    turns: list[dict[str, Any]] = field(default_factory=list)
    answered: int = 0
    ended: Literal["final", "stop", "turns"] = "turns"

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "output": self.output,
            "raw": self.raw,
            "turns": self.turns,
            "questions": self.answered,
            "ended": self.ended,
        }


async def discover(
    ask: Callable[[tuple[Message, ...]], Awaitable[str]],
    simulator: Role,
    *,
    kind: Kind,
    described: str,
    max_turns: int,
    fixed: int,
    max_tokens: int,
) -> Discovery:
    """Let the model under test find out what the user wants, then answer.

    Args:
        ask: the model's reply after the given messages, which follow on the problem.
        kind, described: of the simulated user; described is the profile with all preferences.
        max_turns: turns of the loop at most.
        fixed: exactly so many exchanges, whatever action or stop says; 0 for the loop.
        max_tokens: allowance of the simulated user.

    Raises:
        BackendError: a call failed for good, or the simulated user gave nothing readable.
    """
    found = Discovery()
    dialogue: tuple[Message, ...] = ()
    chat: tuple[Message, ...] = ()
    for turn in range(1, (fixed or max_turns) + 1):
        hint = wording.TURN.format(turn=turn, count=fixed) if fixed else ""
        raw = await ask(_joined(dialogue, hint))
        reply = read(raw)
        dialogue = (*dialogue, Message("assistant", raw))
        said: dict[str, Any] = {"action": reply.action, "text": reply.text}
        found.turns.append(said)
        if reply.action == "final" and not fixed:
            found.ended = "final"
            break
        chat = (*chat, Message("assistant", reply.text))
        answer, stop = await _answered(simulator, kind, described, chat, max_tokens)
        ends = stop and kind == "passive" and not fixed
        if answer or not ends:
            said["answer"] = answer or wording.NOTHING_MORE
            found.answered += 1
            dialogue = (*dialogue, Message("user", said["answer"]))
            chat = (*chat, dialogue[-1])
        if ends:
            found.ended = "stop"
            break
    found.raw = await ask(_joined(dialogue, wording.FINAL))
    found.output = unlabelled(found.raw)
    return found


def _joined(dialogue: tuple[Message, ...], text: str) -> tuple[Message, ...]:
    """The dialogue with a text in its last user message, or in a new one after the assistant's.

    Before any reply the last user message is the problem itself, which the caller holds: the text then stands alone.
    """
    if not text:
        return dialogue
    if dialogue and dialogue[-1].role == "user":
        return *dialogue[:-1], Message("user", f"{dialogue[-1].content}\n\n{text}")
    return *dialogue, Message("user", text)


async def _answered(
    simulator: Role, kind: Kind, described: str, chat: tuple[Message, ...], max_tokens: int
) -> tuple[str, bool]:
    """What the simulated user says, without the stop token, and whether the token was there.

    One that keeps to plain words instead of the form is taken at its word, and counted.
    """
    messages = wording.simulator_messages(kind, described, chat)
    for repeat in range(RETRIES + 1):
        text = await simulator.complete(
            messages,
            max_tokens=max_tokens,
            temperature=TEMPERATURE,
            top_p=TOP_P,
            schema=wording.SIMULATOR_SCHEMA,
            repeat=repeat,
            accept=lambda reply: _said(reply) is not None,
        )
        if (said := _said(text)) is not None:
            return said.replace(wording.STOP, "").strip(), wording.STOP in said
        simulator.flag("simulator_retried")
    if text.strip() and "{" not in text:
        simulator.flag("simulator_plain")
        return text.replace(wording.STOP, "").strip(), wording.STOP in text
    raise BackendError(
        f"the simulated user gave no readable reply in {RETRIES + 1} attempts; the last: {text[:80]!r}"
    )


def _said(reply: str) -> str | None:
    found = wording.json_of(reply)
    said = found.get("response") if found else None
    return said.strip() if isinstance(said, str) and said.strip() else None
