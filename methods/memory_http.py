"""A memory system behind three HTTP requests: `/start`, `/ingest` and `/retrieve`.

The server is that of PERSONABENCH_MEMORY_URL; its address is no part of a run's identity, the name
of the system (`system`) is.  Every history gets a namespace of its own, random in every run, so
that no two runs share a store.  See docs/memory.md for the messages.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from personabench import Batch, Context, Memory, MemoryItem, UsageError
from personabench.api.memory_batches import Unit
from personabench.api.memory_messages import list_messages, read_items
from personabench.errors import BackendError

if TYPE_CHECKING:
    from personabench.models.backends.http import HTTPClient, Reply

URL = "PERSONABENCH_MEMORY_URL"
TRIES = 4
_FIRST_WAIT = 0.2
_TRANSIENT = frozenset((408, 409, 429))
_log = logging.getLogger("personabench.method")

State = dict[str, Any]


class MemoryHTTP(Memory):
    """Ask a memory system that runs as a server, with one namespace for every history."""

    name = "memory_http"
    needs = ("history|feedback",)
    retrieval_params = ("memory_tokens", "k")
    opaque = True
    external = True

    @dataclass(frozen=True)
    class Params(Memory.Params):
        """system: the name and version of the system, which identify a run.

        unit: the records that are ingested together.
        k: items requested for a question.
        timeout: seconds for an exchange.
        """

        system: str = ""
        unit: Unit = "exchange"
        k: int = 10
        timeout: float = 60.0

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self._run = secrets.token_hex(8)
        self._histories = 0
        self._client: HTTPClient | None = None
        # The batches of each namespace, to be ingested again if one of them may have been lost.
        self._sent: dict[str, list[Mapping[str, Any]]] = {}
        self._honours_numbers = False

    async def start(self, ctx: Context) -> State:
        return {"user": await self._open(), "size": {}, "system": self.params.system}

    async def _open(self) -> str:
        """Open a namespace."""
        self._histories += 1
        user = f"{self._run}-{self._histories}"
        reply = await self._post("start", {"user": user})
        system = reply.get("system", "")
        if system and self.params.system and system != self.params.system:
            raise UsageError(
                f"memory_http: the server at {_base_url()} is {system!r}, not "
                f"{self.params.system!r}; name it with --set memory_http.system=..."
            )
        self._honours_numbers = reply.get("honours_batch_numbers") is True
        self._sent[user] = []
        return user

    async def ingest(self, state: State, batch: Batch, ctx: Context) -> State:
        payload = {"number": batch.number, "batch": list_messages(batch, ctx)}
        state["user"] = await self._send_batch(state["user"], payload, ctx)
        return state

    async def _send_batch(self, user: str, payload: Mapping[str, Any], ctx: Context) -> str:
        """Ingest a batch exactly once; returns the namespace, a new one if the old is in doubt."""
        for _ in range(TRIES):
            try:
                # Without numbers, a repetition could store the batch twice.
                tries = TRIES if self._honours_numbers else 1
                await self._post("ingest", {"user": user, **payload}, tries=tries)
                self._sent[user].append(payload)
                return user
            except _Uncertain as error:
                if self._honours_numbers:
                    raise
                _log.info("a batch may be lost (%s); the history is ingested again", error)
                ctx.flag("memory_ingested_again")
                user = await self._repeat(user)
        raise BackendError(f"memory_http: {_base_url()}/ingest failed {TRIES} times")

    async def _repeat(self, user: str) -> str:
        """Ingest the batches of a namespace into a new one."""
        batches = self._sent.pop(user)
        await self._delete(user)
        fresh = await self._open()
        for payload in batches:
            await self._post("ingest", {"user": fresh, **payload}, tries=1)
            self._sent[fresh].append(payload)
        return fresh

    async def finish(self, state: State, ctx: Context) -> State:
        size = await self._post("size", {"user": state["user"]}, optional=True)
        state["size"] = {
            name: amount
            for name, amount in size.items()
            if isinstance(amount, int) and not isinstance(amount, bool) and amount >= 0
        }
        return state

    def size(self, state: State) -> Mapping[str, int]:
        return dict(state["size"])

    async def retrieve(
        self, state: State, query: str, ctx: Context, now: str
    ) -> Sequence[MemoryItem]:
        request = {
            "user": state["user"],
            "query": query,
            "now": now,
            "k": self.params.k,
            "tokens": self.params.memory_tokens,
        }
        reply = await self._post("retrieve", request)
        return read_items(reply, self.name)

    async def close(self) -> None:
        """Delete all namespaces of the run."""
        for user in list(self._sent):
            await self._delete(user)
        self._sent.clear()
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _delete(self, user: str) -> None:
        try:
            await self._http().delete(f"{_base_url()}/users/{user}")
        except OSError as error:
            _log.warning("memory_http: %s was not deleted: %s", user, error)

    async def _post(
        self, path: str, body: Mapping[str, Any], *, tries: int = TRIES, optional: bool = False
    ) -> Mapping[str, Any]:
        """Send a request; transient failures are repeated.

        Raises:
            _Uncertain: it failed for good, and the server may have worked on it.
            BackendError: the server refuses it, or replies no JSON object.
        """
        url = f"{_base_url()}/{path}"
        content = json.dumps(body, ensure_ascii=False).encode()
        failure = ""
        for attempt in range(tries):
            if attempt:
                await asyncio.sleep(_FIRST_WAIT * 2 ** (attempt - 1))
            try:
                reply = await self._http().post(url, content)
            except OSError as error:
                failure = f"{type(error).__name__} {error}".strip()
                continue
            if optional and reply.status in (404, 405, 501):
                return {}
            if reply.status >= 500 or reply.status in _TRANSIENT:
                failure = f"status {reply.status}"
                continue
            return _read_reply(url, reply)
        raise _Uncertain(f"memory_http: {url}: {failure}; is the memory server running?")

    def _http(self) -> HTTPClient:
        # Made within the loop of the run.
        if self._client is None:
            from personabench.models.backends.http import HTTPClient

            self._client = HTTPClient({"Content-Type": "application/json"}, self.params.timeout)
        return self._client


class _Uncertain(BackendError):
    """A request failed that the server may have worked on."""


def _base_url() -> str:
    url = os.environ.get(URL, "")
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"memory_http: set {URL} to the address of the memory server")
    return url.rstrip("/")


def _read_reply(url: str, reply: Reply) -> Mapping[str, Any]:
    if reply.status >= 400:
        text = reply.content[:200].decode(errors="replace")
        raise BackendError(f"memory_http: {url} refused the request ({reply.status}): {text}")
    try:
        value = json.loads(reply.content or b"{}")
    except ValueError as error:
        raise BackendError(f"memory_http: the reply of {url} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise BackendError(f"memory_http: the reply of {url} is no JSON object")
    return value
