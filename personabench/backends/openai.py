"""Any OpenAI-compatible API, through the openai SDK on its aiohttp transport.

The SDK signs and sends; the body is encoded and the reply decoded here, down to the fields a `Response` has, which
spares more than half of the time per call (docs/performance.md).  The key comes from OPENAI_API_KEY; it and the
values of custom headers are struck from whatever a server says, so that they appear in no file and no message.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import msgspec

from personabench.backends import Backend, BackendOptions, EstimatedTokens
from personabench.errors import BackendDown, BackendError, TransientError, UsageError
from personabench.types import Request, Response, Usage

KEY = "OPENAI_API_KEY"
CONNECT = 15.0
_URL_HELP = "is the server running, and is --base-url right (it usually ends in /v1)?"
_PLATFORM = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")


class _Details(msgspec.Struct):
    cached_tokens: int | None = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _Details | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Logprobs(msgspec.Struct):
    content: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = "stop"
    logprobs: _Logprobs | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Completion).decode


class OpenAI(Backend):
    """A chat-completions endpoint: `--base-url` (default: OPENAI_BASE_URL, else OpenAI's) and `--model`.

    Without `--model` the server's only model is used.  A server that states `max_model_len` tells its window.  With a
    model named, a server out of reach is only missed when something is owed, at `open`.
    """

    concurrency = 32

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(options)
        self.tokens = EstimatedTokens()
        self.window = options.window
        self._client: Any = None
        self._down: BackendDown | None = None

    async def identify(self) -> None:
        import aiohttp
        import httpx2
        import openai

        self._sdk, self._received = openai, httpx2.Response
        self._failures = (openai.OpenAIError, aiohttp.ClientError)
        key, url = os.environ.get(KEY, "").strip(), self.options.base_url or os.environ.get("OPENAI_BASE_URL")
        if not key and url is None:
            raise UsageError(f"no API key: set {KEY}, or name a server that needs none with --base-url")
        if not (key.isascii() and key.isprintable()):
            raise UsageError(f"{KEY} holds a character that no key has; copy the key again")
        if url is not None and not url.startswith(("http://", "https://")):
            raise UsageError(f"--base-url {url}: it has to start with http:// or https:// and usually ends in /v1")
        if url is not None and "@" in urlsplit(url).netloc:
            raise UsageError(f"--base-url holds a name or password; leave them out and set {KEY}")
        self._secrets = [secret for secret in (key, *self.options.headers.values()) if len(secret) > 3]
        unsaid: dict[str, Any] = {f"X-Stainless-{name}": openai.Omit() for name in _PLATFORM}
        self._client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=url,
            max_retries=0,
            timeout=openai.Timeout(self.options.timeout, connect=min(CONNECT, self.options.timeout)),
            default_headers={**unsaid, **self.options.headers},
            http_client=openai.DefaultAioHttpClient(),
        )
        self._where = str(self._client.base_url.copy_with(query=None)).rstrip("/")
        self._address = f"{self._client.base_url}chat/completions"
        name, models = self.options.model, {}
        try:
            models = await self._models()
        except BackendDown as error:
            if name is None:
                await self.aclose()
                raise
            self._down = error
        if name is None:
            if len(models) != 1:
                await self.aclose()
                offered = ", ".join(sorted(models)[:8]) or "none that it lists"
                raise UsageError(f"{self._where} serves {len(models)} models ({offered}); choose one with --model")
            name = next(iter(models))
        self._name = name
        self.window = self.options.window or models.get(name)
        self.identity: Mapping[str, str] = {"kind": "api", "name": name}

    async def open(self, log: Path | None = None) -> None:
        """See `Backend`.

        Raises:
            BackendDown: the server did not answer when asked for its models.
        """
        if self._down is not None:
            raise self._down

    async def complete(self, request: Request, group: str) -> Response:
        body: dict[str, Any] = {
            "model": self._name,
            "messages": request.messages,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed + request.draw,
        }
        if request.schema is not None:
            schema = {"name": "reply", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if request.logprobs:
            body |= {"logprobs": True, "top_logprobs": request.logprobs}
        try:
            received = await self._client.post(self._address, cast_to=self._received, content=msgspec.json.encode(body))
        except self._failures as error:
            self._fail(error)
        try:
            reply = _decode(received.content)
        except msgspec.ValidationError as error:
            said = self._said(received)
            raise BackendError(f"{self._where} sent JSON that is not a completion ({error}): {said}") from error
        except msgspec.DecodeError as error:
            raise TransientError(f"{self._where} sent a reply that is not JSON: {self._said(received)}") from error
        if not reply.choices:
            raise TransientError(f"{self._where} sent a reply without a choice")
        choice, usage = reply.choices[0], reply.usage or _Usage()
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
        return Response(
            text=choice.message.content or choice.message.refusal or "",
            finish="length" if choice.finish_reason == "length" else "stop",
            usage=Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0, cached or 0),
            logprobs=tuple((choice.logprobs and choice.logprobs.content) or ()),
        )

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _models(self) -> dict[str, int | None]:
        """The server's models with their windows; empty when it does not list them."""
        try:
            received = await self._client.get("/models", cast_to=self._received, options={"timeout": 30.0})
        except self._failures as error:
            if isinstance(error, self._sdk.APIStatusError):
                if error.status_code in (401, 403):
                    self._fail(error)
                return {}
            if isinstance(_root(error), TimeoutError):
                raise BackendDown(f"{self._where} accepts no connection or sends no answer; {_URL_HELP}") from error
            why = self._strike(_root(error)) or type(_root(error)).__name__
            raise BackendDown(f"{self._where} cannot be reached ({why}); {_URL_HELP}") from error
        try:
            listed = msgspec.json.decode(received.content)["data"]
            return {model["id"]: model.get("max_model_len") for model in listed}
        except msgspec.DecodeError as error:
            raise BackendDown(f"{self._where} does not speak JSON ({self._said(received)}); {_URL_HELP}") from error
        except (KeyError, TypeError, AttributeError):
            return {}

    def _fail(self, error: Any) -> NoReturn:
        if not isinstance(error, self._sdk.APIStatusError):
            if isinstance(_root(error), TimeoutError):
                raise TransientError(f"{self._where} did not answer within {self.options.timeout:g} s") from error
            why = self._strike(_root(error)) or type(_root(error)).__name__
            raise TransientError(f"{self._where} broke the connection ({why})") from error
        status, said = error.status_code, self._said(error.response)
        message = f"{self._where} answered {status}: {said}"
        if "insufficient_quota" in said:
            raise BackendDown(f"{message}; the account has no credit left") from None
        if status in (408, 409, 429) or status >= 500:
            raise TransientError(message, _retry_after(error.response.headers)) from None
        if status in (401, 403):
            raise BackendDown(f"{message}; check {KEY}") from None
        if status == 404:
            raise BackendDown(f"{message}; check --base-url and --model") from None
        raise BackendError(message) from None

    def _said(self, received: Any) -> str:
        """The start of what a server said, on one line and without secrets."""
        return self._strike(received.text)[:300].replace("\n", " ") or "(nothing)"

    def _strike(self, words: object) -> str:
        text = str(words)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The wish in a Retry-After header, in seconds: a number or a date; None where there is none to be read."""
    wish = headers.get("retry-after")
    if wish is None:
        return None
    try:
        return max(0.0, float(wish))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(wish).timestamp() - time.time())
    except ValueError:
        return None
