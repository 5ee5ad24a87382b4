"""The openai backend: any OpenAI-compatible API, through the openai SDK on its aiohttp transport.

The SDK handles address, credentials and transport; bodies are encoded and replies decoded here
(`chat_completion.py`).  The first signed request is reused with other bodies, which saves most of
the time per call (docs/performance.md).  The key comes from OPENAI_API_KEY, for Azure from
AZURE_OPENAI_API_KEY, or from a role's own variable (`credentials.py`).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from personabench.errors import BackendDown, Refused, Throttled, TransientError, UsageError
from personabench.models.backends import check_url, credentials
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.backends.chat_completion import (
    Secrets,
    build_response,
    describe_redirect,
    error_kind,
    other_model,
    parse_completion,
    retry_after,
)
from personabench.models.backends.dialect import LIMIT_FIELDS, SAMPLING
from personabench.models.backends.openai_batch import MAX_CALLS, Batches
from personabench.models.rate_limit import Limiter
from personabench.models.tokens import EstimatedTokens
from personabench.types import Request, Response

CONNECT = 15.0
"""Seconds for making a connection."""
LOCAL, REMOTE = 32, 256
"""Calls in flight for servers on this network, and at most for all others."""

_URL_HELP = "is the server running, and is --base-url right (it usually ends in /v1)?"
_PLATFORM_HEADERS = (
    "Lang",
    "Package-Version",
    "OS",
    "Arch",
    "Runtime",
    "Runtime-Version",
    "Async",
)
_UNSUPPORTED = re.compile(
    r"not support|unsupported|not permitted|forbidden|deprecated|unknown|unrecognized|both", re.I
)
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("personabench.openai")


class OpenAI(Backend):
    """A chat-completions endpoint: `--base-url` (default: OPENAI_BASE_URL or OpenAI's), `--model`.

    Without `--model` the server's only model is used.  A server that reports `max_model_len`
    determines the window.  If a model is given, an unreachable server is an error only at `open`,
    when calls are needed.  `--api-version` selects an Azure resource (`--base-url` or
    AZURE_OPENAI_ENDPOINT) with the model as deployment.  A server on this machine or its network
    gets a fixed number of calls in flight, any other an adaptive one (`rate_limit.py`).
    """

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(options)
        self.tokens = EstimatedTokens()
        self.window = options.window
        self._client: Any = None
        self._down: BackendDown | None = None
        self._limiter: Limiter | None = None
        self._batches: Batches | None = None
        self._signed_request: Callable[..., Any] | None = None
        self._key_variables = credentials.variables("openai", options)

        if options.batch is not None and options.api_version is not None:
            raise UsageError(
                "--batch: not with --api-version; Azure has batch deployments of its own"
            )
        self.check_omitted(SAMPLING)

    async def identify(self) -> None:
        import aiohttp
        import httpx2
        import openai

        self._sdk = openai
        self._response_class = httpx2.Response
        self._failures = (openai.OpenAIError, httpx2.HTTPError, aiohttp.ClientError)
        # Following a redirect would send headers and prompts to an address that the user did not
        # choose.
        self._transport = openai.DefaultAioHttpClient(follow_redirects=False)
        self._client = self._create_client(openai)

        self._server = str(self._client.base_url.copy_with(query=None)).rstrip("/")
        self.address = self._server
        is_nearby = credentials.nearby(self._server)
        self.writer = self.create_writer({}, self._server, is_nearby=is_nearby)
        self._choose_concurrency()

        models = await self._find_models()
        name = self.options.model
        if name is None:
            name = await self._only_model(models)
        self._name = name
        self.window = self.options.window or models.get(name)

        self.identity = {"kind": "api", "name": name, **self.options.marks}

    def _create_client(self, openai: Any) -> Any:
        url = self._url()
        key = self._read_key(url)
        account = [os.environ.get(name, "") for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")]
        self._secrets = Secrets(
            [
                key,
                *account,
                *credentials.custom_headers().values(),
                *self.options.headers.values(),
            ]
        )

        client_class = openai.AsyncOpenAI
        if self.options.api_version is not None:
            client_class = partial(openai.AsyncAzureOpenAI, api_version=self.options.api_version)

        # Details about this machine that the SDK would add are no business of the server's.
        omitted = {f"X-Stainless-{name}": openai.Omit() for name in _PLATFORM_HEADERS}
        connect = min(CONNECT, self.options.timeout)
        return client_class(
            api_key=key or "none",
            base_url=url,
            # Retries are the client's, which counts them.
            max_retries=0,
            timeout=openai.Timeout(self.options.timeout, connect=connect),
            default_headers={
                **omitted,
                **credentials.suppressed_headers(self._key_variable, key),
                **self.options.headers,
            },
            http_client=self._transport,
        )

    def _choose_concurrency(self) -> None:
        self.adaptive = not credentials.nearby(self._server)
        self.concurrency = REMOTE if self.adaptive else LOCAL

        if self.options.batch is not None:
            # A batch is as large as the number of calls that wait at the same time.
            self.adaptive = False
            self.concurrency = MAX_CALLS
            self._batches = Batches(
                self._client,
                self._response_class,
                self._server,
                self._secrets.quote,
                self.options.batch,
            )

    async def _find_models(self) -> dict[str, int | None]:
        # Azure lists the models that could be deployed, not the deployments.
        if self.options.api_version is not None:
            return {}
        try:
            return await self._list_models()
        except BackendDown as error:
            if self.options.model is None:
                await self.aclose()
                raise
            # All answers may be in the cache, so the server may not be needed.
            self._down = error
            return {}

    async def _only_model(self, models: Mapping[str, int | None]) -> str:
        if len(models) != 1:
            await self.aclose()
            offered = ", ".join(sorted(models)[:8]) or "none that it lists"
            raise UsageError(
                f"{self._server} serves {len(models)} models ({offered}); choose one with --model"
            )
        return next(iter(models))

    def _read_key(self, url: str) -> str:
        self._key_variable, key = credentials.read_key(self._key_variables)
        if not (key.isascii() and key.isprintable()):
            raise UsageError(
                f"{self._key_variable} holds a character that no key has; copy the key again"
            )

        if not key and self._is_key_needed(url):
            variables = " or ".join(self._key_variables) or self._key_variable
            reason = ""
            if credentials.OPENAI not in self._key_variables and os.environ.get(credentials.OPENAI):
                reason = f" ({credentials.OPENAI} belongs to another server here)"
            raise UsageError(
                f"no API key: set {variables}{reason}, "
                "or choose a server that needs none with --base-url"
            )
        return key

    def _is_key_needed(self, url: str) -> bool:
        header_names = {name.lower() for name in self.options.headers}
        if header_names & {"authorization", "api-key"}:
            return False
        if self.options.api_version:
            return True
        return credentials.origin(url) == credentials.origin(credentials.API)

    def _url(self) -> str:
        """Return the API's address."""
        url = credentials.openai_url(self.options)
        if url is not None:
            check_url(url, self._key_variables[0] if self._key_variables else "--header")
        if self.options.api_version is None and url:
            return url

        if not url or self.options.model is None:
            raise UsageError(
                "--api-version needs --base-url https://NAME.openai.azure.com "
                "and --model DEPLOYMENT"
            )
        url = url.rstrip("/")
        if "/deployments/" in url:
            return url
        return f"{url}/openai/deployments/{self.options.model}"

    async def open(self, log: Path | None = None) -> None:
        """See `Backend`.

        Raises:
            BackendDown: the server did not answer the request for its models.
        """
        if self._down is not None:
            raise self._down

    def limiter(self, most: int) -> Limiter:
        """Return the limiter of the endpoint, which all clients share."""
        if self._limiter is None:
            self._limiter = Limiter(
                most,
                adaptive=self.adaptive,
                rpm=self.options.rpm,
                tpm=self.options.tpm,
            )
        return self._limiter

    async def complete(self, request: Request, group: str) -> Response:
        assert self.writer is not None
        body = self.writer.write(self._name, request)

        received = await self._post(body)
        reply = parse_completion(
            received.content,
            self._server,
            self._secrets.quote,
            partial(self._raise_for_status, received),
        )

        model = ""
        # Azure reports the model behind a deployment, whose name is the user's own.
        if not self.options.api_version:
            model = other_model(self._name, reply.model)
        return self._secrets.clean(build_response(reply, model))

    def adopt(self, dialect: Any) -> None:
        super().adopt(dialect)
        self._signed_request = None

    async def aclose(self) -> None:
        if self._batches is not None:
            await self._batches.aclose()
        if self._client is not None:
            await self._client.close()

    async def _post(self, body: dict[str, Any]) -> Any:
        """Send a body; use the other name of the token limit if the server requires it."""
        try:
            received = await self._send(_encode(body))
        except self._failures as error:
            self._raise_connection_error(error)
        if received.is_success:
            return received

        old_field, new_field = LIMIT_FIELDS
        is_about_limit = old_field in body and new_field in received.text
        if received.status_code not in (400, 422) or not is_about_limit:
            self._raise_for_status(received)

        if self.dialect.limit_field == old_field:
            _log.info("%s wants %s instead of %s", self._name, new_field, old_field)
            self.adopt(msgspec.structs.replace(self.dialect, limit_field=new_field))
        body[new_field] = body.pop(old_field)
        return await self._post(body)

    async def _send(self, content: bytes) -> Any:
        """Send a body; the SDK signs the first request, and later ones differ in the body alone."""
        if self._batches is not None:
            try:
                return await self._batches.send(content)
            except self._sdk.APIStatusError as error:
                return error.response

        if self._signed_request is not None:
            return await self._transport.send(self._signed_request(content=content))

        try:
            received = await self._client.post(
                f"{self._server}{self.writer.path}",
                cast_to=self._response_class,
                content=content,
            )
        except self._sdk.APIStatusError as error:
            received = error.response

        first_request: Any = received.request
        headers = first_request.headers.copy()
        # The transport computes it for each body.
        del headers["Content-Length"]
        self._signed_request = partial(
            first_request.__class__,
            "POST",
            first_request.url,
            headers=headers,
            extensions=first_request.extensions,
        )
        return received

    async def _list_models(self) -> dict[str, int | None]:
        """Return the server's models with their windows; empty if it does not list them."""
        try:
            received = await self._client.get(
                "/models",
                cast_to=self._response_class,
                options={"timeout": 30.0},
            )
        except self._sdk.APIStatusError as error:
            # Other errors may only mean that the server has no such list.
            if error.status_code in (401, 403) or 300 <= error.status_code < 400:
                self._raise_for_status(error.response)
            return {}
        except self._failures as error:
            if isinstance(_root_cause(error), TimeoutError):
                raise BackendDown(
                    f"{self._server} accepts no connection or sends no answer; {_URL_HELP}"
                ) from error
            reason = self._describe_cause(error)
            raise BackendDown(
                f"{self._server} cannot be reached ({reason}); {_URL_HELP}"
            ) from error

        try:
            entries = msgspec.json.decode(received.content)["data"]
            return {entry["id"]: entry.get("max_model_len") for entry in entries}
        except msgspec.DecodeError as error:
            excerpt = self._secrets.quote(received.text)
            raise BackendDown(
                f"{self._server} does not speak JSON ({excerpt}); {_URL_HELP}"
            ) from error
        except (KeyError, TypeError, AttributeError):
            return {}

    def _describe_cause(self, error: BaseException) -> str:
        cause = _root_cause(error)
        return self._secrets.strike(cause) or type(cause).__name__

    def _raise_connection_error(self, error: BaseException) -> NoReturn:
        if isinstance(_root_cause(error), TimeoutError):
            message = f"{self._server} did not answer within {self.options.timeout:g} s"
            raise TransientError(message, kind="timeout") from error

        reason = self._describe_cause(error)
        raise TransientError(
            f"{self._server} broke the connection ({reason})", kind="connection"
        ) from error

    def _raise_for_status(self, received: Any, inner_status: int | None = None) -> NoReturn:
        """Raise the error that a reply means, by its status or by that of the error inside it."""
        status = inner_status or received.status_code
        excerpt = self._secrets.quote(received.text)
        message = f"{self._server} answered {status}: {excerpt}"

        if 300 <= status < 400:
            raise BackendDown(
                describe_redirect(self._server, status, received.headers, self._secrets)
            )
        # Sent with status 429, but waiting does not help.
        if "insufficient_quota" in excerpt:
            raise BackendDown(f"{message}; the account has no credit left")

        delay = retry_after(received.headers)
        if status == 429:
            raise Throttled(message, delay, "429")
        if status in (408, 409) or status >= 500:
            raise TransientError(message, delay, error_kind(status))
        if status in (401, 403):
            raise BackendDown(f"{message}; check {self._key_variable}") from None
        if status == 404:
            raise BackendDown(f"{message}; check --base-url and --model")
        raise Refused(message + _suggest_remedy(excerpt), status)


def _suggest_remedy(excerpt: str) -> str:
    """Suggest what to do about a sampling field that a server rejects."""
    if not _UNSUPPORTED.search(excerpt):
        return ""

    # Only suggested: the sampling is part of a run's identity, so it must not change by itself.
    for name in SAMPLING:
        if re.search(rf"\b{name}\b", excerpt):
            neutral = ""
            if name != "seed":
                neutral = f"--{name.replace('_', '-')} 1 may be accepted; "
            return f"; {neutral}--omit-params {name} omits it, which makes a separate run"
    return ""


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
