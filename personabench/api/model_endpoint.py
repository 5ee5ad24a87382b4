"""A loopback endpoint for packages that call a model themselves.

It speaks the OpenAI API (`/v1/chat/completions`, `/v1/embeddings`) on this machine and passes every
call to the `Context` of the work in progress, so that the calls of a package are counted, cached,
limited and priced like any other.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from personabench.errors import BackendError
from personabench.types import Message

if TYPE_CHECKING:
    from aiohttp import web

    from personabench.api.context import Context

MODEL = "model"
"""The name of the model under test; the endpoint ignores names."""
MAX_TOKENS = 512
"""Tokens of a reply if the package states none."""
_LARGEST = 64 << 20
_ROLES = ("system", "user", "assistant")


class ModelEndpoint:
    """The endpoint of one run.

    Attributes:
        url: the base URL, which ends in `/v1`; api_key: the key that it expects.
        embedder: the embedder of `/v1/embeddings`.
        failure: the error of a call that failed since `serving` began.
    """

    def __init__(self, embedder: str = "wordllama") -> None:
        self.url = ""
        self.api_key = secrets.token_hex(16)
        self.embedder = embedder
        self.failure: BackendError | None = None
        self._ctx: Context | None = None
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        """Listen on a free port of this machine."""
        # Imported on use: few runs need a server.
        from aiohttp import web

        app = web.Application(client_max_size=_LARGEST)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/v1/embeddings", self._embed)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"

    async def aclose(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @contextmanager
    def serving(self, ctx: Context) -> Iterator[None]:
        """Book the calls of the block on a context."""
        self._ctx, self.failure = ctx, None
        try:
            yield
        finally:
            self._ctx = None

    async def _complete(self, request: web.Request) -> web.Response:
        body, ctx = await self._read(request)
        messages = [_read_message(message) for message in body.get("messages", ())]
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or MAX_TOKENS
        if ctx.window is not None:
            limit = min(limit, ctx.window // 2)
        messages = _shorten(messages, limit, ctx)
        try:
            reply = await ctx.complete(messages, max_tokens=limit, schema=_read_schema(body))
        except BackendError as error:
            self.failure = error
            raise _refuse(503, str(error)) from error

        usage = reply.usage
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": reply.text},
            "finish_reason": "length" if reply.finish == "length" else "stop",
        }
        return _reply(
            {
                "id": "reply",
                "object": "chat.completion",
                "created": 0,
                "model": MODEL,
                "choices": [choice],
                "usage": {
                    "prompt_tokens": usage.input_tokens,
                    "completion_tokens": usage.output_tokens,
                    "total_tokens": usage.input_tokens + usage.output_tokens,
                },
            }
        )

    async def _embed(self, request: web.Request) -> web.Response:
        body, ctx = await self._read(request)
        inputs = body.get("input")
        texts = [inputs] if isinstance(inputs, str) else inputs
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise _refuse(400, "`input` has to be a text or a list of texts")
        vectors = await ctx.embed(texts, self.embedder)
        rows = [
            {"object": "embedding", "index": index, "embedding": vector.tolist()}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        return _reply({"object": "list", "data": rows, "model": self.embedder, "usage": usage})

    async def _read(self, request: web.Request) -> tuple[Mapping[str, Any], Context]:
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            raise _refuse(401, "another key than that of this run")
        if self._ctx is None:
            raise _refuse(409, "no work is in progress to book the call on")
        try:
            body = json.loads(await request.read())
        except ValueError as error:
            raise _refuse(400, f"the body is no JSON: {error}") from error
        if not isinstance(body, dict):
            raise _refuse(400, "the body is no JSON object")
        if body.get("stream"):
            raise _refuse(400, "replies are not streamed; set `stream` to false")
        return body, self._ctx


def _read_message(message: Any) -> Message:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        texts = [part.get("text", "") for part in content if isinstance(part, dict)]
        content = "\n".join(texts)
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(content, str) or role not in _ROLES:
        raise _refuse(400, "a message needs a role (system, user, assistant) and a text")
    return Message(role, content)


def _read_schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON schema of a reply, if the request states one."""
    response_format = body.get("response_format")
    if isinstance(response_format, dict) and isinstance(response_format.get("json_schema"), dict):
        schema = response_format["json_schema"].get("schema")
        return schema if isinstance(schema, dict) else None
    return None


def _shorten(messages: list[Message], limit: int, ctx: Context) -> list[Message]:
    """Shorten the longest message until the request fits the window."""
    while messages and ctx.count_excess_tokens(messages, limit) > 0:
        excess = ctx.count_excess_tokens(messages, limit)
        sizes = [ctx.tokens.count(message.content) for message in messages]
        longest = sizes.index(max(sizes))
        if sizes[longest] <= 1:
            break
        tokens = max(1, min(sizes[longest] - excess, sizes[longest] - 1))
        message = messages[longest]
        # The end stays: packages put the newest text there.
        kept = message.content[-max(1, len(message.content) * tokens // sizes[longest]) :]
        messages[longest] = Message(message.role, kept)
        ctx.flag("memory_text_shortened")
    return messages


def _reply(value: Mapping[str, Any]) -> web.Response:
    from aiohttp import web

    return web.json_response(value)


def _refuse(status: int, text: str) -> Exception:
    from aiohttp import web

    body = json.dumps({"error": {"message": text, "type": "invalid_request_error"}})
    kinds: dict[int, type[web.HTTPException]] = {
        400: web.HTTPBadRequest,
        401: web.HTTPUnauthorized,
        409: web.HTTPConflict,
        503: web.HTTPServiceUnavailable,
    }
    return kinds[status](text=body, content_type="application/json")
