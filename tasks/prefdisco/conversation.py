"""The turns between the model under test and the simulated user: parsing replies, ending the talk.

The loop ends when the model announces an answer, when the user stops, or after `max_turns`
questions.  In every case one more call requests the complete final answer, and only that reply is
scored.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from personabench.errors import BackendError
from personabench.metrics.text import drop_last_lines
from personabench.tasks.prefdisco import wording
from personabench.types import Message

if TYPE_CHECKING:
    from personabench.models.roles import Role

Kind = Literal["passive_nostop", "passive", "collaborative"]
Action = Literal["ask", "final"]

RETRIES = 3

# Part of the protocol: models can only be compared if they meet the same simulated user.
TEMPERATURE = 0.4
TOP_P = 0.95

# Models decorate labels with markdown, quotes and brackets, and some write JSON keys.
_MARKS = r"[\s\"'`*_#\[({<]*"
_MARKS_IN_LINE = r"(?:[^\S\n]|[\"'`*_#\[({<])*"
_ENDS = r"[\s\"'`*_#\])}>]*"
_ACTION = re.compile(
    rf"^{_MARKS_IN_LINE}action{_ENDS}[:=]{_MARKS}(ask|final)[\s_-]*(?:question|answer)?{_ENDS}[,;.]?",
    re.IGNORECASE | re.MULTILINE,
)
_RESPONSE = re.compile(
    r"^(?:[^\S\n]|[\"'`#\[({<])*(\*{0,3})response"
    r"(?:\1[\s\"'`#\])}>]*[:=]|[\s\"'`#\])}>]*[:=]\1)[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_ANNOUNCES = re.compile(
    r"\b(the (final |correct |right )?answer (is|would be)|final answer|"
    r"here is (the|my|your) (solution|answer)|"
    r"the solution is|in conclusion|to conclude|we conclude|therefore,? the (answer|result)|"
    r"(correct|right) (option|choice) is)\b",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"\b(would you (like|prefer|rather)|do you (want|prefer|like|know)|could you tell|"
    r"can you tell|may i ask|"
    r"are you (familiar|comfortable)|how (familiar|comfortable|would you)|what (is|are) your|"
    r"let me know (if|whether|how|what)|before i answer)\b",
    re.IGNORECASE,
)
_WRAPPERS = ('""', "''", "[]", "()", "**")


class Reply(NamedTuple):
    """A reply of the model under test: its action, and its text without labels."""

    action: Action
    text: str


def parse_reply(output: str) -> Reply:
    """Parse a reply by its action label, else by whether it announces an answer."""
    fields = wording.parse_json_object(output)
    if fields and isinstance(fields.get("action"), str) and "response" in fields:
        action: Action = "final" if "final" in fields["action"].casefold() else "ask"
        return Reply(action, str(fields["response"]).strip())

    text = remove_labels(output)
    label = _ACTION.search(output)
    if label:
        return Reply("final" if label[1].casefold() == "final" else "ask", text)

    # Without a label the default is a question: a wrong guess costs a turn, not the final answer.
    announces = _ANNOUNCES.search(text)
    asks = _ASKS.search(text) or text.endswith("?")
    return Reply("final" if announces and not asks else "ask", text)


def remove_labels(output: str) -> str:
    """Remove labels: keep the text after the response label, else all but the action."""
    fields = wording.parse_json_object(output)
    if fields and "response" in fields and "action" in fields:
        return str(fields["response"]).strip()

    response = _RESPONSE.search(output)
    if response:
        return _unwrap(output[response.end() :].strip())
    action = _ACTION.search(output)
    if action:
        before = drop_last_lines(output[: action.start()], "\"'`*_#[({<")
        return _unwrap((before + output[action.end() :]).strip())
    return output.strip()


@dataclass
class Discovery:
    """A finished conversation.

    Attributes:
        output: the final reply without labels; raw: the final reply unchanged.
        turns: action and text of the model in each turn of the loop, and the user's answer, if any.
        answered: questions that got an answer.
        ended: the reason why the loop ended.
    """

    output: str = ""
    raw: str = ""
    turns: list[dict[str, Any]] = field(default_factory=list)
    answered: int = 0
    ended: Literal["final", "stop", "turns"] = "turns"

    def to_json(self) -> dict[str, Any]:
        """The conversation as stored in a prediction's record."""
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
    """Let the model under test find out the user's wishes, then answer.

    Args:
        ask: the model's reply after the given messages, which follow on the problem.
        simulator: the simulated user.
        kind: behaviour of the simulated user.
        described: persona and all preferences, for the simulated user.
        max_turns: maximum number of turns of the loop.
        fixed: exact number of exchanges, regardless of action and stop; 0 for the loop.
        max_tokens: maximum tokens of each reply of the simulated user.

    Raises:
        BackendError: a call failed for good, or no reply of the simulated user could be parsed.
    """
    discovery = Discovery()

    # The model sees its replies with labels; the simulated user sees the bare questions.
    dialogue: tuple[Message, ...] = ()
    chat: tuple[Message, ...] = ()

    for turn in range(1, (fixed or max_turns) + 1):
        hint = wording.TURN.format(turn=turn, count=fixed) if fixed else ""
        raw = await ask(_append_text(dialogue, hint))
        reply = parse_reply(raw)
        dialogue = (*dialogue, Message("assistant", raw))
        exchange: dict[str, Any] = {"action": reply.action, "text": reply.text}
        discovery.turns.append(exchange)
        if reply.action == "final" and not fixed:
            discovery.ended = "final"
            break

        chat = (*chat, Message("assistant", reply.text))
        answer, stop = await _simulate_answer(simulator, kind, described, chat, max_tokens)
        ends = stop and kind == "passive" and not fixed
        # A stop with words is an answer too, and a user who cannot stop has to say something.
        if answer or not ends:
            exchange["answer"] = answer or wording.NOTHING_MORE
            discovery.answered += 1
            message = Message("user", exchange["answer"])
            dialogue = (*dialogue, message)
            chat = (*chat, message)
        if ends:
            discovery.ended = "stop"
            break

    discovery.raw = await ask(_append_text(dialogue, wording.FINAL))
    discovery.output = remove_labels(discovery.raw)
    return discovery


def _unwrap(text: str) -> str:
    """Remove one pair of quotes, brackets or stars around a whole text."""
    if len(text) < 2:
        return text
    for wrapper in _WRAPPERS:
        opening, closing = wrapper[0], wrapper[1]
        wrapped = text[0] == opening and text[-1] == closing
        if wrapped and opening not in text[1:-1]:
            return text[1:-1].strip()
    return text


def _append_text(dialogue: tuple[Message, ...], text: str) -> tuple[Message, ...]:
    """Append a text to the last user message, or as a new one after the assistant's.

    Before any reply the last user message is the problem itself, which the caller holds: the text
    then becomes a message of its own.
    """
    if not text:
        return dialogue
    if dialogue and dialogue[-1].role == "user":
        return *dialogue[:-1], Message("user", f"{dialogue[-1].content}\n\n{text}")
    return *dialogue, Message("user", text)


async def _simulate_answer(
    simulator: Role,
    kind: Kind,
    described: str,
    chat: tuple[Message, ...],
    max_tokens: int,
) -> tuple[str, bool]:
    """Get the simulated user's answer without the stop token, and whether the token was present.

    Plain words instead of the requested JSON are accepted in the end, and counted.
    """
    messages = wording.build_simulator_messages(kind, described, chat)
    for repeat in range(RETRIES + 1):
        text = await simulator.complete(
            messages,
            max_tokens=max_tokens,
            temperature=TEMPERATURE,
            top_p=TOP_P,
            schema=wording.SIMULATOR_SCHEMA,
            repeat=repeat,
            accept=lambda reply: _parse_answer(reply) is not None,
        )
        answer = _parse_answer(text)
        if answer is not None:
            return _split_stop(answer)
        simulator.flag("simulator_retried")

    # A brace means broken JSON, whose parts could be the simulator's secret thought.
    if text.strip() and "{" not in text:
        simulator.flag("simulator_plain")
        return _split_stop(text)
    raise BackendError(
        f"no reply of the simulated user could be parsed in {RETRIES + 1} attempts; "
        f"the last: {text[:80]!r}"
    )


def _split_stop(text: str) -> tuple[str, bool]:
    """Separate the stop token from an answer."""
    return text.replace(wording.STOP, "").strip(), wording.STOP in text


def _parse_answer(reply: str) -> str | None:
    """Parse the response field of the simulated user's JSON; None if it is missing or empty."""
    fields = wording.parse_json_object(reply)
    response = fields.get("response") if fields else None
    if not isinstance(response, str):
        return None
    return response.strip() or None
