"""Errors of servers: by status, by words, and by codes inside a reply of status 200."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from fake_api import SECRET, Server, completion, options, request, serving

from personabench.errors import (
    BackendDown,
    BackendError,
    Filtered,
    Refused,
    RunError,
    Throttled,
    TransientError,
)
from personabench.models import client
from personabench.models.backends import create
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.chat_completion import Completion, build_response
from personabench.models.backends.redaction import Secrets
from personabench.models.backends.status import inner_status, status_error
from personabench.results.run_folder import RunFolder
from personabench.run import runner
from personabench.types import Usage

BOTH = pytest.mark.parametrize("backend", ["openai", "vllm"])
NO_QUOTA = {
    "error": {
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "type": "insufficient_quota",
        "code": "insufficient_quota",
    }
}
PER_MINUTE = {
    "error": {
        "code": 429,
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [{"retryDelay": "34s"}],
    }
}


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(client, "RETRY_FIRST", 0.001)
    monkeypatch.setattr(client, "RETRY_LONGEST", 0.01)
    async with serving(monkeypatch) as served:
        yield served


def error_of(status: int, body: Any, **headers: str) -> Exception:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return status_error("http://s/v1", status, content, headers, Secrets([SECRET]), "set KEY")


STATUSES = [
    (400, "Input data may contain inappropriate content.", Filtered, "inappropriate"),
    (400, "Unsupported parameter: 'safety_identifier'", Refused, "safety_identifier"),
    (400, {"input": "content filter", "message": "odd"}, Refused, "odd"),
    (400, "no such field", Refused, "answered 400"),
    (400, "Your credit balance is too low to access the API", BackendDown, "no credit left"),
    (400, "API key not valid. Please pass a valid API key.", BackendDown, "set KEY"),
    (400, "Budget has been exceeded! Current cost: 5.1", BackendDown, "no credit left"),
    (400, "You have reached your specified API usage limits.", BackendDown, "no credit left"),
    (400, {"msg": "odd", "input": "I am out of credits"}, Refused, "odd"),
    (401, "bad key", BackendDown, "set KEY"),
    (402, "Insufficient Balance", BackendDown, "no credit left"),
    (402, "", BackendDown, "no credit left"),
    (403, "not yours", BackendDown, "set KEY"),
    (403, "requires moderation: your input was flagged", Filtered, "flagged"),
    (403, "Your account was flagged for suspicious activity", BackendDown, "set KEY"),
    (403, "Blocked by content_policy", Filtered, "content_policy"),
    (403, "Country, region, or territory not supported", BackendDown, "not offered where"),
    (404, "no model", BackendDown, "--base-url and --model"),
    (405, "Method Not Allowed", BackendDown, "--base-url and --model"),
    (407, "", BackendDown, "HTTPS_PROXY"),
    (408, "late", TransientError, "late"),
    (412, "Account acme is suspended, possibly by a spending limit", BackendDown, "no credit"),
    (412, "odd", Refused, "odd"),
    (413, "too large", Refused, "too large"),
    (422, "odd", Refused, "odd"),
    (424, "failed dependency", TransientError, "dependency"),
    (429, "slow down", Throttled, "slow down"),
    (429, NO_QUOTA, BackendDown, "no credit left"),
    (429, PER_MINUTE, Throttled, "RESOURCE_EXHAUSTED"),
    (429, '"quotaId": "RequestsPerDayPerModel", "retryDelay": "8s"', BackendDown, "is reset"),
    (429, '"quotaId": "RequestsPerMinutePerModel", "retryDelay": "8s"', Throttled, "PerMinute"),
    (429, "Request too large for gpt-4o on tokens per min", Refused, "too large"),
    (429, "Rate limit exceeded: free-models-per-day", BackendDown, "repeat the command"),
    (429, "requests per day: please try again in 7.2s", Throttled, "per day"),
    (498, "flex tier capacity exceeded", TransientError, "capacity"),
    (499, "cancelled", TransientError, "cancelled"),
    (500, "oops", TransientError, "oops"),
    (500, "jinja2.exceptions.TemplateError: roles must alternate", Refused, "roles must"),
    (500, "Requested tokens (900) exceed context window of 512", Refused, "512"),
    (501, "not implemented", BackendDown, "--base-url"),
    (503, "loading model", TransientError, "loading"),
    (529, "overloaded", TransientError, "overloaded"),
]


@pytest.mark.parametrize(("status", "body", "kind", "words"), STATUSES)
def test_each_status_has_one_consequence(
    status: int, body: Any, kind: type[Exception], words: str
) -> None:
    error = error_of(status, body)
    assert type(error) is kind and words in str(error)


WAITS = [
    ({"retry-after": "3"}, "", 3.0),
    ({"retry-after-ms": "1500", "retry-after": "2"}, "", 1.5),
    ({}, "Please try again in 20s.", 20.0),
    ({}, "Please try again in 1m20.5s.", 80.5),
    ({}, "Please try again in 1h2m3s.", 3723.0),
    ({}, "Please retry after 30 seconds.", 30.0),
    ({}, "Please try again in 200ms.", None),
    ({}, {"detail": "slow down", "retry_after": 12.5}, 12.5),
    ({}, PER_MINUTE, 34.0),
    ({"retry-after": "soon"}, "try again later", None),
]


@pytest.mark.parametrize(("headers", "body", "seconds"), WAITS)
def test_a_stated_wait_is_read(headers: dict[str, str], body: Any, seconds: float | None) -> None:
    error = error_of(429, body, **headers)
    assert isinstance(error, Throttled) and error.retry_after == seconds


INNER = [
    ({"code": 429}, 429),
    ({"code": "429"}, 429),
    ({"code": 502.0}, 502),
    ({"code": None, "type": "overloaded_error"}, 529),
    ({"code": 8, "status": "RESOURCE_EXHAUSTED"}, 429),
    ({"type": "insufficient_quota"}, 402),
    ({"message": "model not found"}, 404),
    ({"message": "odd"}, None),
    ("Unexpected endpoint or method. (POST /chat/completions)", 404),
    ({"object": "error", "message": "odd", "code": 400}, 400),
    ({"detail": "Not Found"}, 404),
    ({"detail": [{"loc": ["body"]}]}, None),
    ("Too many requests, please wait", 429),
    ("The model is temporarily overloaded", 503),
    ({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, 402),
    ({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}, "choices": None}, 429),
    ({"base_resp": None}, None),
    ({"errors": [{"code": 3040, "message": "Capacity temporarily exceeded"}]}, 503),
    ("odd", None),
    (None, None),
    (["429"], None),
]


@pytest.mark.parametrize(("error", "status"), INNER)
def test_errors_inside_a_reply_of_status_200(error: Any, status: int | None) -> None:
    assert inner_status(error) == status


def test_a_long_unbroken_reply_is_cut_at_once() -> None:
    started = time.monotonic()
    message = str(error_of(400, "x" * 1_000_000 + SECRET))
    assert time.monotonic() - started < 0.2 and len(message) < 400


@pytest.mark.parametrize("offset", [270, 290, 299, 300, 310])
@pytest.mark.parametrize("secret", [SECRET, "sk-ma***************5793"])
def test_a_secret_at_the_cut_is_not_shown_in_part(offset: int, secret: str) -> None:
    message = str(error_of(400, "x " * (offset // 2) + secret))
    assert "sk-m" not in message and "5793" not in message


def test_a_servers_escape_sequences_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in str(error_of(400, "a\x1b[31mb\r\nc"))


def reply_often(*replies: Callable[[], web.Response]) -> Any:
    """Give each of the replies once per prompt, and then a good one."""
    calls: dict[str, int] = {}

    async def handle(http: web.Request) -> web.StreamResponse:
        body = await http.json()
        prompt = body["messages"][-1]["content"]
        number = calls.get(prompt, 0)
        calls[prompt] = number + 1
        return replies[number]() if number < len(replies) else completion("Dry again")

    return handle


def on(backend: str, server: Server, tmp_path: Path, samples: int) -> runner.Options:
    return replace(
        options(server, tmp_path, samples),
        backend=backend,
        backend_options=BackendOptions(base_url=server.url),
    )


PASSING = {
    "error in 200": {"error": {"message": "Provider returned error", "code": 429}},
    "error at the top": {"object": "error", "message": "overloaded", "code": 503},
    "null choices": {"choices": None, "error": {"message": "overloaded", "code": 502}},
    "error in a choice": {
        "choices": [
            {
                "message": {"content": ""},
                "finish_reason": "error",
                "error": {"code": 502, "message": "lost"},
            }
        ]
    },
    "null message": {"choices": [{"message": None, "finish_reason": None}]},
    "null choice": {"choices": [None]},
}


@BOTH
@pytest.mark.parametrize("case", PASSING)
async def test_passing_errors_inside_a_reply_are_outlived(
    server: Server, tmp_path: Path, backend: str, case: str
) -> None:
    server.always = reply_often(lambda: web.json_response(PASSING[case]))
    (outcome,) = await runner.run(on(backend, server, tmp_path, 4))
    assert outcome.summary.status == "complete" and len(server.bodies) == 8
    assert outcome.summary.counters["request_errors"] == 0


ENDING = {
    "payment": (
        lambda: web.json_response({"error": {"message": "Insufficient Balance"}}, status=402),
        "no credit left",
    ),
    "quota": (lambda: web.json_response(NO_QUOTA, status=429), "no credit left"),
    "quota in 200": (lambda: web.json_response(NO_QUOTA), "no credit left"),
    "quota beside no choices": (
        lambda: web.json_response(
            {
                "choices": None,
                "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"},
            }
        ),
        "no credit left",
    ),
    "wrong path of another framework": (
        lambda: web.json_response({"detail": "Not Found"}),
        "--base-url",
    ),
    "wrong path": (
        lambda: web.json_response({"error": "Unexpected endpoint or method. (POST /x)"}),
        "--base-url",
    ),
}


@BOTH
@pytest.mark.parametrize("case", ENDING)
async def test_errors_that_no_repetition_mends_end_the_command(
    server: Server, tmp_path: Path, backend: str, case: str
) -> None:
    reply, words = ENDING[case]

    async def refuse(_: web.Request) -> web.StreamResponse:
        return reply()

    server.always = refuse
    with pytest.raises(RunError, match=words):
        await runner.run(on(backend, server, tmp_path, 30))
    assert len(server.bodies) <= 5


@BOTH
async def test_a_flagged_prompt_fails_its_sample_alone(
    server: Server, tmp_path: Path, backend: str
) -> None:
    flagged = {
        "error": {
            "message": 'Your input was flagged for "violence".',
            "code": 403,
            "metadata": {"reasons": ["violence"]},
        }
    }

    async def moderate(http: web.Request) -> web.StreamResponse:
        prompt = (await http.json())["messages"][-1]["content"]
        if "story 1" in prompt:
            return web.json_response(flagged, status=403)
        return completion("Dry again")

    server.always = moderate
    # Stories 1 and 10 to 19, which come first for some users: they must not end the run.
    (outcome,) = await runner.run(on(backend, server, tmp_path, 20))
    assert (outcome.summary.n, outcome.summary.owed) == (9, 11)
    assert "violence" in (outcome.folder / "predictions.jsonl").read_text()


@BOTH
async def test_a_template_that_fails_is_shown_at_once(
    server: Server, tmp_path: Path, backend: str
) -> None:
    async def fail(_: web.Request) -> web.StreamResponse:
        text = "TemplateError: Conversation roles must alternate"
        return web.json_response({"error": {"message": text}}, status=500)

    server.always = fail
    started = time.monotonic()
    with pytest.raises(RunError, match="roles must alternate"):
        await runner.run(on(backend, server, tmp_path, 30))
    assert time.monotonic() - started < 5


@BOTH
async def test_a_page_in_place_of_a_reply_is_not_requested_again(
    server: Server, backend: str
) -> None:
    server.replies = [web.Response(text="<html>Log in</html>", content_type="text/html")]
    model = create(backend, BackendOptions(base_url=server.url))
    await model.identify()
    with pytest.raises(Refused, match=r"Log in.*--base-url"):
        await model.complete(request(), "u")
    await model.aclose()


@BOTH
@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"])
async def test_a_deeply_nested_reply_is_an_error_of_the_server(
    server: Server, backend: str, body: bytes
) -> None:
    server.replies = [web.Response(body=body, content_type="application/json")]
    model = create(backend, BackendOptions(base_url=server.url))
    await model.identify()
    with pytest.raises(BackendError):
        await model.complete(request(), "u")
    await model.aclose()


GOOD = b'"choices": [{"message": {"content": "Dry again"}, "finish_reason": "stop"}]'
ODD = {
    "usage as text": b'{"usage": "none", ' + GOOD + b"}",
    "usage of texts": b'{"usage": {"prompt_tokens": "7", "completion_tokens": 2.0}, ' + GOOD + b"}",
    "usage of lists": b'{"usage": {"prompt_tokens": [7]}, ' + GOOD + b"}",
    "details as text": b'{"usage": {"prompt_tokens_details": "x"}, ' + GOOD + b"}",
    "a name that is none": b'{"model": 7, "provider": {"a": 1}, ' + GOOD + b"}",
    "not a number": b'{"cost": NaN, ' + GOOD + b"}",
    "bad UTF-8": b'{"id": "\xff", ' + GOOD + b"}",
    "a byte order mark": b"\xef\xbb\xbf{" + GOOD + b"}",
    "prompt log-probabilities as text": b'{"prompt_logprobs": "x", ' + GOOD + b"}",
    "a refusal that is none": b'{"choices": [{"message": {"content": "Dry again", '
    b'"refusal": false}, "finish_reason": "stop"}]}',
    "log-probabilities as text": GOOD.replace(b'{"message"', b'{"logprobs": "x", "message"').join(
        [b"{", b"}"]
    ),
    "a finish as an object": GOOD.replace(b'"stop"', b'{"type": "stop", "matched": 2}').join(
        [b"{", b"}"]
    ),
    "content as an object": b'{"choices": [{"message": {"content": {"type": "text", '
    b'"text": "Dry again"}}, "finish_reason": "stop"}]}',
    "more choices": b"{" + GOOD.replace(b"]", b', {"message": 7}]') + b"}",
}


@BOTH
@pytest.mark.parametrize("case", ODD)
async def test_odd_side_values_do_not_cost_the_answer(
    server: Server, backend: str, case: str
) -> None:
    async def reply(_: web.Request) -> web.StreamResponse:
        return web.Response(body=ODD[case], content_type="application/json")

    server.always = reply
    model = create(backend, BackendOptions(base_url=server.url))
    await model.identify()
    response = await model.complete(request(), "u")
    await model.aclose()
    assert (response.text, response.finish) == ("Dry again", "stop")
    if case == "usage of texts":
        assert (response.usage.input_tokens, response.usage.output_tokens) == (7, 2)


@BOTH
@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning": "I weigh."},
        {"thinking": "I weigh."},
        {"reasoning": None, "reasoning_details": [{"type": "reasoning.text", "text": "I weigh."}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "I weigh.", "signature": "x"}]},
    ],
)
async def test_a_thought_in_a_field_is_kept(
    server: Server, backend: str, fields: dict[str, Any]
) -> None:
    message = {"role": "assistant", "content": "Dry again", **fields}
    server.replies = [completion(message=message)]
    model = create(backend, BackendOptions(base_url=server.url))
    await model.identify()
    response = await model.complete(request(), "u")
    await model.aclose()
    assert (response.text, response.thought) == ("Dry again", "I weigh.")


@BOTH
async def test_tokens_without_a_probability_are_unlikely(server: Server, backend: str) -> None:
    letter = {"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "b", "logprob": None}]}
    tokens = [{"token": "(", "logprob": None, "top_logprobs": None}, letter]
    server.replies = [completion("(a)", logprobs={"content": tokens})]
    model = create(backend, BackendOptions(base_url=server.url))
    await model.identify()
    response = await model.complete(request(logprobs=2), "u")
    await model.aclose()
    assert [token["logprob"] for token in response.logprobs] == [-9999.0, -0.1]
    assert response.logprobs[0]["top_logprobs"] == []
    assert response.logprobs[1]["top_logprobs"][0]["logprob"] == -9999.0


@BOTH
async def test_a_model_that_changes_in_mid_run_is_counted(
    server: Server, tmp_path: Path, backend: str
) -> None:
    async def drift(_: web.Request) -> web.StreamResponse:
        model = "tiny-2024-05-13" if len(server.bodies) <= 2 else "tiny-2024-11-20"
        reply = json.loads(completion("Dry again", model=model).text or "")
        return web.json_response({**reply, "system_fingerprint": "fp_1", "provider": "North"})

    server.always = drift
    (outcome,) = await runner.run(on(backend, server, tmp_path, 6))
    assert outcome.summary.counters["model_changes"] == 2
    assert outcome.summary.usage["predict"].served == {
        "tiny-2024-05-13 (fp_1) via North": 2,
        "tiny-2024-11-20 (fp_1) via North": 4,
    }
    assert outcome.summary.counters.get("other_model", 0) == 0


USAGES = {
    "openai": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "prompt_tokens_details": {"cached_tokens": 64},
            "completion_tokens_details": {"reasoning_tokens": 12},
        },
        Usage(100, 20, 64, 12),
    ),
    "deepseek": (
        {"prompt_tokens": 100, "completion_tokens": 20, "prompt_cache_hit_tokens": 64},
        Usage(100, 20, 64),
    ),
    "moonshot": (
        {"prompt_tokens": 100, "completion_tokens": 20, "cached_tokens": 64},
        Usage(100, 20, 64),
    ),
    "openrouter": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 64},
        },
        Usage(100, 20, cache_write_tokens=64),
    ),
    "xai": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 150,
            "completion_tokens_details": {"reasoning_tokens": 30},
        },
        Usage(100, 50, 0, 30),
    ),
    "gemini": (
        {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 150},
        Usage(100, 50, 0, 30),
    ),
    "anthropic": (
        {
            "input_tokens": 30,
            "output_tokens": 20,
            "cache_read_input_tokens": 64,
            "cache_creation_input_tokens": 6,
        },
        Usage(100, 20, 64, cache_write_tokens=6),
    ),
    "nulls": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": None,
            "prompt_tokens_details": None,
            "completion_tokens_details": {"reasoning_tokens": None},
        },
        Usage(100, 20),
    ),
}


@pytest.mark.parametrize("case", USAGES)
def test_every_servers_counts_are_read(case: str) -> None:
    reported, usage = USAGES[case]
    reply = msgspec.convert(
        {"choices": [{"message": {"content": "a"}}], "usage": reported}, Completion
    )
    assert build_response(reply).usage == usage


async def test_thoughts_that_only_the_total_counts_are_in_the_books(
    server: Server, tmp_path: Path
) -> None:
    async def think(_: web.Request) -> web.StreamResponse:
        reply = json.loads(completion("Dry again").text or "")
        usage = {"prompt_tokens": 40, "completion_tokens": 3, "total_tokens": 50}
        return web.json_response({**reply, "usage": usage})

    server.always = think
    (outcome,) = await runner.run(on("openai", server, tmp_path, 2))
    phase = outcome.summary.usage["predict"]
    assert (phase.output_tokens, phase.reasoning_tokens) == (20, 14)
    (line, _) = RunFolder(outcome.folder).iter_predictions()
    assert (line.usage.output_tokens, line.usage.reasoning_tokens) == (10, 7)
    assert line.calls[0].reasoning_tokens == 7
