"""The openai backend: any OpenAI-compatible API.

Calls take the same HTTP layer as those of `vllm` (`http.py`), which costs a third of a call through
the openai SDK (docs/performance.md) and limits its time and size; the SDK carries the rare and
elaborate calls, batch jobs here and embeddings elsewhere.  The key comes from OPENAI_API_KEY, for
Azure from AZURE_OPENAI_API_KEY, or from a role's own variable (`credentials.py`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NoReturn

import msgspec

from personabench.errors import (
    BackendDown,
    BackendError,
    Refused,
    TransientError,
    UsageError,
)
from personabench.models.backends import check_url, credentials
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.backends.chat_completion import (
    build_response,
    describe_server,
    other_model,
    parse_completion,
)
from personabench.models.backends.dialect import SAMPLING
from personabench.models.backends.http import (
    HTTPClient,
    Reply,
    ReplyTooLong,
    Unreachable,
    Untrusted,
)
from personabench.models.backends.openai_batch import MAX_CALLS, Batches
from personabench.models.backends.redaction import Secrets
from personabench.models.backends.refusals import add_remedy
from personabench.models.backends.status import status_error
from personabench.models.backends.windows import listed_window, read_models
from personabench.models.rate_limit import Limiter
from personabench.models.tokens import EstimatedTokens
from personabench.types import Request, Response

LISTING = 30.0
"""Seconds for listing the models of a server."""
LOCAL, REMOTE = 32, 256
"""Calls in flight for servers on this network, and at most for all others."""

_URL_HELP = "is the server running, and is --base-url right (it usually ends in /v1)?"
_encode = msgspec.json.Encoder().encode


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
        self._http: HTTPClient | None = None
        self._down: BackendDown | None = None
        self._limiter: Limiter | None = None
        self._batches: Batches | None = None
        self._key_variables = credentials.variables("openai", options)

        if options.batch is not None and options.api_version is not None:
            raise UsageError(
                "--batch: not with --api-version; Azure has batch deployments of its own"
            )
        if options.batch is not None and options.extra.get("stream"):
            raise UsageError("--batch: not with --extra stream; batches have no streams")
        self.check_omitted(SAMPLING)

    async def identify(self) -> None:
        url = self._url()
        self._server = url.rstrip("/")
        self.address = self._server
        self._query = ""
        if self.options.api_version is not None:
            self._query = f"?api-version={self.options.api_version}"
        is_nearby = credentials.nearby(self._server)
        self._writer = self.writer = self.create_writer({}, self._server, is_nearby=is_nearby)

        key = self._read_key(url)
        headers = credentials.openai_headers(self._key_variable, key, self.options)
        credentials.check_headers(headers, "OPENAI_CUSTOM_HEADERS, an account variable")
        self._secrets = Secrets(credentials.openai_secrets(key, self.options))
        self._http = HTTPClient(headers, self.options.timeout)
        self._choose_concurrency(key, headers)

        models = await self._find_models()
        name = self.options.model
        if name is None:
            name = await self._only_model(models)
        self._name = name
        self.window = self.options.window or models.get(name)

        self.identity = {"kind": "api", "name": name, **self.options.marks}

    def _choose_concurrency(self, key: str, headers: Mapping[str, str]) -> None:
        self.adaptive = not credentials.nearby(self._server)
        self.concurrency = REMOTE if self.adaptive else LOCAL

        if self.options.batch is not None:
            # A batch is as large as the number of calls that wait at the same time.
            self.adaptive = False
            self.concurrency = MAX_CALLS
            self._batches = Batches(
                self._server, key, headers, self._secrets.quote, self.options.batch
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
        body = self._writer.write(self._name, request)
        reply = await self._send(_encode(body))
        if not 200 <= reply.status < 300:
            self._raise_for_status(reply, reply.status)
        completion = parse_completion(
            reply.content,
            self._server,
            self._secrets.quote,
            partial(self._raise_for_status, reply),
        )

        model = ""
        # Azure reports the model behind a deployment, whose name is the user's own.
        if not self.options.api_version:
            model = other_model(self._name, completion.model)
        served = describe_server(self._name, completion)
        return self._secrets.clean(build_response(completion, model, served))

    async def aclose(self) -> None:
        if self._batches is not None:
            await self._batches.aclose()
        if self._http is not None:
            await self._http.aclose()

    async def _send(self, content: bytes) -> Reply:
        """Send a body, by itself or in a batch.

        Raises:
            TransientError: the connection broke, or no reply came in time.
            BackendDown: the server's certificate is not accepted.
            BackendError: the reply is too long.
        """
        # A probe cannot wait for a batch, since all calls wait for it.
        if self._batches is not None and not self.is_probing:
            if self._writer.dialect.streams:
                raise BackendDown(
                    f"--batch: {self._name} only streams its replies, and batches have no streams; "
                    "leave out --batch"
                )
            return await self._batches.send(content, self._writer.path)

        assert self._http is not None
        address = f"{self._server}{self._writer.path}{self._query}"
        try:
            return await self._http.post(address, content)
        except Untrusted as error:
            raise BackendDown(f"{self._server} cannot be used ({error})") from error
        except Unreachable as error:
            message = f"{self._server} accepts no connection ({self._secrets.quote(str(error))})"
            raise TransientError(message, kind="connection") from error
        except TimeoutError as error:
            message = f"{self._server} did not answer within {self.options.timeout:g} s"
            raise TransientError(message, kind="timeout") from error
        except ReplyTooLong as error:
            raise BackendError(f"{self._server} sent {error}") from error
        except OSError as error:
            reason = self._secrets.quote(str(error) or type(error).__name__)
            message = f"{self._server} broke the connection ({reason})"
            raise TransientError(message, kind="connection") from error

    async def _list_models(self) -> dict[str, int | None]:
        """Return the server's models with their windows; empty if it does not list them."""
        assert self._http is not None
        try:
            reply = await self._http.get(f"{self._server}/models", LISTING)
        except TimeoutError as error:
            raise BackendDown(
                f"{self._server} accepts no connection or sends no answer; {_URL_HELP}"
            ) from error
        except OSError as error:
            reason = self._secrets.quote(str(error) or type(error).__name__)
            raise BackendDown(
                f"{self._server} cannot be reached ({reason}); {_URL_HELP}"
            ) from error

        # Other errors may only mean that the server has no such list.
        if reply.status in (401, 403) or 300 <= reply.status < 400:
            self._raise_for_status(reply, reply.status)
        if not 200 <= reply.status < 300:
            return {}
        try:
            entries = read_models(reply.content)
        except ValueError as error:
            excerpt = self._secrets.quote(reply.content.decode(errors="replace"))
            raise BackendDown(
                f"{self._server} does not speak JSON ({excerpt}); {_URL_HELP}"
            ) from error
        return {entry["id"]: listed_window(entry) for entry in entries or ()}

    def _raise_for_status(self, reply: Reply, status: int) -> NoReturn:
        """Raise the error that a status means, the reply's or that of an error inside it."""
        error = status_error(
            self._server,
            status,
            reply.content,
            reply.headers,
            self._secrets,
            f"check {self._key_variable}",
        )
        if isinstance(error, Refused):
            error = add_remedy(error, SAMPLING, self.options.role)
        raise error
