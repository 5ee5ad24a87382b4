"""Streams of events as servers send them, and those that break off."""

from __future__ import annotations

import json
import time
from typing import Any, NoReturn

import pytest

from personabench.models.backends.chat_completion import build_response, parse_completion
from personabench.models.backends.event_stream import is_stream
from personabench.types import Response


class Status(Exception):
    """A status that an error inside a stream stands for."""


def raise_status(status: int) -> NoReturn:
    raise Status(status)


def read(*events: dict[str, Any] | str) -> Response:
    data = [event if isinstance(event, str) else json.dumps(event) for event in events]
    content = "".join(f"event: message\r\ndata: {line}\r\n\r\n" for line in data).encode()
    assert is_stream(content)
    return build_response(parse_completion(content, "server", str, raise_status))


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def test_text_thought_and_usage_are_put_together() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4}
    response = read(
        delta(role="assistant", content=""),
        delta(reasoning="H"),
        delta(reasoning="m"),
        delta(content="Dry "),
        "not JSON",
        {"choices": []},
        delta("stop", content="again"),
        {"choices": [], "usage": usage},
        "[DONE]",
    )
    assert (response.text, response.thought, response.finish) == ("Dry again", "Hm", "stop")
    assert response.usage.output_tokens == 4


def test_parts_and_text_completions_are_put_together() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]
    response = read(delta(content=parts), delta(content="Dry"), delta("length"))
    assert (response.text, response.thought, response.finish) == ("Dry", "Hm", "length")
    pieces = [{"choices": [{"text": text}]} for text in ("Dry ", "again")]
    assert read(*pieces, "[DONE]").text == "Dry again"


def test_a_stream_without_an_end_is_interrupted() -> None:
    assert read(delta(content="Dry")).finish == "interrupted"
    error = {"error": {"message": "upstream"}}
    assert read(delta(content="Dry"), error, "[DONE]").finish == "interrupted"
    assert read(delta(content="Dry"), "[DONE]").finish == "unsaid"


def test_an_error_in_place_of_a_reply_has_its_status() -> None:
    with pytest.raises(Status, match="429"):
        read({"error": {"message": "slow down", "code": 429}})


def test_a_long_stream_is_read_at_once() -> None:
    started = time.monotonic()
    assert len(read(*[delta(content="word ")] * 20_000, "[DONE]").text) == 100_000
    assert time.monotonic() - started < 2
