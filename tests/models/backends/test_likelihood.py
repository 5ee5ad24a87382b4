"""How likely a given reply is: what a vLLM server is asked, and which of its tokens are the
reply's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from fake_vllm import FakeVLLM, Site

from personabench.errors import BackendError
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.vllm import VLLM
from personabench.types import Message, Request, Response


class Weighing(FakeVLLM):
    """A server whose tokens are letters, each as likely as e to minus its place; a chat turn ends
    with a newline."""

    silent = False

    async def chat(self, http: web.Request) -> web.StreamResponse:
        body = await http.json()
        self.bodies.append(body)
        turns = [f"{message['role'][0]}:{message['content']}\n" for message in body["messages"]]
        text = "".join(turns)[:-1] if body.get("continue_final_message") else "".join(turns) + "a:"
        places: list[Any] = [None]
        for at, letter in enumerate(text[1:], 1):
            places.append(
                {str(ord(letter)): {"logprob": -float(at), "rank": 1, "decoded_token": letter}}
            )
        message = {"role": "assistant", "content": "x"}
        reply = {
            "id": "1",
            "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
            "usage": {"prompt_tokens": len(text), "completion_tokens": 1},
            "prompt_logprobs": None if self.silent else places,
        }
        return web.json_response(reply)


def weighed(silent: bool = False) -> tuple[Response, list[dict[str, Any]]]:
    async def go() -> tuple[Response, list[dict[str, Any]]]:
        site = Site(Weighing())
        site.fake.silent = silent  # type: ignore[attr-defined]
        await site.up()
        backend = VLLM(BackendOptions(base_url=site.url))
        try:
            await backend.identify()
            await backend.open()
            messages = (Message("user", "Hi"), Message("assistant", "ab"))
            return await backend.complete(Request(messages, 0, logprobs=1), "u"), site.fake.bodies
        finally:
            await backend.aclose()
            await site.down()

    return asyncio.run(go())


def test_the_tokens_of_a_given_reply_are_those_after_the_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fake_vllm.FakeVLLM", Weighing)
    response, (whole, start) = weighed()
    assert [token["token"] for token in response.logprobs] == ["a", "b"] and response.text == "ab"
    assert [token["logprob"] for token in response.logprobs] == [-7.0, -8.0]
    assert (
        whole["continue_final_message"]
        and not whole["add_generation_prompt"]
        and whole["max_tokens"] == 1
    )
    assert (
        "continue_final_message" not in start
        and len(start["messages"]) == 1
        and "logprobs" not in whole
    )
    assert response.usage.input_tokens == 9 + 7 and response.usage.output_tokens == 0


def test_a_server_that_reports_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fake_vllm.FakeVLLM", Weighing)
    with pytest.raises(BackendError, match="no log-probabilities of the prompt"):
        weighed(silent=True)
