"""Concurrency and rate limits of one endpoint.

Against a remote API a `Limiter` finds the concurrency that the server accepts: it doubles per round
trip until the first 429, then halves, and afterwards grows by one per round trip (additive
increase, multiplicative decrease: Chiu and Jain 1989).  A `Retry-After` header delays all calls,
not only the one that received it.  Servers of one's own get a fixed limit.  Calls per minute and
tokens per minute are spaced evenly, since servers measure shorter spans than a minute; a token
bucket that admits a minute's worth at once (aiolimiter's) would cause 429s.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from personabench.models.tokens import estimate_max_tokens
from personabench.types import Request

START = 32
"""Calls in flight with which an adaptive limiter starts."""


class Limiter:
    """The gate of one endpoint: every call enters, and leaves when it is done.

    Args:
        most: calls in flight at most.
        adaptive: start with at most `START` and adapt to the server's 429s.
        rpm, tpm: calls and tokens per minute at most.
        clock, sleep: replaceable for tests.
    """

    def __init__(
        self,
        most: int,
        *,
        adaptive: bool = False,
        rpm: float | None = None,
        tpm: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.most = most
        self.adaptive = adaptive
        self._width = float(min(START, most) if adaptive else most)
        self._in_flight = 0
        self._queue: deque[asyncio.Future[None]] = deque()

        self._was_throttled = False
        self._halved_at = -1.0
        self._held_until = -1.0

        self._seconds_per_call = 60 / rpm if rpm else 0.0
        self._seconds_per_token = 60 / tpm if tpm else 0.0
        self._next_call_at = 0.0
        self._next_token_at = 0.0

        self._clock = clock
        self._sleep = sleep

    @property
    def width(self) -> int:
        """The current limit of calls in flight."""
        return int(self._width)

    async def enter(self, request: Request) -> int:
        """Wait for admission; return the number of tokens reserved, for `leave`."""
        if self._queue or self._in_flight >= self.width:
            await self._wait_in_queue()
        else:
            self._in_flight += 1

        # Without rates or a Retry-After, the clock and the token estimate would only cost time.
        if not self._seconds_per_call and not self._seconds_per_token and self._held_until < 0:
            return 0

        try:
            return await self._wait_for_rate(request)
        except BaseException:
            self._release()
            raise

    async def _wait_for_rate(self, request: Request) -> int:
        tokens = 0
        if self._seconds_per_token:
            tokens = estimate_max_tokens(request, 3) + request.max_tokens

        now = self._clock()
        start = max(
            now,
            self._held_until,
            self._next_call_at,
            self._next_token_at,
        )
        self._next_call_at = start + self._seconds_per_call
        self._next_token_at = start + tokens * self._seconds_per_token

        while start > now:
            await self._sleep(start - now)
            now = self._clock()
            # A 429 received meanwhile may have extended the hold.
            start = self._held_until
        return tokens

    def leave(self, set_aside: int, used: int | None) -> None:
        """End a call; return its tokens `set_aside` that were not `used` (None: unknown)."""
        if used is not None and set_aside > used:
            self._next_token_at -= (set_aside - used) * self._seconds_per_token
        self._release()

    def answered(self) -> None:
        """Note a successful call: the server may accept more."""
        if self._width >= self.most:
            return

        # One step per call doubles the width per round trip; 1/width adds one per round trip.
        step = 1 / self._width if self._was_throttled else 1
        self._width = min(self._width + step, self.most)
        self._admit()

    def throttled(self, since: float, retry_after: float | None) -> None:
        """Note a 429 for a call under way since `since`."""
        if not self.adaptive:
            return

        now = self._clock()
        if retry_after:
            self._held_until = max(self._held_until, now + retry_after)

        # All calls of one round trip meet the same overload, so the width is halved once for all of
        # them.
        if since > self._halved_at:
            self._width = max(1.0, self._width / 2)
            self._halved_at = now
            self._was_throttled = True

    async def _wait_in_queue(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            # Admitted and cancelled at once: the slot goes to the next in the queue.
            if not turn.cancelled():
                self._release()
            raise

    def _release(self) -> None:
        self._in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        while self._queue and self._in_flight < self.width:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                self._in_flight += 1
