"""The openai backend against a real loopback server that can be told to misbehave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from fake_api import (
    HEADER,
    SECRET,
    Server,
    close_early,
    close_mid_body,
    completion,
    garbage,
    hang,
    request,
    said,
    serving,
)

from personabench.errors import BackendDown, BackendError, TransientError, UsageError
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.openai import OpenAI
from personabench.models.client import Client


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    async with serving(monkeypatch) as served:
        yield served


@pytest_asyncio.fixture
async def backend(server: Server) -> AsyncIterator[OpenAI]:
    made = OpenAI(BackendOptions(base_url=server.url, timeout=0.5, headers={"X-Team": HEADER}))
    await made.identify()
    await made.open()
    yield made
    await made.aclose()


async def ask(backend: OpenAI, **fields: Any) -> Any:
    return await backend.complete(request(**fields), "u1")


async def identified(server: Server, **options: Any) -> OpenAI:
    made = OpenAI(BackendOptions(base_url=options.pop("base_url", server.url), **options))
    try:
        await made.identify()
    finally:
        await made.aclose()
    return made


async def test_reply_and_what_is_sent(server: Server, backend: OpenAI) -> None:
    response = await ask(backend, temperature=0.7, top_p=0.9, seed=5, repeat=2)
    assert (response.text, response.finish) == ("a reply", "stop")
    assert (
        response.usage.input_tokens,
        response.usage.output_tokens,
        response.usage.cached_tokens,
    ) == (11, 3, 7)
    assert server.bodies == [
        {
            "model": "tiny",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello?"},
            ],
            "max_tokens": 16,
            "temperature": 0.7,
            "top_p": 0.9,
            "seed": 7,
        }
    ]
    head = server.heads[0]
    assert head["Authorization"] == f"Bearer {SECRET}"
    assert head["Content-Type"] == "application/json"
    assert head["X-Team"] == HEADER
    assert "X-Stainless-OS" not in head


async def test_schema_and_logprobs(server: Server, backend: OpenAI) -> None:
    server.replies = [
        completion(logprobs={"content": [{"token": "4", "logprob": -0.1, "top_logprobs": []}]})
    ]
    response = await ask(backend, schema={"type": "object"}, logprobs=5)
    assert response.logprobs[0]["token"] == "4"
    assert server.bodies[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert server.bodies[0]["top_logprobs"] == 5 and server.bodies[0]["logprobs"] is True


async def test_length_cut_answer_is_marked(server: Server, backend: OpenAI) -> None:
    server.replies = [completion("cut o", "length")]
    assert (await ask(backend)).finish == "length"


async def test_refusal_is_the_answer(server: Server, backend: OpenAI) -> None:
    server.replies = [
        completion(message={"role": "assistant", "content": None, "refusal": "I would rather not."})
    ]
    assert (await ask(backend)).text == "I would rather not."


async def test_reply_without_usage(server: Server, backend: OpenAI) -> None:
    server.replies = [
        web.json_response({"choices": [{"message": {"content": "bare"}}], "usage": None})
    ]
    assert (await ask(backend)).text == "bare"


TRANSIENT = {
    "429": (lambda: said(429, "slow down"), "answered 429.*slow down"),
    "500": (lambda: said(500, "oops"), "answered 500.*oops"),
    "503": (lambda: web.Response(status=503), r"answered 503: \(nothing\)"),
    "408": (lambda: said(408, "late"), "answered 408"),
    "409": (lambda: said(409, "busy"), "answered 409"),
    "hang": (lambda: hang, r"did not answer within 0\.5 s"),
    "closed before a reply": (lambda: close_early, "broke the connection"),
    "closed mid-body": (lambda: close_mid_body, "broke the connection"),
    "not HTTP": (lambda: garbage, "broke the connection"),
    "malformed JSON": (
        lambda: web.Response(text='{"choices": [', content_type="application/json"),
        "not JSON",
    ),
    "no choice": (lambda: web.json_response({"choices": []}), "without a choice"),
}


@pytest.mark.parametrize("case", TRANSIENT)
async def test_transient_faults(server: Server, backend: OpenAI, case: str) -> None:
    fault, words = TRANSIENT[case]
    # A connection that was idle is replaced once, so closing it has to happen twice.
    server.replies = [fault()] * (2 if case == "closed before a reply" else 1)
    with pytest.raises(TransientError, match=words) as caught:
        await ask(backend)
    assert server.url in str(caught.value)
    assert caught.value.retry_after is None
    assert (await ask(backend)).text == "a reply"


FINAL = {
    "context length": (
        lambda: said(400, "maximum context length is 4096 tokens, you asked for 9000"),
        BackendError,
        "answered 400.*maximum context length is 4096",
    ),
    "422": (lambda: said(422, "no such field"), BackendError, "answered 422.*no such field"),
    "another shape": (
        lambda: web.json_response({"error": {"message": "upstream"}}),
        BackendError,
        "not a completion",
    ),
    "401": (
        lambda: said(401, "bad key"),
        BackendDown,
        "answered 401.*bad key.*check OPENAI_API_KEY",
    ),
    "403": (lambda: said(403, "not yours"), BackendDown, "answered 403.*check OPENAI_API_KEY"),
    "404": (
        lambda: said(404, "no model tiny"),
        BackendDown,
        "answered 404.*no model tiny.*--base-url and --model",
    ),
    "no credit": (lambda: said(429, "insufficient_quota"), BackendDown, "no credit left"),
}


@pytest.mark.parametrize("case", FINAL)
async def test_final_faults(server: Server, backend: OpenAI, case: str) -> None:
    fault, kind, words = FINAL[case]
    server.replies = [fault()]
    with pytest.raises(kind, match=words) as caught:
        await ask(backend)
    assert not isinstance(caught.value, TransientError)
    assert len(server.bodies) == 1


async def test_retry_after(server: Server, backend: OpenAI) -> None:
    server.replies = [
        said(429, "wait", **{"Retry-After": "1.5"}),
        said(503, "wait", **{"Retry-After": formatdate(time.time() + 60, usegmt=True)}),
        said(429, "wait", **{"Retry-After": "soon"}),
    ]
    wishes = []
    for _ in range(3):
        with pytest.raises(TransientError) as caught:
            await ask(backend)
        wishes.append(caught.value.retry_after)
    assert wishes[0] == 1.5 and wishes[1] is not None and 50 < wishes[1] <= 60 and wishes[2] is None


async def test_client_waits_as_told_and_counts(server: Server, backend: OpenAI) -> None:
    server.replies = [said(429, "wait", **{"Retry-After": "7"}), said(500, "oops"), close_mid_body]
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    client = Client(backend, None, "off", sleep=sleep)  # type: ignore[arg-type]
    response, call = await client.complete(request(), "predict", "u1")
    assert response.text == "a reply" and not call.cached
    assert waits[0] == 7 and all(wait < 3 for wait in waits[1:])
    assert client.traffic.retries == 3 and client.traffic.paid == 1 and len(server.bodies) == 4


async def test_client_gives_up_at_its_deadline(server: Server, backend: OpenAI) -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return said(500, "always")

    server.always = refuse
    client = Client(backend, None, "off", deadline=0.0)
    with pytest.raises(BackendDown, match=r"always.*given up"):
        await client.complete(request(), "predict", "u1")


async def test_only_model_is_used_and_its_window_known(server: Server) -> None:
    made = await identified(server)
    assert made.identity == {"kind": "api", "name": "tiny"} and made.window == 4096
    assert (await identified(server, window=1000)).window == 1000


async def test_several_models_ask_for_a_choice(server: Server) -> None:
    server.models["data"].append({"id": "large"})
    with pytest.raises(
        UsageError, match=r"serves 2 models \(large, tiny\); choose one with --model"
    ):
        await identified(server)
    made = await identified(server, model="large")
    assert made.identity["name"] == "large" and made.window is None


@pytest.mark.parametrize("models", [{"data": []}, {"data": None}, ["tiny"], "404"])
async def test_no_models_listed(server: Server, models: Any) -> None:
    server.models = web.Response(status=404) if models == "404" else models
    with pytest.raises(UsageError, match=r"serves 0 models.*--model"):
        await identified(server)


async def test_unlisted_model_is_taken_at_the_users_word(server: Server) -> None:
    server.models = {"data": []}
    assert (await identified(server, model="hidden")).identity["name"] == "hidden"


async def test_web_page_instead_of_an_api(server: Server) -> None:
    server.models = web.Response(text="<html>Welcome</html>", content_type="text/html")
    with pytest.raises(BackendDown, match=r"does not speak JSON.*Welcome.*usually ends in /v1"):
        await identified(server)


async def test_refused_connection_is_said_at_once(unused_tcp_port: int, server: Server) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}/v1"
    with pytest.raises(
        BackendDown, match=f"{url} cannot be reached.*is the server running.*ends in /v1"
    ):
        await identified(server, base_url=url)


async def test_server_out_of_reach_is_missed_only_when_needed(
    unused_tcp_port: int, server: Server
) -> None:
    made = await identified(server, base_url=f"http://127.0.0.1:{unused_tcp_port}/v1", model="tiny")
    assert made.identity["name"] == "tiny"
    with pytest.raises(BackendDown, match="cannot be reached"):
        await made.open()


async def test_key_refused_when_identifying(server: Server) -> None:
    server.models = said(401, f"Incorrect API key provided: {SECRET}")
    with pytest.raises(BackendDown, match=r"401.*provided: \*\*\*.*check OPENAI_API_KEY"):
        await identified(server)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1"])
async def test_base_url_without_a_scheme(server: Server, url: str) -> None:
    with pytest.raises(UsageError, match="has to start with http"):
        await identified(server, base_url=url)


async def test_no_key(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UsageError, match=r"no API key: set OPENAI_API_KEY.*--base-url"):
        await OpenAI(BackendOptions()).identify()
    assert (await identified(server)).identity["name"] == "tiny"


async def test_odd_key_is_refused_unshown(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-marker\u2019s")
    with pytest.raises(UsageError, match="OPENAI_API_KEY holds a character") as caught:
        await identified(server)
    assert "sk-marker" not in str(caught.value)


async def test_an_odd_header_is_refused_unshown(
    monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Team: {HEADER}\u2019s")
    with pytest.raises(UsageError, match=r"OPENAI_CUSTOM_HEADERS.*holds a character") as caught:
        await identified(server)
    assert HEADER not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1/v1", "http://127.0.0.1:999999/v1", "http://host:port/v1"]
)
async def test_base_url_without_a_host_or_port(server: Server, url: str) -> None:
    with pytest.raises(UsageError, match="no host, or no port"):
        await identified(server, base_url=url)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        (f"http://me:{HEADER}@localhost/v1", "name or password"),
        (f"http://localhost/v1?key={HEADER}", "query"),
        (f"http://me:{HEADER}@[::1/v1", "name or password"),
    ],
)
async def test_a_secret_in_the_url_is_refused_unshown(server: Server, url: str, what: str) -> None:
    with pytest.raises(UsageError, match=f"--base-url holds a {what}") as caught:
        await identified(server, base_url=url)
    assert HEADER not in str(caught.value)


async def test_an_address_without_a_path(server: Server) -> None:
    made = OpenAI(BackendOptions("tiny", server.url.removesuffix("/v1")))
    await made.identify()
    try:
        assert (await made.complete(request("a"), "u")).text
    finally:
        await made.aclose()


async def test_two_hundred_in_flight(server: Server) -> None:
    together, most = 0, 0

    async def slow(_: web.Request) -> web.StreamResponse:
        nonlocal together, most
        together += 1
        most = max(most, together)
        while most < 200:
            await asyncio.sleep(0.05)
        together -= 1
        return completion()

    server.always = slow
    patient = OpenAI(BackendOptions(base_url=server.url, timeout=60))
    await patient.identify()
    async with asyncio.timeout(100):
        responses = await asyncio.gather(
            *(patient.complete(request(str(at)), "u") for at in range(200))
        )
    await patient.aclose()
    assert len(responses) == 200 and most == 200
