"""The one way to the model: cache, single flight, concurrency, retries, receipts.

Two identical calls under way are one call.  A finished call is stored before it is handed on.  Only transport errors,
408, 409, 429 and 5xx are tried again, with jitter and a deadline; everything else fails at once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from personabench.backends import Backend
from personabench.cache import Cache, Policy, difference, request_key
from personabench.errors import BackendDown, BackendError, CacheMiss, TransientError
from personabench.task import Tokens
from personabench.types import Call, Phase, Request, Response

RETRY_DEADLINE = 300.0
RETRY_FIRST = 0.5
RETRY_LONGEST = 30.0


@dataclass
class Traffic:
    """What went over the wire so far, for the progress display: paid and cached calls, tokens, retries."""

    paid: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    retries: int = 0


@dataclass
class Client:
    """A backend with memory.

    Attributes:
        backend: the model.
        cache, policy: where finished calls are kept, and whether to read it ("use"), only write it ("refresh"),
            neither ("off"), or never call the model ("only").
        concurrency: calls in flight at most.
        deadline: seconds within which a call is tried again.
    """

    backend: Backend
    cache: Cache | None
    policy: Policy = "use"
    concurrency: int = 8
    deadline: float = RETRY_DEADLINE
    sleep: Callable[[float], asyncio.Future[None]] = field(default=asyncio.sleep)  # type: ignore[assignment]
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.concurrency)
        self._flying: dict[str, asyncio.Future[Response]] = {}
        self._answered = 0.0

    @property
    def tokens(self) -> Tokens:
        """The model's token counter."""
        return self.backend.tokens

    @property
    def window(self) -> int | None:
        """The model's context window in tokens."""
        return self.backend.window

    async def complete(
        self, request: Request, phase: Phase, group: str, accept: Callable[[str], bool] | None = None
    ) -> tuple[Response, Call]:
        """Answer a request from memory, from an identical call under way, or from the model.

        Raises:
            BackendError: the call failed for good.
            BackendDown: no call succeeded for as long as this one was tried.
        """
        key = request_key(self.backend.identity, request)
        flying = self._flying.get(key)
        if flying is not None:
            response = await asyncio.shield(flying)
            return self._receipt(key, phase, response, cached=True)
        if self.cache is not None and self.policy in ("use", "only"):
            stored = self.cache.get(key)
            if stored is not None:
                return self._receipt(key, phase, stored, cached=True)
        if self.policy == "only":
            raise CacheMiss(self._miss(key, request))
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._flying[key] = future
        try:
            response = await self._call(request, group)
            if self.cache is not None and self.policy != "off" and _keepable(request, response, accept):
                self.cache.put(key, self.backend.identity, request, response)
            future.set_result(response)
        except BaseException as error:
            future.set_exception(error if isinstance(error, Exception) else BackendError("interrupted"))
            future.exception()
            raise
        finally:
            del self._flying[key]
        return self._receipt(key, phase, response, cached=False)

    async def _call(self, request: Request, group: str) -> Response:
        began = time.monotonic()
        delay = RETRY_FIRST
        while True:
            try:
                async with self._slots:
                    started = time.perf_counter()
                    response = await self.backend.complete(request, group)
                    seconds = time.perf_counter() - started
                self._answered = time.monotonic()
                return Response(response.text, response.finish, response.usage, round(seconds, 4), response.logprobs)
            except TransientError as error:
                wait = error.retry_after or delay * random.uniform(0.5, 1.5)
                if time.monotonic() + wait > began + self.deadline:
                    failure = BackendError if self._answered > began else BackendDown
                    raise failure(f"{error}; given up after {self.deadline:.0f} s of retries") from error
                self.traffic.retries += 1
                await self.sleep(wait)
                delay = min(delay * 2, RETRY_LONGEST)

    def _receipt(self, key: str, phase: Phase, response: Response, *, cached: bool) -> tuple[Response, Call]:
        usage = response.usage
        if cached:
            self.traffic.cached += 1
        else:
            self.traffic.paid += 1
            self.traffic.input_tokens += usage.input_tokens
            self.traffic.output_tokens += usage.output_tokens
        spent = (usage.input_tokens, usage.output_tokens, response.seconds, response.finish, usage.cached_tokens)
        return response, Call(key, phase, cached, *spent)

    def _miss(self, key: str, request: Request) -> str:
        nearest = self.cache.nearest(self.backend.identity, request) if self.cache else None
        why = difference(request, self.backend.identity, *nearest) if nearest else "the cache is empty"
        return f"not in the cache (key {key[:12]}); nearest stored call differs in {why}"


def _keepable(request: Request, response: Response, accept: Callable[[str], bool] | None) -> bool:
    """Whether an answer is worth remembering: not empty, and not cut before the request's own limit."""
    if not response.text.strip() or (accept is not None and not accept(response.text)):
        return False
    return response.finish == "stop" or response.usage.output_tokens >= request.max_tokens
