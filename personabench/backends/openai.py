"""Any OpenAI-compatible API, through the openai SDK on its aiohttp transport.

The SDK builds, signs and sends; the reply is decoded here into just the fields a `Response` has, which spares most of
the SDK's time per call.  The key comes from OPENAI_API_KEY and appears in no file and no message.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

import msgspec

from personabench.backends import Backend, BackendOptions, EstimatedTokens
from personabench.errors import BackendDown, BackendError, TransientError, UsageError
from personabench.types import Request, Response, Usage

KEY = "OPENAI_API_KEY"


class _Details(msgspec.Struct):
    cached_tokens: int | None = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
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
    """A chat-completions endpoint: `--base-url` (default: OpenAI's) and `--model`.

    Without `--model` the server's only model is used.  A server that states `max_model_len` tells its window.
    """

    concurrency = 32

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(options)
        self.tokens = EstimatedTokens()
        self.window = options.window
        self._client: Any = None

    async def identify(self) -> None:
        import openai

        key = os.environ.get(KEY)
        if not key and self.options.base_url is None:
            raise UsageError(f"no API key: set {KEY}, or name a server that needs none with --base-url")
        self._client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=self.options.base_url,
            max_retries=0,
            timeout=self.options.timeout,
            default_headers=dict(self.options.headers),
            http_client=openai.DefaultAioHttpClient(timeout=self.options.timeout),
        )
        self._errors = openai
        models = await self._models()
        name = self.options.model
        if name is None:
            if len(models) != 1:
                offered = ", ".join(sorted(models)[:8]) or "none that it lists"
                raise UsageError(f"{self._where} serves {len(models)} models ({offered}); choose one with --model")
            name = next(iter(models))
        self._name = name
        self.window = self.options.window or models.get(name)
        self.identity = {"kind": "api", "name": name}

    async def complete(self, request: Request, group: str) -> Response:
        body: dict[str, Any] = {
            "model": self._name,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed + request.draw,
        }
        if request.schema is not None:
            schema = {"name": "reply", "schema": dict(request.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if request.logprobs:
            body |= {"logprobs": True, "top_logprobs": request.logprobs}
        try:
            raw = await self._client.chat.completions.with_raw_response.create(**body)
        except self._errors.OpenAIError as error:
            self._fail(error)
        try:
            reply = _decode(raw.http_response.content)
        except msgspec.MsgspecError as error:
            said = raw.http_response.text[:120]
            raise TransientError(f"{self._where} sent a reply that is not a completion ({error}): {said!r}") from error
        if not reply.choices:
            raise TransientError(f"{self._where} sent a reply without a choice")
        choice, usage = reply.choices[0], reply.usage or _Usage()
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
        return Response(
            text=choice.message.content or choice.message.refusal or "",
            finish="length" if choice.finish_reason == "length" else "stop",
            usage=Usage(usage.prompt_tokens, usage.completion_tokens, cached or 0),
            logprobs=tuple((choice.logprobs and choice.logprobs.content) or ()),
        )

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()

    @property
    def _where(self) -> str:
        return str(self._client.base_url).rstrip("/")

    async def _models(self) -> dict[str, int | None]:
        """The server's models with their windows; empty when it does not list them."""
        try:
            raw = await self._client.with_options(timeout=30).models.with_raw_response.list()
        except self._errors.APITimeoutError:
            return {}
        except self._errors.APIConnectionError as error:
            raise BackendDown(
                f"{self._where} cannot be reached ({_cause(error)}); is the server running, and is --base-url right "
                "(it usually ends in /v1)?"
            ) from error
        except self._errors.APIStatusError as error:
            if error.status_code in (401, 403):
                self._fail(error)
            return {}
        try:
            listed = msgspec.json.decode(raw.http_response.content)["data"]
            return {model["id"]: model.get("max_model_len") for model in listed}
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
            return {}

    def _fail(self, error: Any) -> NoReturn:
        errors = self._errors
        if isinstance(error, errors.APITimeoutError):
            raise TransientError(f"{self._where} did not answer within {self.options.timeout:.0f} s") from error
        if isinstance(error, errors.APIConnectionError):
            raise TransientError(f"{self._where} cannot be reached ({_cause(error)})") from error
        if not isinstance(error, errors.APIStatusError):
            raise BackendError(f"{self._where}: {error}") from error
        status, said = error.status_code, error.response.text[:300].replace("\n", " ")
        message = f"{self._where} answered {status}: {said}"
        if "insufficient_quota" in said:
            raise BackendDown(f"{message}; the account has no credit left") from error
        if status in (408, 409, 429) or status >= 500:
            raise TransientError(message, _seconds(error.response.headers.get("retry-after"))) from error
        if status in (401, 403):
            raise BackendDown(f"{message}; check {KEY}") from error
        if status == 404:
            raise BackendDown(f"{message}; check --base-url and --model") from error
        raise BackendError(message) from error


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def _seconds(header: str | None) -> float | None:
    try:
        return None if header is None else max(0.0, float(header))
    except ValueError:
        return None
