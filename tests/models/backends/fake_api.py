"""An OpenAI-compatible server on loopback that can be told to misbehave, and how to ask it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fake_vllm import is_probe
from multidict import CIMultiDict

from personabench.models.backends.base import BackendOptions
from personabench.run import runner
from personabench.types import Message, Request

SECRET = "sk-marker-3141592653589793"
HEADER = "header-marker-2718281828"
SETTINGS = (
    "OPENAI_BASE_URL",
    "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID",
    "AZURE_OPENAI_API_KEY",
    "AZURE_OPENAI_ENDPOINT",
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def completion(
    text: str | None = "a reply", finish: str = "stop", model: str = "tiny", **more: Any
) -> web.Response:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish,
        **more,
    }
    usage = {
        "prompt_tokens": 11,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 7},
    }
    return web.json_response({"id": "1", "model": model, "choices": [choice], "usage": usage})


def said(status: int, text: str, **headers: str) -> web.Response:
    return web.json_response({"error": {"message": text}}, status=status, headers=headers)


class Server:
    """Answers `replies` in order, then well; `always` answers everything.

    What it was sent is kept.  Probes get a good answer and are in `probes`, unless it `probes_too`:
    then they are like calls.
    """

    def __init__(self) -> None:
        self.models: Any = {"object": "list", "data": [{"id": "tiny", "max_model_len": 4096}]}
        self.replies: list[Handler | web.Response] = []
        self.always: Handler | None = None
        self.bodies: list[dict[str, Any]] = []
        self.probes: list[dict[str, Any]] = []
        self.probes_too = False
        self.heads: list[CIMultiDict[str]] = []
        self.paths: list[str] = []
        self.url = ""

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        if isinstance(self.models, web.Response):
            return self.models
        return web.json_response(self.models)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if is_probe(body):
            self.probes.append(body)
            if not self.probes_too:
                return completion('{"word": "yes"}', model=body["model"])
        self.bodies.append(body)
        self.heads.append(CIMultiDict(request.headers))
        self.paths.append(request.path_qs)
        if self.always is not None:
            return await self.always(request)
        reply = self.replies.pop(0) if self.replies else completion()
        return reply if isinstance(reply, web.Response) else await reply(request)


@asynccontextmanager
async def serving(
    monkeypatch: pytest.MonkeyPatch, more: Callable[[web.Application], None] = lambda app: None
) -> AsyncIterator[Server]:
    """A server, with the environment of a user who has its key; `more` adds routes."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    served = Server()
    app = web.Application()
    app.router.add_get("/v1/models", served.list_models)
    app.router.add_post("/{path:.*}chat/completions", served.chat)
    more(app)
    owner = web.AppRunner(app, shutdown_timeout=0.1)
    await owner.setup()
    site = web.TCPSite(owner, "127.0.0.1", 0)
    await site.start()
    served.url = f"http://127.0.0.1:{owner.addresses[0][1]}/v1"
    try:
        yield served
    finally:
        await owner.cleanup()


def request(text: str = "Hello?", **fields: Any) -> Request:
    return Request(
        messages=(Message("system", "Be brief."), Message("user", text)), max_tokens=16, **fields
    )


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(5)
    return completion()


async def close_early(http: web.Request) -> web.StreamResponse:
    assert http.transport is not None
    http.transport.close()
    return web.Response()


async def close_mid_body(http: web.Request) -> web.StreamResponse:
    reply = web.StreamResponse(
        headers={"Content-Type": "application/json", "Content-Length": "1000"}
    )
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


def lamp_files(folder: Path, samples: int) -> Path:
    """LaMP-4 questions that end in "story N", one to a user."""
    folder.mkdir()
    profile = [
        {"id": "p1", "text": "Rain fell on the town.", "title": "Wet again", "date": "2020-01-01"}
    ]
    records = [
        {
            "id": f"q{at}",
            "input": f"Generate a headline for the following article: story {at}",
            "profile": profile,
        }
        | {"user_id": f"u{at}"}
        for at in range(samples)
    ]
    golds = [{"id": record["id"], "output": "Dry again"} for record in records]
    (folder / "dev_questions.json").write_text(json.dumps(records))
    (folder / "dev_outputs.json").write_text(json.dumps({"task": "LaMP_4", "golds": golds}))
    return folder


def options(
    server: Server, tmp_path: Path, samples: int, concurrency: int = 4, **backend: Any
) -> runner.Options:
    """A run of `none` over that many questions."""
    if not (tmp_path / "data").exists():
        lamp_files(tmp_path / "data", samples)
    return runner.Options(
        methods=["none"],
        tasks=["lamp4"],
        data=tmp_path / "data",
        backend="openai",
        backend_options=BackendOptions(
            base_url=server.url, **{"headers": {"X-Team": HEADER}, **backend}
        ),
        concurrency=concurrency,
        results=tmp_path / "results",
    )
