"""Streamed replies: the events of a whole stream, put together into one completion.

Some servers only stream, others do so for models that think first.  A stream is read to its end
like any other reply, within the time of a call, so nothing else has to know of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

_STARTS = (b"data:", b"event:", b"id:", b":")
_REPLY_FIELDS = ("model", "system_fingerprint", "provider", "usage", "error")
_FIELDS = ("text", "content", "refusal", "reasoning_content", "reasoning", "thinking")
_DONE = b"[DONE]"
NO_END = "a stream without an end"
"""The finish reason of a stream that broke off; no server's word, so it is interrupted."""


def is_stream(content: bytes) -> bool:
    """Whether a body is a stream of events."""
    return content.lstrip().startswith(_STARTS)


def join_events(content: bytes) -> dict[str, Any]:
    """Return the completion that a stream of chat or text completions spells."""
    reply: dict[str, Any] = {}
    choice: dict[str, Any] = {}
    pieces: dict[str, list[Any]] = {}
    is_ended = False
    for data in _iter_data(content):
        is_ended |= data == _DONE
        event = _decode(data)
        reply |= {name: event[name] for name in _REPLY_FIELDS if event.get(name) is not None}
        choices = event.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            _add_choice(choice, pieces, choices[0])

    error = reply.pop("error", None)
    if error and not pieces:
        return {"error": error}
    texts = {name: _join(parts) for name, parts in pieces.items()}
    if "text" in texts:
        choice["text"] = texts["text"]
    else:
        choice["message"] = texts
    if error or not (is_ended or choice.get("finish_reason")):
        choice["finish_reason"] = NO_END
    return {**reply, "choices": [choice]}


def _iter_data(content: bytes) -> Iterator[bytes]:
    for line in content.splitlines():
        name, _, data = line.partition(b":")
        if name.strip() == b"data":
            yield data.strip()


def _decode(data: bytes) -> dict[str, Any]:
    try:
        event = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _add_choice(choice: dict[str, Any], pieces: dict[str, list[Any]], part: dict[str, Any]) -> None:
    """Add a piece of a choice to those before it."""
    if part.get("finish_reason"):
        choice["finish_reason"] = part["finish_reason"]

    # The completions API has no message around its text.
    delta = part.get("delta") or part.get("message") or part
    if isinstance(delta, dict):
        for name in _FIELDS:
            if delta.get(name):
                pieces.setdefault(name, []).append(delta[name])

    logprobs = part.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    if isinstance(tokens, list):
        choice.setdefault("logprobs", {"content": []})["content"].extend(tokens)


def _join(pieces: list[Any]) -> Any:
    """Return the text of pieces of text, and one list of all parts otherwise."""
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(pieces)
    parts = []
    for piece in pieces:
        parts += piece if isinstance(piece, list) else [piece]
    return parts
