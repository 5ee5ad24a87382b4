"""Any OpenAI-compatible API, through the openai SDK on its aiohttp transport.

The SDK knows address, credentials and transport; bodies are encoded and replies decoded here (`answers.py`), and what
it signed once is sent again with other bodies, which spares most of the time per call (docs/performance.md).  The key
comes from OPENAI_API_KEY, for Azure from AZURE_OPENAI_API_KEY, or from a role's own variable (`keys.py`).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from personabench.errors import BackendDown, Refused, Throttled, TransientError, UsageError
from personabench.models.backends import check_url, credentials
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.backends.chat_completion import (
    Secrets,
    other_model,
    read,
    redirect,
    response,
    retry_after,
)
from personabench.models.backends.openai_batch import MOST, Batches
from personabench.models.rate_limit import Limiter
from personabench.models.tokens import EstimatedTokens
from personabench.types import Request, Response

CONNECT = 15.0
LOCAL, REMOTE = 32, 256
OMITTABLE = ("temperature", "top_p", "seed")
_LIMITS = ("max_tokens", "max_completion_tokens")
_URL_HELP = "is the server running, and is --base-url right (it usually ends in /v1)?"
_PLATFORM = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
_UNSUPPORTED = re.compile(
    r"not support|unsupported|not permitted|forbidden|deprecated|unknown|unrecognized|both", re.I
)
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("personabench.openai")


class OpenAI(Backend):
    """A chat-completions endpoint: `--base-url` (default: OPENAI_BASE_URL, else OpenAI's) and `--model`.

    Without `--model` the server's only model is used.  A server that states `max_model_len` tells its window.  With a
    model named, a server out of reach is only missed when something is owed, at `open`.  `--api-version` makes it an
    Azure resource (`--base-url` or AZURE_OPENAI_ENDPOINT), the model a deployment of it.  A server on this machine or
    its network gets a fixed number of calls at once, any other is asked adaptively (`limits.py`).
    """

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(options)
        self.tokens = EstimatedTokens()
        self.window = options.window
        self._client: Any = None
        self._down: BackendDown | None = None
        self._limiter: Limiter | None = None
        self._batches: Batches | None = None
        self._signed: Callable[..., Any] | None = None
        self._limit_field = _LIMITS[0]
        self._key_names = credentials.variables("openai", options)
        if options.batch is not None and options.api_version is not None:
            raise UsageError(
                "--batch: not with --api-version; Azure has batch deployments of its own"
            )
        if unknown := set(options.omit) - set(OMITTABLE):
            raise UsageError(
                f"--omit-params {', '.join(sorted(unknown))}: only {', '.join(OMITTABLE)} can be left out"
            )

    async def identify(self) -> None:
        import aiohttp
        import httpx2
        import openai

        self._sdk, self._received = openai, httpx2.Response
        self._failures = (openai.OpenAIError, httpx2.HTTPError, aiohttp.ClientError)
        # A redirect would take headers and prompts to an address that nobody named.
        self._transport = openai.DefaultAioHttpClient(follow_redirects=False)
        url = self._url()
        key = self._key(url)
        owner = [os.environ.get(name, "") for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")]
        self._secrets = Secrets(
            [key, *owner, *credentials.custom_headers().values(), *self.options.headers.values()]
        )
        unsaid: dict[str, Any] = {f"X-Stainless-{name}": openai.Omit() for name in _PLATFORM}
        azure = self.options.api_version is not None
        sdk: Any = (
            partial(openai.AsyncAzureOpenAI, api_version=self.options.api_version)
            if azure
            else openai.AsyncOpenAI
        )
        self._client = sdk(
            api_key=key or "none",
            base_url=url,
            max_retries=0,
            timeout=openai.Timeout(
                self.options.timeout, connect=min(CONNECT, self.options.timeout)
            ),
            default_headers={
                **unsaid,
                **credentials.unsent(self._key_name, key),
                **self.options.headers,
            },
            http_client=self._transport,
        )
        self._where = str(self._client.base_url.copy_with(query=None)).rstrip("/")
        self._address = f"{self._where}/chat/completions"
        self.adaptive = not credentials.nearby(self._where)
        self.concurrency = REMOTE if self.adaptive else LOCAL
        if self.options.batch is not None:
            self.adaptive, self.concurrency = False, MOST
            self._batches = Batches(
                self._client, self._received, self._where, self._secrets.quote, self.options.batch
            )
        name, models = self.options.model, {}
        try:
            models = {} if azure else await self._models()
        except BackendDown as error:
            if name is None:
                await self.aclose()
                raise
            self._down = error
        if name is None:
            if len(models) != 1:
                await self.aclose()
                offered = ", ".join(sorted(models)[:8]) or "none that it lists"
                raise UsageError(
                    f"{self._where} serves {len(models)} models ({offered}); choose one with --model"
                )
            name = next(iter(models))
        self._name = name
        self.window = self.options.window or models.get(name)
        omitted = {"omit": ",".join(sorted(self.options.omit))} if self.options.omit else {}
        self.identity = {"kind": "api", "name": name, **omitted}

    def _key(self, url: str) -> str:
        self._key_name, key = credentials.read_key(self._key_names)
        if not (key.isascii() and key.isprintable()):
            raise UsageError(
                f"{self._key_name} holds a character that no key has; copy the key again"
            )
        wanted = self.options.api_version or credentials.origin(url) == credentials.origin(
            credentials.API
        )
        if (
            wanted
            and not key
            and not {"authorization", "api-key"} & set(map(str.lower, self.options.headers))
        ):
            names = " or ".join(self._key_names) or self._key_name
            elsewhere = credentials.OPENAI not in self._key_names and os.environ.get(
                credentials.OPENAI
            )
            why = f" ({credentials.OPENAI} belongs to another server here)" if elsewhere else ""
            raise UsageError(
                f"no API key: set {names}{why}, or name a server that needs none with --base-url"
            )
        return key

    def _url(self) -> str:
        """The API's address."""
        url = credentials.openai_url(self.options)
        if url is not None:
            check_url(url, self._key_names[0] if self._key_names else "--header")
        if self.options.api_version is None and url:
            return url
        if not url or self.options.model is None:
            raise UsageError(
                "--api-version needs --base-url https://NAME.openai.azure.com and --model DEPLOYMENT"
            )
        url = url.rstrip("/")
        return url if "/deployments/" in url else f"{url}/openai/deployments/{self.options.model}"

    async def open(self, log: Path | None = None) -> None:
        """See `Backend`.

        Raises:
            BackendDown: the server did not answer when asked for its models.
        """
        if self._down is not None:
            raise self._down

    def limiter(self, most: int) -> Limiter:
        """The one gate of the endpoint, whoever asks."""
        if self._limiter is None:
            self._limiter = Limiter(
                most, adaptive=self.adaptive, rpm=self.options.rpm, tpm=self.options.tpm
            )
        return self._limiter

    async def complete(self, request: Request, group: str) -> Response:
        body: dict[str, Any] = {
            "model": self._name,
            "messages": request.messages,
            self._limit_field: request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed + request.repeat,
        }
        for name in self.options.omit:
            del body[name]
        if request.schema is not None:
            schema = {"name": "reply", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if request.logprobs:
            body |= {"logprobs": True, "top_logprobs": request.logprobs}
        received = await self._post(body)
        reply = read(
            received.content, self._where, self._secrets.quote, partial(self._refused, received)
        )
        named = "" if self.options.api_version else other_model(self._name, reply.model)
        return self._secrets.clean(response(reply, named))

    async def aclose(self) -> None:
        if self._batches is not None:
            await self._batches.aclose()
        if self._client is not None:
            await self._client.close()

    async def _post(self, body: dict[str, Any]) -> Any:
        """Send a body; a server that wants the other name of the length limit gets it, now and from now on."""
        try:
            received = await self._send(_encode(body))
        except self._failures as error:
            self._broken(error)
        old, new = _LIMITS
        if received.is_success:
            return received
        if received.status_code not in (400, 422) or old not in body or new not in received.text:
            self._refused(received)
        if self._limit_field == old:
            _log.info("%s wants %s instead of %s", self._name, new, old)
            self._limit_field = new
        body[new] = body.pop(old)
        return await self._post(body)

    async def _send(self, content: bytes) -> Any:
        """The SDK addresses, signs and sends the first request; those after it differ in the body alone."""
        if self._batches is not None:
            try:
                return await self._batches.send(content)
            except self._sdk.APIStatusError as error:
                return error.response
        if self._signed is not None:
            return await self._transport.send(self._signed(content=content))
        try:
            received = await self._client.post(
                self._address, cast_to=self._received, content=content
            )
        except self._sdk.APIStatusError as error:
            received = error.response
        first: Any = received.request
        headers = first.headers.copy()
        del headers["Content-Length"]
        self._signed = partial(
            first.__class__, "POST", first.url, headers=headers, extensions=first.extensions
        )
        return received

    async def _models(self) -> dict[str, int | None]:
        """The server's models with their windows; empty when it does not list them."""
        try:
            received = await self._client.get(
                "/models", cast_to=self._received, options={"timeout": 30.0}
            )
        except self._sdk.APIStatusError as error:
            if error.status_code in (401, 403) or 300 <= error.status_code < 400:
                self._refused(error.response)
            return {}
        except self._failures as error:
            if isinstance(_root(error), TimeoutError):
                raise BackendDown(
                    f"{self._where} accepts no connection or sends no answer; {_URL_HELP}"
                ) from error
            why = self._secrets.strike(_root(error)) or type(_root(error)).__name__
            raise BackendDown(f"{self._where} cannot be reached ({why}); {_URL_HELP}") from error
        try:
            listed = msgspec.json.decode(received.content)["data"]
            return {model["id"]: model.get("max_model_len") for model in listed}
        except msgspec.DecodeError as error:
            said = self._secrets.quote(received.text)
            raise BackendDown(f"{self._where} does not speak JSON ({said}); {_URL_HELP}") from error
        except (KeyError, TypeError, AttributeError):
            return {}

    def _broken(self, error: BaseException) -> NoReturn:
        if isinstance(_root(error), TimeoutError):
            message = f"{self._where} did not answer within {self.options.timeout:g} s"
            raise TransientError(message, kind="timeout") from error
        why = self._secrets.strike(_root(error)) or type(_root(error)).__name__
        raise TransientError(
            f"{self._where} broke the connection ({why})", kind="connection"
        ) from error

    def _refused(self, received: Any, inside: int | None = None) -> NoReturn:
        """Raise what an answer means, by its status or by the one that the error `inside` it stands for."""
        status, said = inside or received.status_code, self._secrets.quote(received.text)
        message = f"{self._where} answered {status}: {said}"
        if 300 <= status < 400:
            raise BackendDown(redirect(self._where, status, received.headers, self._secrets))
        if "insufficient_quota" in said:
            raise BackendDown(f"{message}; the account has no credit left")
        wish = retry_after(received.headers)
        if status == 429:
            raise Throttled(message, wish, "429")
        if status in (408, 409) or status >= 500:
            raise TransientError(message, wish, "5xx" if status >= 500 else "4xx")
        if status in (401, 403):
            raise BackendDown(f"{message}; check {self._key_name}") from None
        if status == 404:
            raise BackendDown(f"{message}; check --base-url and --model")
        raise Refused(message + _remedy(said), status)


def _remedy(said: str) -> str:
    """What to do about a sampling field that a server refuses; nothing is left out unasked, since it is identity."""
    name = next((name for name in OMITTABLE if re.search(rf"\b{name}\b", said)), None)
    if name is None or not _UNSUPPORTED.search(said):
        return ""
    neutral = "" if name == "seed" else f"--{name.replace('_', '-')} 1 may be accepted; "
    return f"; {neutral}--omit-params {name} leaves it out, as a run of its own"


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
