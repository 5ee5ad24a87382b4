"""What a model's reply holds and how it ended: thought and answer apart, and the providers' words for an end.

Replies are split once, where they enter (`client.py`), so that methods, parsers, scorers, judges and simulated users
see answers only, whichever backend answered; `cache.py` splits those that were stored before there was a split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from personabench.types import Response

_NAMES = "think|thinking|thoughts?|reasoning|seed:think"
_START = rf"<(?:{_NAMES})>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>|<\|channel>thought\b"
_STOP = rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>|<channel\|>"
_BEGINS = re.compile(rf"\s*(?:{_START})", re.IGNORECASE)
_ENDS = re.compile(_STOP, re.IGNORECASE)
_TAG = re.compile(rf"(?P<start>{_START})|{_STOP}", re.IGNORECASE)
_FRAME = re.compile(
    r"\s*<\|(?:begin_of_solution|START_RESPONSE)\|>\s*(.*?)\s*(?:<\|(?:end_of_solution|END_RESPONSE)\|>\s*)?",
    re.DOTALL,
)
_CHANNEL = re.compile(
    r"(?:<\|start\|>assistant)?<\|channel\|>\s*(?P<name>analysis|commentary|final)(?![a-z])"
    r"(?:[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>)?"
)
_CHANNEL_END = re.compile(r"\s*<\|(?:end|return|call|start)\|>.*", re.DOTALL)
_BARE_CHANNELS = re.compile(r"\s*analysis(.*)assistantfinal(.*)", re.DOTALL)
_QUOTES = "`'\"“‘«"
_SIGNS = ("<", "[", "◁", "assistantfinal")

_WORDS = {
    "stop": "stop eos eos_token eot end_turn end stop_sequence stop_token stop_str stop_word complete completed done "
    "finished normal tool_calls tool_call tool_use function_call",
    "length": "length limit max_tokens max_length max_output_tokens max_new_tokens max_completion_tokens model_length "
    "model_context_window_exceeded token_limit",
    "refused": "content_filter content_filtered content_filter_error filter filtered safety image_safety refusal "
    "refused recitation blocklist blocked prohibited_content spii language sensitive moderation guardrail guardrails "
    "guardrail_intervened error_toxic",
}
_FINISHES = {word: finish for finish, words in _WORDS.items() for word in words.split()}


class Reply(NamedTuple):
    """A reply taken apart."""

    thought: str
    answer: str


def split(text: str) -> Reply:
    """A reply's thought and its answer.

    A thought stands at the start, between marks; with an end mark alone it began in the prompt, and with a start mark
    alone it was not finished, so that nothing is the answer.  Marks that an answer mentions stay in it: those after
    its beginning, in pairs, in quotes, or in JSON.
    """
    if not any(sign in text for sign in _SIGNS):
        return Reply("", text)
    channels = _by_channel(text)
    if channels is not None:
        return channels
    thoughts: list[str] = []
    start = 0
    while True:
        begun = _BEGINS.match(text, start)
        end = _ENDS.search(text, begun.end()) if begun else _unopened(text, start)
        if begun is None and end is None:
            break
        thoughts.append(
            text[begun.end() if begun else start : end.start() if end else None].strip()
        )
        start = end.end() if end else len(text)
    if not thoughts:
        return Reply("", text)
    answer = text[start:].lstrip()
    framed = _FRAME.fullmatch(answer)
    return Reply("\n\n".join(filter(None, thoughts)), framed[1] if framed else answer)


def _unopened(text: str, start: int) -> re.Match[str] | None:
    """The last end mark without a start mark, from `start` on: the thought before it began in the prompt."""
    depth, last = 0, None
    for tag in _TAG.finditer(text, start):
        if text[max(0, tag.start() - 1) : tag.start()] in tuple(_QUOTES):
            continue
        if tag["start"]:
            depth += 1
        elif depth:
            depth -= 1
        else:
            last = tag
    return None if last is None or _json(text[start:]) else last


def _json(text: str) -> bool:
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _by_channel(text: str) -> Reply | None:
    """A reply in named channels, of which only the final one is the answer; None where it is none."""
    marks = list(_CHANNEL.finditer(text))
    if marks and (marks[0][0].startswith("<|start|>") or not text[: marks[0].start()].strip()):
        parts = {"final": [""], "thought": [text[: marks[0].start()]]}
        for mark, after in zip(marks, [*marks[1:], None], strict=True):
            said = text[mark.end() : after.start() if after else None]
            parts["final" if mark["name"] == "final" else "thought"].append(said)
        thought, answer = (
            [_CHANNEL_END.sub("", part).strip() for part in parts[name]]
            for name in ("thought", "final")
        )
        return Reply("\n\n".join(filter(None, thought)), "\n\n".join(filter(None, answer)))
    bare = _BARE_CHANNELS.fullmatch(text)
    return Reply(bare[1].strip(), bare[2].strip()) if bare else None


def finish_of(word: str | None) -> str:
    """How a reply ended, by the provider's word for it: a `Response`'s `finish`, or "unsaid" without a word.

    A word that is in no table says nothing of the answer being whole, so it counts as "interrupted", like an error.
    """
    if not word:
        return "unsaid"
    return _FINISHES.get(
        re.sub(r"[\s-]+", "_", word.rpartition(".")[2].strip().lower()), "interrupted"
    )


def apart(response: Response) -> Response:
    """A response whose text is the answer alone; the same object where it was already."""
    thought, answer = split(response.text)
    if answer == response.text:
        return response
    thought = "\n\n".join(filter(None, (response.thought, thought)))
    return msgspec.structs.replace(response, text=answer, thought=thought)


def of_answer(
    logprobs: tuple[Mapping[str, Any], ...], answer: str
) -> tuple[Mapping[str, Any], ...]:
    """Those of a reply's tokens that make up its answer; all, where they do not spell it."""
    tokens = [str(token.get("token", "")) for token in logprobs]
    start = "".join(tokens).rfind(answer)
    if start < 0:
        return logprobs
    behind = 0
    for number, token in enumerate(tokens):
        behind += len(token)
        if behind > start:
            return logprobs[number:]
    return ()
