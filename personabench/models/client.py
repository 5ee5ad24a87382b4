"""The model client: cache, deduplication, limits, retries and usage accounting.

Two identical concurrent calls are one call.  A finished call is stored before it is returned.  Only
transport errors, 408, 409, 429 and 5xx are retried, with jitter and a deadline, and interrupted
replies a few times; everything else fails at once, and ends the run if the first calls of all fail
alike.  Here a reply is split into answer and thought, and its finish and its token counts are
checked.
"""

from __future__ import annotations

import asyncio
import functools
import random
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from personabench.errors import (
    BackendDown,
    BackendError,
    BrokenOff,
    CacheMiss,
    Filtered,
    Refused,
    Throttled,
    TransientError,
)
from personabench.models.backends.base import Backend
from personabench.models.backends.dialect import SCHEMAS, unfenced
from personabench.models.budget import Budget
from personabench.models.cache import Cache, Policy, difference, request_key
from personabench.models.journal import Journal
from personabench.models.reply import answer_logprobs, separate_thought
from personabench.models.tokens import Tokens
from personabench.models.traffic import Traffic
from personabench.models.usage import PromptCounts, is_credible, max_usage
from personabench.types import ONLY_TRY, Call, Phase, Request, Response, Try, Usage

RETRY_DEADLINE = 300.0
RETRY_FIRST = 0.5
RETRY_LONGEST = 30.0
REFUSALS = 8
"""First calls of a run that must all be refused alike to end it."""
EMPTY = 5
"""First replies of a phase that must all be truncated before their answer to end the run."""
BREAKS = 3
"""Interrupted replies to one request after which it is given up."""
MANY = 16
"""Calls in flight from which those that finish together share a transaction."""

# Refusals about one prompt's length or content; the next prompt may be accepted.
_PROMPT_ERROR = re.compile(
    r"context|too (long|many|large)|maximum|content.(filter|management)|polic|moderat|flagged"
    r"|safety|harmful|guardrail",
    re.I,
)


def encodable(text: str) -> str:
    """Replace each unpaired surrogate, which cannot be written to a file, by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass
class _Attempt:
    """One try of a call: when it was queued and sent, and the usage to book."""

    queued: float
    started: float = 0.0
    usage: Usage | None = None


@dataclass
class _Retries:
    """The state of a call over its tries; time spent in queues (`waited`) does not count."""

    began: float
    waited: float = 0.0
    delay: float = RETRY_FIRST
    interruptions: int = 0


@dataclass
class Client:
    """A backend with cache, limits, retries and accounting.

    Attributes:
        backend: the model.
        cache, policy: the store of finished calls, and whether to read it ("use"), only write it
            ("refresh"), neither ("off"), or never call the model ("only").
        concurrency: calls in flight at most.
        deadline: seconds within which a call is retried, not counting the time in queues.
        budget: the budget that paid calls are booked in, if there are prices.
        journal: keeps the replies of unfinished work that the cache does not store.
        limiter: the backend's limiter.
        scores_thoughts: replies count as they came, so that one without an answer is no fault.
    """

    backend: Backend
    cache: Cache | None
    policy: Policy = "use"
    concurrency: int = 8
    deadline: float = RETRY_DEADLINE
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep)
    traffic: Traffic = field(default_factory=Traffic)
    budget: Budget | None = None
    scores_thoughts: bool = False
    journal: Journal | None = None

    def __post_init__(self) -> None:
        self.limiter = self.backend.limiter(self.concurrency)
        self._price = self.budget.price(self.backend.identity["name"]) if self.budget else None
        self._in_flight: dict[str, asyncio.Future[tuple[Response, bool]]] = {}
        self._last_answer = 0.0
        self._refusals: list[str] = []
        self._empty_replies: dict[Phase, int] = {}
        self._prompts = PromptCounts()
        self._reports_finish = False
        self._explained_miss = False

    @property
    def tokens(self) -> Tokens:
        """The model's token counter."""
        return self.backend.tokens

    @property
    def window(self) -> int | None:
        """The model's context window in tokens."""
        return self.backend.window

    @property
    def allowance(self) -> int:
        """Tokens for the thought, which every call gets beside those for its answer."""
        return self.backend.thought_allowance() if self.backend.options.reasoning else 0

    async def complete(
        self,
        request: Request,
        phase: Phase,
        group: str,
        accept: Callable[[str], bool] | None = None,
        flag: Callable[[str], None] | None = None,
        work: str = "",
        attempt: Try = ONLY_TRY,
    ) -> tuple[Response, Call]:
        """Answer a request from the cache, from an identical call in flight, or from the model.

        A reply that `accept` rejects is not cached, but kept for `work` until `finish`.  `flag` is
        called for retries, with `retried_<kind>`, for replies in another model's name, with
        `other_model`, and for each of a reply's `oddities`.  `attempt` matters to plans only.

        Raises:
            BackendError: the call failed for good.
            BackendDown: no call succeeded for as long as this one was retried, or the first calls
                failed alike.
            BudgetExceeded: the call might have exceeded the limit of `budget`.
        """
        key = request_key(self.backend.identity_of(request), request)
        response, cached = await self._respond(key, request, group, accept, flag, work)
        if not cached:
            self._note_reply(phase, request, response)

        if flag:
            if response.model:
                flag("other_model")
            for oddity in response.oddities:
                flag(oddity)
        return self._receipt(key, phase, request, response, cached=cached)

    def finish(self, work: str) -> None:
        """Forget the replies that were kept for a sample or a profile, which is on disk now."""
        if self.journal is not None:
            self.journal.finish(work)

    async def _respond(
        self,
        key: str,
        request: Request,
        group: str,
        accept: Callable[[str], bool] | None,
        flag: Callable[[str], None] | None,
        work: str,
    ) -> tuple[Response, bool]:
        """Return the response, and whether an earlier call paid for it."""
        in_flight = self._in_flight.get(key)
        if in_flight is not None:
            # Shielded: cancelling this caller must not cancel the call for the others.
            response, stored = await asyncio.shield(in_flight)
            if not stored:
                await self._store(key, request, response, accept, work)
            return response, True

        paid = self._find_stored(key, work)
        if paid is not None:
            return paid, True
        if self.policy == "only":
            raise CacheMiss(self._explain_miss(key, request))

        future: asyncio.Future[tuple[Response, bool]] = asyncio.get_running_loop().create_future()
        self._in_flight[key] = future
        try:
            response, leave = await self._call(self.with_allowance(request), group, flag)
            try:
                stored = await self._store(key, request, response, accept, work)
            finally:
                # Not before: a kill loses the calls in flight alone.
                leave()
            future.set_result((response, stored))
        except BaseException as error:
            failure = error if isinstance(error, Exception) else BackendError("interrupted")
            future.set_exception(failure)
            # Retrieved once, so that asyncio does not warn if no other caller waits for it.
            future.exception()
            raise
        finally:
            del self._in_flight[key]
        return response, False

    def _find_stored(self, key: str, work: str) -> Response | None:
        """Return the reply of this work before an interrupt, or of any earlier call."""
        # First, since the same call of other work may have got another reply meanwhile.
        journaled = self.journal.get(work, key) if self.journal and work else None
        if journaled is None and self.cache is not None and self.policy in ("use", "only"):
            return self.cache.get(key)
        return journaled

    async def _store(
        self,
        key: str,
        request: Request,
        response: Response,
        accept: Callable[[str], bool] | None,
        work: str,
    ) -> bool:
        """Store a reply, for this work alone if no other may use it; return whether for all.

        A refresh does not read the shared store, so its own work keeps every reply.
        """
        if self.cache is None or self.policy == "off":
            return False
        for_all = self.is_storable(request, response, accept)
        keeps = not for_all or self.policy == "refresh"
        # First, because the caller may be cancelled while the other write is waited for.
        if keeps and self.journal is not None and work:
            self.journal.put(work, key, response)
        if for_all:
            entry = (key, self.backend.identity_of(request), request, response)
            if len(self._in_flight) < MANY:
                self.cache.put(*entry)
            else:
                await self.cache.store(*entry)
        return for_all and not keeps

    def with_allowance(self, request: Request) -> Request:
        """Return the request as it is sent: with room for the thought before the answer."""
        # A likelihood request (`max_tokens` 0) generates nothing.
        if not self.allowance or not request.max_tokens:
            return request
        return msgspec.structs.replace(request, max_tokens=request.max_tokens + self.allowance)

    async def _call(
        self, request: Request, group: str, flag: Callable[[str], None] | None
    ) -> tuple[Response, Callable[[], None]]:
        """Call the model, with retries; return the response, and a function that ends the call."""
        retries = _Retries(time.monotonic())
        while True:
            attempt = _Attempt(time.monotonic())
            reserved = await self._reserve(request)
            try:
                response, leave = await self._try_once(request, group, attempt, retries)
            except TransientError as error:
                wait = self._plan_retry(error, attempt, retries)
                self.traffic.retries += 1
                self.traffic.trouble = str(error)
                self.traffic.trouble_kind = error.kind
                if flag:
                    flag(f"retried_{error.kind}")
                await self.sleep(wait)
            except Refused as error:
                self._note_refusal(error)
                raise
            else:
                self._last_answer = time.monotonic()
                self.traffic.trouble = ""
                self.limiter.answered()
                seconds = round(self._last_answer - attempt.started, 4)
                return msgspec.structs.replace(response, seconds=seconds), leave
            finally:
                # After the wait: the reservation of a call that will be retried stays in place.
                if self.budget and self._price:
                    self.budget.settle(reserved, self._price, attempt.usage)

    async def _reserve(self, request: Request) -> float:
        if self.budget is None or not self._price:
            return 0.0
        return await self.budget.reserve(self._price, request)

    async def _try_once(
        self,
        request: Request,
        group: str,
        attempt: _Attempt,
        retries: _Retries,
    ) -> tuple[Response, Callable[[], None]]:
        reserved_tokens = await self.limiter.enter(request)
        attempt.started = time.monotonic()
        retries.waited += attempt.started - attempt.queued

        tokens_used: int | None = None
        try:
            raw = await self.backend.complete(request, group)
            response = await self._interpret(request, raw)
            attempt.usage = self._usage_to_book(request, response)
            tokens_used = attempt.usage.input_tokens + attempt.usage.output_tokens
            if response.finish == "interrupted":
                raise BrokenOff(_describe_interruption(response), kind="interrupted")
        except BaseException:
            self.limiter.leave(reserved_tokens, tokens_used)
            raise
        return response, functools.partial(self.limiter.leave, reserved_tokens, tokens_used)

    def _usage_to_book(self, request: Request, response: Response) -> Usage:
        if "usage_missing" not in response.oddities:
            return response.usage

        # Booking less than a call may have cost could exceed the spending limit unnoticed.
        if self.budget:
            self.budget.assumed += 1
        return max_usage(request)

    def _plan_retry(self, error: TransientError, attempt: _Attempt, retries: _Retries) -> float:
        """Return the seconds to wait before the next try.

        Raises:
            BackendDown, BackendError: the call is given up.
        """
        now = time.monotonic()
        if error.retry_after and error.retry_after > self.deadline:
            raise BackendDown(
                f"{error}; the server asks to wait {error.retry_after:.0f} s, "
                f"but calls are retried for {self.deadline:.0f} s only; "
                "repeat the command after that time"
            ) from error

        if isinstance(error, Throttled):
            self.limiter.throttled(attempt.started, error.retry_after)
        if isinstance(error, BrokenOff):
            retries.interruptions += 1
            if retries.interruptions == BREAKS:
                self._note_refusal(error)
                raise error

        # Jitter keeps calls that failed together from being repeated together.
        wait = error.retry_after or retries.delay * random.uniform(0.5, 1.5)
        if now + wait > retries.began + retries.waited + self.deadline:
            # If other calls succeeded meanwhile, the fault is in this request, not in the server.
            failure = BackendError if self._last_answer > retries.began else BackendDown
            raise failure(f"{error}; given up after {self.deadline:.0f} s of retries") from error

        retries.delay = min(retries.delay * 2, RETRY_LONGEST)
        return wait

    async def _interpret(self, request: Request, raw: Response) -> Response:
        """Separate a response's thought, determine its finish, and check its token counts."""
        # A likelihood request (`max_tokens` 0) returns its own text, which must stay as it is.
        response = separate_thought(raw) if request.max_tokens else raw
        oddities = list(raw.oddities)

        usage = raw.usage
        if not is_credible(request, response):
            oddities.append("usage_missing")
            usage = Usage()
        elif request.max_tokens and await self._prompts.is_truncated(
            request, usage.input_tokens, self.tokens
        ):
            oddities.append("prompt_truncated")

        finish = raw.finish
        if finish != "unsaid":
            self._reports_finish = True
        else:
            finish = self._infer_finish(request, response, usage)
            if finish == "stop":
                oddities.append("finish_unsaid")

        text = response.text
        # A schema that only the prompt asks for keeps no model from writing around the JSON.
        if request.schema is not None and self.backend.dialect.schema != SCHEMAS[0]:
            text = unfenced(text)

        logprobs = raw.logprobs
        if response.thought:
            logprobs = answer_logprobs(logprobs, response.text)
        return msgspec.structs.replace(
            response,
            text=encodable(text),
            thought=encodable(response.thought),
            raw=encodable(response.raw),
            finish=finish,
            usage=usage,
            logprobs=logprobs,
            oddities=tuple(oddities),
        )

    def _infer_finish(self, request: Request, response: Response, usage: Usage) -> str:
        """Infer the finish of a reply that came without a reason."""
        if usage.output_tokens >= request.max_tokens:
            return "length"
        # A server that reports reasons for other replies omits it when a reply breaks off.
        if self._reports_finish or not response.text:
            return "interrupted"
        return "stop"

    def _note_refusal(self, error: BackendError) -> None:
        """End the run if the first calls failed alike, for a reason other than their prompts."""
        if self._last_answer or isinstance(error, Filtered) or _PROMPT_ERROR.search(str(error)):
            return

        # Request ids and token counts differ between otherwise equal messages.
        self._refusals.append(re.sub(r"\d+", "#", str(error)))
        if len(self._refusals) >= REFUSALS and len(set(self._refusals)) == 1:
            raise BackendDown(
                f"the first {len(self._refusals)} calls were all refused alike: {error}"
            ) from error

    def _note_reply(self, phase: Phase, request: Request, response: Response) -> None:
        """End the run if the first replies of a phase were all truncated before their answer."""
        # An answer to a phase, whose allowance may be larger, says nothing about another one.
        count = self._empty_replies.get(phase, 0)
        if count >= EMPTY or not request.max_tokens or self.scores_thoughts:
            return
        if response.text.strip() or response.finish != "length":
            self._empty_replies[phase] = EMPTY
            return

        self._empty_replies[phase] = count + 1
        if count + 1 == EMPTY:
            options = self.backend.options
            prefix = f"--{options.role}-" if options.role else "--"
            larger = "a higher" if options.reasoning else "a"
            raise BackendDown(
                f"the first {EMPTY} answers of {self.backend.identity['name']} are all empty and "
                "truncated at their token limit, as those of a model that thinks first are: give "
                f"each answer more room with {larger} {prefix}reasoning level (low, medium, high "
                f"or a number of tokens), switch its thoughts off with {prefix}reasoning off, or "
                "raise --max-tokens"
            )

    def _receipt(
        self, key: str, phase: Phase, request: Request, response: Response, *, cached: bool
    ) -> tuple[Response, Call]:
        usage = response.usage
        self.traffic.book(phase, request, response, cached=cached)
        call = Call(
            key,
            phase,
            cached,
            usage.input_tokens,
            usage.output_tokens,
            response.seconds,
            response.finish,
            usage.cached_tokens,
            response.served or msgspec.UNSET,
            usage.reasoning_tokens,
            usage.cache_write_tokens,
            request.max_tokens,
        )
        return response, call

    def _explain_miss(self, key: str, request: Request) -> str:
        # Comparing a request with all stored ones takes time, so only the first miss is explained.
        if self._explained_miss:
            return (
                f"not in the cache (key {key[:12]}); "
                "`personabench cache why SAMPLE` shows the differences"
            )
        self._explained_miss = True

        reason = "the cache is empty"
        identity = self.backend.identity_of(request)
        nearest = self.cache.nearest(identity, request) if self.cache else None
        if nearest is not None:
            change = difference(request, identity, *nearest)
            reason = f"nearest stored call differs in {change}"
        return f"not in the cache (key {key[:12]}); {reason}"

    def is_storable(
        self, request: Request, response: Response, accept: Callable[[str], bool] | None
    ) -> bool:
        """Whether to cache a response: not empty, and complete or truncated at its limit."""
        if not response.text.strip():
            return False
        if accept is not None and not accept(response.text):
            return False

        # A reply shorter than the limit was truncated by the context window, which may differ on
        # the next server.
        limit = self.with_allowance(request).max_tokens
        reached_limit = response.usage.output_tokens >= limit
        return response.finish == "stop" or (response.finish == "length" and reached_limit)


def _describe_interruption(response: Response) -> str:
    if response.ending:
        return (
            f"the server broke a reply off, or ended it in the word '{response.ending}', "
            "which does not mean that it is complete"
        )
    return "the server broke a reply off, or ended it without a finish reason"
