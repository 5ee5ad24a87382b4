"""The openai backend against a real loopback server that can be told to misbehave."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from multidict import CIMultiDict

from personabench import runner
from personabench.backends import BackendOptions
from personabench.backends.openai import OpenAI
from personabench.client import Client
from personabench.errors import BackendDown, BackendError, RunError, TransientError, UsageError
from personabench.types import Message, Request

SECRET = "sk-marker-3141592653589793"
HEADER = "header-marker-2718281828"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def completion(text: str | None = "a reply", finish: str = "stop", **more: Any) -> web.Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}
    usage = {"prompt_tokens": 11, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 7}}
    return web.json_response({"id": "1", "model": "tiny", "choices": [choice], "usage": usage})


class Server:
    """Answers `replies` in order, then well; `bodies` and `heads` are what it was sent."""

    def __init__(self) -> None:
        self.models: Any = {"object": "list", "data": [{"id": "tiny", "max_model_len": 4096}]}
        self.replies: list[Handler | web.Response] = []
        self.always: Handler | None = None
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[CIMultiDict[str]] = []
        self.url = ""

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        if isinstance(self.models, web.Response):
            return self.models
        return web.json_response(self.models)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.heads.append(CIMultiDict(request.headers))
        if self.always is not None:
            return await self.always(request)
        reply = self.replies.pop(0) if self.replies else completion()
        return reply if isinstance(reply, web.Response) else await reply(request)


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    served = Server()
    app = web.Application()
    app.router.add_get("/v1/models", served.list_models)
    app.router.add_post("/v1/chat/completions", served.chat)
    owner = web.AppRunner(app, shutdown_timeout=0.1)
    await owner.setup()
    site = web.TCPSite(owner, "127.0.0.1", 0)
    await site.start()
    served.url = f"http://127.0.0.1:{owner.addresses[0][1]}/v1"
    yield served
    await owner.cleanup()


@pytest_asyncio.fixture
async def backend(server: Server) -> AsyncIterator[OpenAI]:
    made = OpenAI(BackendOptions(base_url=server.url, timeout=0.5, headers={"X-Team": HEADER}))
    await made.identify()
    await made.open()
    yield made
    await made.aclose()


def request(text: str = "Hello?", **fields: Any) -> Request:
    return Request(messages=(Message("system", "Be brief."), Message("user", text)), max_tokens=16, **fields)


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
    response = await ask(backend, temperature=0.7, top_p=0.9, seed=5, draw=2)
    assert (response.text, response.finish) == ("a reply", "stop")
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.cached_tokens) == (11, 3, 7)
    assert server.bodies == [
        {
            "model": "tiny",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
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
    server.replies = [completion(logprobs={"content": [{"token": "4", "logprob": -0.1, "top_logprobs": []}]})]
    response = await ask(backend, schema={"type": "object"}, logprobs=5)
    assert response.logprobs[0]["token"] == "4"
    assert server.bodies[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert server.bodies[0]["top_logprobs"] == 5 and server.bodies[0]["logprobs"] is True


async def test_length_cut_answer_is_marked(server: Server, backend: OpenAI) -> None:
    server.replies = [completion("cut o", "length")]
    assert (await ask(backend)).finish == "length"


async def test_refusal_is_the_answer(server: Server, backend: OpenAI) -> None:
    server.replies = [completion(message={"role": "assistant", "content": None, "refusal": "I would rather not."})]
    assert (await ask(backend)).text == "I would rather not."


async def test_reply_without_usage(server: Server, backend: OpenAI) -> None:
    server.replies = [web.json_response({"choices": [{"message": {"content": "bare"}}], "usage": None})]
    assert (await ask(backend)).text == "bare"


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(5)
    return completion()


async def close_early(http: web.Request) -> web.StreamResponse:
    assert http.transport is not None
    http.transport.close()
    return web.Response()


async def close_mid_body(http: web.Request) -> web.StreamResponse:
    reply = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await reply.prepare(http)
    await reply.write(b'{"choices": [{"mess')
    assert http.transport is not None
    http.transport.close()
    return reply


async def garbage(http: web.Request) -> web.StreamResponse:
    assert http.transport is not None
    http.transport.write(b"220 mail.example ESMTP\r\n\r\n")  # type: ignore[attr-defined]
    http.transport.close()
    return web.Response()


def said(status: int, text: str, **headers: str) -> web.Response:
    return web.json_response({"error": {"message": text}}, status=status, headers=headers)


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
    "malformed JSON": (lambda: web.Response(text='{"choices": [', content_type="application/json"), "not JSON"),
    "no choice": (lambda: web.json_response({"choices": []}), "without a choice"),
}


@pytest.mark.parametrize("case", TRANSIENT)
async def test_transient_faults(server: Server, backend: OpenAI, case: str) -> None:
    fault, words = TRANSIENT[case]
    server.replies = [fault()]
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
    "another shape": (lambda: web.json_response({"error": {"message": "upstream"}}), BackendError, "not a completion"),
    "401": (lambda: said(401, "bad key"), BackendDown, "answered 401.*bad key.*check OPENAI_API_KEY"),
    "403": (lambda: said(403, "not yours"), BackendDown, "answered 403.*check OPENAI_API_KEY"),
    "404": (lambda: said(404, "no model tiny"), BackendDown, "answered 404.*no model tiny.*--base-url and --model"),
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
    with pytest.raises(UsageError, match=r"serves 2 models \(large, tiny\); choose one with --model"):
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
    with pytest.raises(BackendDown, match=f"{url} cannot be reached.*is the server running.*ends in /v1"):
        await identified(server, base_url=url)


async def test_server_out_of_reach_is_missed_only_when_needed(unused_tcp_port: int, server: Server) -> None:
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


async def test_password_in_the_url_is_refused_unshown(server: Server) -> None:
    with pytest.raises(UsageError, match="--base-url holds a name or password") as caught:
        await identified(server, base_url=f"http://me:{HEADER}@localhost/v1")
    assert HEADER not in str(caught.value)


def lamp_files(folder: Path, samples: int) -> Path:
    folder.mkdir()
    profile = [{"id": "p1", "text": "Rain fell on the town.", "title": "Wet again", "date": "2020-01-01"}]
    records = [
        {"id": f"q{at}", "input": f"Generate a headline for the following article: story {at}", "profile": profile}
        | {"user_id": f"u{at}"}
        for at in range(samples)
    ]
    golds = [{"id": record["id"], "output": "Dry again"} for record in records]
    (folder / "dev_questions.json").write_text(json.dumps(records))
    (folder / "dev_outputs.json").write_text(json.dumps({"task": "LaMP_4", "golds": golds}))
    return folder


def options(server: Server, tmp_path: Path, **backend: Any) -> runner.Options:
    return runner.Options(
        methods=["none"],
        tasks=["lamp4"],
        data=tmp_path / "data",
        backend="openai",
        backend_options=BackendOptions(base_url=server.url, headers={"X-Team": HEADER}, **backend),
        concurrency=4,
        results=tmp_path / "results",
    )


async def test_run_counts_failures_resumes_and_never_writes_a_secret(server: Server, tmp_path: Path) -> None:
    lamp_files(tmp_path / "data", 12)

    async def echo_secrets(http: web.Request) -> web.StreamResponse:
        number = int((await http.json())["messages"][-1]["content"].split("story ")[1].split()[0])
        if number % 3 == 0:
            return said(400, f"key {http.headers['Authorization']} of team {http.headers['X-Team']} asked too much")
        return completion(f"Headline {number}")

    server.always = echo_secrets
    (outcome,) = await runner.run(options(server, tmp_path))
    assert outcome.summary["status"] == "incomplete"
    assert (outcome.summary["n"], outcome.summary["owed"]) == (8, 4)
    assert outcome.summary["counters"]["request_errors"] == 4
    errors = [line for line in (outcome.folder / "predictions.jsonl").read_text().splitlines() if "asked too" in line]
    assert len(errors) == 4 and all("answered 400" in line and "Bearer ***" in line for line in errors)

    async def refuse(http: web.Request) -> web.StreamResponse:
        return said(401, f"Incorrect API key provided: {http.headers['Authorization']}")

    server.always = refuse
    with pytest.raises(RunError, match="check OPENAI_API_KEY") as caught:
        await runner.run(options(server, tmp_path))
    assert SECRET not in str(caught.value)

    server.always = None
    before = len(server.bodies)
    (outcome,) = await runner.run(options(server, tmp_path))
    assert outcome.summary["status"] == "complete" and len(server.bodies) == before + 4

    written = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert {"cache.sqlite", "spec.json", "001.log"} <= {path.name for path in written}
    for path in written:
        content = path.read_bytes()
        assert SECRET.encode() not in content and HEADER.encode() not in content, path
        assert server.url.encode() not in content or path.suffix in (".log", ".jsonl"), path


async def test_finished_run_needs_no_server(server: Server, tmp_path: Path, unused_tcp_port: int) -> None:
    lamp_files(tmp_path / "data", 3)
    (first,) = await runner.run(options(server, tmp_path, model="tiny"))
    server.url = f"http://127.0.0.1:{unused_tcp_port}/v1"
    (again,) = await runner.run(options(server, tmp_path, model="tiny"))
    assert again.folder == first.folder and again.summary["metrics"] == first.summary["metrics"]
    assert len(server.bodies) == 3


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
        responses = await asyncio.gather(*(patient.complete(request(str(at)), "u") for at in range(200)))
    await patient.aclose()
    assert len(responses) == 200 and most == 200
