"""The one way to the model: cache, single flight, limits, retries, receipts.

Two identical calls under way are one call.  A finished call is stored before it is handed on.  Only transport errors,
408, 409, 429 and 5xx are tried again, with jitter and a deadline, and replies that were broken off a few times;
everything else fails at once, and ends the run when the first calls of all fail alike.  Here a reply becomes answer and
thought, and its end and its token counts become what they can be believed to be.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from personabench.errors import (
    BackendDown,
    BackendError,
    BrokenOff,
    CacheMiss,
    Refused,
    Throttled,
    TransientError,
)
from personabench.models.backends.base import Backend
from personabench.models.budget import Budget
from personabench.models.cache import Cache, Policy, difference, request_key
from personabench.models.reply import apart, of_answer
from personabench.models.tokens import Tokens
from personabench.models.usage import Prompts, credible, dearest
from personabench.types import Call, Phase, Request, Response, Usage

RETRY_DEADLINE = 300.0
RETRY_FIRST = 0.5
RETRY_LONGEST = 30.0
REFUSALS = 8
BREAKS = 3
_PROMPTS_OWN = re.compile(
    r"context|too long|too many|maximum|content.(filter|management)|polic", re.I
)


def encodable(text: str) -> str:
    """A text with each half of a surrogate pair that stands alone, which no file can hold, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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
        deadline: seconds within which a call is tried again, not counting the wait for its turn.
        spend: the purse that paid calls are booked in, where there are prices.
        limiter: the backend's gate.
    """

    backend: Backend
    cache: Cache | None
    policy: Policy = "use"
    concurrency: int = 8
    deadline: float = RETRY_DEADLINE
    sleep: Callable[[float], asyncio.Future[None]] = field(default=asyncio.sleep)  # type: ignore[assignment]
    traffic: Traffic = field(default_factory=Traffic)
    spend: Budget | None = None

    def __post_init__(self) -> None:
        self.limiter = self.backend.limiter(self.concurrency)
        self._price = self.spend.price(self.backend.identity["name"]) if self.spend else None
        self._flying: dict[str, asyncio.Future[Response]] = {}
        self._answered = 0.0
        self._refusals: list[str] = []
        self._prompts = Prompts()
        self._names_ends = False
        self._missed = False

    @property
    def tokens(self) -> Tokens:
        """The model's token counter."""
        return self.backend.tokens

    @property
    def window(self) -> int | None:
        """The model's context window in tokens."""
        return self.backend.window

    async def complete(
        self,
        request: Request,
        phase: Phase,
        group: str,
        accept: Callable[[str], bool] | None = None,
        flag: Callable[[str], None] | None = None,
    ) -> tuple[Response, Call]:
        """Answer a request from memory, from an identical call under way, or from the model.

        A reply that `accept` refuses is not remembered.  `flag` is told of retries, as `retried_<kind>`, of replies in
        another model's name, as `other_model`, and of a reply's `oddities`.

        Raises:
            BackendError: the call failed for good.
            BackendDown: no call succeeded for as long as this one was tried, or the first calls failed alike.
            SpendStop: the call might have passed the limit of `spend`.
        """
        key = request_key(self.backend.identity, request)
        response, cached = await self._respond(key, request, group, accept, flag)
        if flag:
            for name in (
                ("other_model", *response.oddities) if response.model else response.oddities
            ):
                flag(name)
        return self._receipt(key, phase, response, cached=cached)

    async def _respond(
        self,
        key: str,
        request: Request,
        group: str,
        accept: Callable[[str], bool] | None,
        flag: Callable[[str], None] | None,
    ) -> tuple[Response, bool]:
        """The response, and whether an earlier call paid for it."""
        flying = self._flying.get(key)
        if flying is not None:
            return await asyncio.shield(flying), True
        if self.cache is not None and self.policy in ("use", "only"):
            stored = self.cache.get(key)
            if stored is not None:
                return stored, True
        if self.policy == "only":
            raise CacheMiss(self._miss(key, request))
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._flying[key] = future
        try:
            response = await self._call(request, group, flag)
            if (
                self.cache is not None
                and self.policy != "off"
                and self.is_storable(request, response, accept)
            ):
                self.cache.put(key, self.backend.identity, request, response)
            future.set_result(response)
        except BaseException as error:
            future.set_exception(
                error if isinstance(error, Exception) else BackendError("interrupted")
            )
            future.exception()
            raise
        finally:
            del self._flying[key]
        return response, False

    async def _call(
        self, request: Request, group: str, flag: Callable[[str], None] | None
    ) -> Response:
        began = time.monotonic()
        waited, delay, broken = 0.0, RETRY_FIRST, 0
        while True:
            queued = time.monotonic()
            reserved = (
                await self.spend.reserve(self._price, request)
                if self.spend and self._price
                else 0.0
            )
            usage: Usage | None = None
            try:
                set_aside = await self.limiter.enter(request)
                started = time.monotonic()
                waited += started - queued
                try:
                    response = await self._understood(
                        request, await self.backend.complete(request, group)
                    )
                    usage = response.usage
                    if "usage_missing" in response.oddities:
                        usage = dearest(request)
                        if self.spend:
                            self.spend.assumed += 1
                finally:
                    self.limiter.leave(
                        set_aside, usage.input_tokens + usage.output_tokens if usage else None
                    )
                if response.finish == "interrupted":
                    raise BrokenOff(_broken_off(response), kind="interrupted")
            except TransientError as error:
                now = time.monotonic()
                if error.retry_after and error.retry_after > self.deadline:
                    raise BackendDown(
                        f"{error}; it asks to wait {error.retry_after:.0f} s, and calls are retried for "
                        f"{self.deadline:.0f} s; repeat the command then"
                    ) from error
                if isinstance(error, Throttled):
                    self.limiter.throttled(started, error.retry_after)
                broken += isinstance(error, BrokenOff)
                if broken == BREAKS:
                    self._refuse(error)
                    raise
                wait = error.retry_after or delay * random.uniform(0.5, 1.5)
                if now + wait > began + waited + self.deadline:
                    failure = BackendError if self._answered > began else BackendDown
                    raise failure(
                        f"{error}; given up after {self.deadline:.0f} s of retries"
                    ) from error
                self.traffic.retries += 1
                if flag:
                    flag(f"retried_{error.kind}")
                await self.sleep(wait)
                delay = min(delay * 2, RETRY_LONGEST)
            except Refused as error:
                self._refuse(error)
                raise
            else:
                self._answered = now = time.monotonic()
                self.limiter.answered()
                return msgspec.structs.replace(response, seconds=round(now - started, 4))
            finally:
                if self.spend and self._price:
                    self.spend.settle(reserved, self._price, usage)

    async def _understood(self, request: Request, raw: Response) -> Response:
        """A backend's response with its thought apart, a known end, and token counts that can be true, or none."""
        response = apart(raw) if request.max_tokens else raw
        odd, finish, usage = [*raw.oddities], raw.finish, raw.usage
        if not credible(request, response):
            odd.append("usage_missing")
            usage = Usage()
        elif request.max_tokens and await self._prompts.cut(
            request, usage.input_tokens, self.tokens
        ):
            odd.append("prompt_truncated")
        if finish != "unsaid":
            self._names_ends = True
        elif usage.output_tokens >= request.max_tokens:
            finish = "length"
        elif self._names_ends or not response.text:
            finish = "interrupted"
        else:
            finish = "stop"
            odd.append("finish_unsaid")
        return msgspec.structs.replace(
            response,
            text=encodable(response.text),
            thought=encodable(response.thought),
            finish=finish,
            usage=usage,
            logprobs=of_answer(raw.logprobs, response.text) if response.thought else raw.logprobs,
            oddities=tuple(odd),
        )

    def _refuse(self, error: BackendError) -> None:
        """End the run when the first `REFUSALS` calls failed alike, and not for what the prompts hold."""
        if self._answered or _PROMPTS_OWN.search(str(error)):
            return
        self._refusals.append(re.sub(r"\d+", "#", str(error)))
        if len(self._refusals) >= REFUSALS and len(set(self._refusals)) == 1:
            raise BackendDown(
                f"the first {len(self._refusals)} calls were all refused alike: {error}"
            ) from error

    def _receipt(
        self, key: str, phase: Phase, response: Response, *, cached: bool
    ) -> tuple[Response, Call]:
        usage = response.usage
        if cached:
            self.traffic.cached += 1
        else:
            self.traffic.paid += 1
            self.traffic.input_tokens += usage.input_tokens
            self.traffic.output_tokens += usage.output_tokens
        spent = (
            usage.input_tokens,
            usage.output_tokens,
            response.seconds,
            response.finish,
            usage.cached_tokens,
        )
        return response, Call(key, phase, cached, *spent)

    def _miss(self, key: str, request: Request) -> str:
        """Why a call is not stored; only the first is compared with all that are, which takes time."""
        if self._missed:
            return f"not in the cache (key {key[:12]}); `personabench cache why SAMPLE` says what differs"
        self._missed = True
        nearest = self.cache.nearest(self.backend.identity, request) if self.cache else None
        why = (
            difference(request, self.backend.identity, *nearest)
            if nearest
            else "the cache is empty"
        )
        return f"not in the cache (key {key[:12]}); nearest stored call differs in {why}"

    @staticmethod
    def is_storable(
        request: Request, response: Response, accept: Callable[[str], bool] | None
    ) -> bool:
        """Whether an answer is worth remembering: not empty, and whole or cut at the request's own limit."""
        if not response.text.strip() or (accept is not None and not accept(response.text)):
            return False
        cut = response.finish == "length" and response.usage.output_tokens >= request.max_tokens
        return response.finish == "stop" or cut


def _broken_off(response: Response) -> str:
    ending = f"in the word '{response.ending}'" if response.ending else "without a word for the end"
    return (
        f"the server broke a reply off, or ended it {ending}, which does not say that it is whole"
    )
