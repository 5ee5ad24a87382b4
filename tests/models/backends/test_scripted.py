"""Scripted answers: a function of the prompt alone."""

from __future__ import annotations

import asyncio
import time

import pytest

from personabench.errors import UsageError
from personabench.models.backends import BACKENDS, create
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted, echo
from personabench.models.tokens import EstimatedTokens
from personabench.types import Message, Request


def ask(*contents: str) -> Request:
    return Request(tuple(Message("user", content) for content in contents), max_tokens=10)


def test_backends_are_made_by_name() -> None:
    made = create("scripted", BackendOptions(model="mine", window=512))
    assert (
        isinstance(made, Scripted)
        and made.identity == {"kind": "scripted", "name": "mine"}
        and made.window == 512
    )
    assert {"local", "openai", "scripted"} <= BACKENDS.keys()
    with pytest.raises(UsageError, match="no backend named 'opnai'; did you mean openai"):
        create("opnai", BackendOptions())
    with pytest.raises(UsageError, match="known: local, openai"):
        create("zzz", BackendOptions())


async def test_the_same_prompt_gets_the_same_answer_and_another_another() -> None:
    one, two = Scripted(), Scripted(latency=0.001)
    first = await one.complete(ask("system words", "a question"), "u")
    assert (await two.complete(ask("system words", "a question"), "v")).text == first.text
    assert first.text.startswith("a question ") and first.text == echo(
        ask("system words", "a question")
    )
    other = await one.complete(ask("other words", "a question"), "u")
    assert other.text != first.text and other.text.split()[:2] == ["a", "question"]
    assert [request.messages[0].content for request in one.requests] == [
        "system words",
        "other words",
    ]


async def test_answers_can_be_computed_and_are_counted_in_tokens() -> None:
    backend = Scripted(answer=lambda request: request.messages[-1].content.upper())
    response = await backend.complete(ask("abcdef", "xyz"), "u")
    assert response.text == "XYZ" and response.finish == "stop"
    assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 1)


async def test_latency_is_imitated_for_calls_side_by_side() -> None:
    backend = Scripted(latency=0.05)
    began = time.perf_counter()
    await asyncio.gather(*(backend.complete(ask(str(number)), "u") for number in range(50)))
    assert 0.05 <= time.perf_counter() - began < 1.0


def test_estimated_tokens_never_cut_inside_a_character() -> None:
    tokens = EstimatedTokens()
    assert [tokens.count(text) for text in ("", "a", "abc", "abcd", "ü")] == [0, 1, 1, 2, 1]
    assert (
        tokens.truncate("aüüü", 1) == "aü"
        and tokens.truncate("üüü", 1) == "ü"
        and tokens.truncate("abc", -1) == ""
    )
    assert all(
        tokens.count(tokens.truncate("größer als " * 20, limit)) <= limit for limit in range(40)
    )
    assert not tokens.exact
