"""How much is asked of a server at once, in a minute, and for money.

A `Limiter` belongs to one endpoint.  Against a remote API it finds the concurrency that the server takes: it doubles
per round trip until the first 429, halves then, and grows by one per round trip afterwards (additive increase,
multiplicative decrease: Chiu and Jain 1989).  A `Retry-After` holds every call back, not only the one that heard it.
Servers of one's own get a fixed cap.  Calls per minute and tokens per minute are spaced evenly, since servers measure
shorter spans than a minute; a bucket that lets a minute's worth through at once (aiolimiter's) would draw 429s.

A `Spend` is the purse of one command.  Before a call its highest possible price is put aside, so that no number of
calls in flight can pass the limit together.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

from personabench.errors import SpendStop, UsageError
from personabench.types import Request, Usage, to_json

START = 32
PER_MESSAGE = 16
Prices = Mapping[str, Mapping[str, float]]


class Limiter:
    """The gate of one endpoint: every call enters, and leaves when it is done.

    Args:
        most: calls in flight at most.
        adaptive: start with at most `START` and let the server's refusals decide.
        rpm, tpm: calls and tokens per minute at most.
        clock, sleep: time, for tests.
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
        self._flying = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._refused = False
        self._cut_at = self._held_until = -1.0
        self._call_takes = 60 / rpm if rpm else 0.0
        self._token_takes = 60 / tpm if tpm else 0.0
        self._call_free = self._tokens_free = 0.0
        self._clock, self._sleep = clock, sleep

    @property
    def width(self) -> int:
        """Calls in flight that are thought to be welcome now."""
        return int(self._width)

    async def enter(self, request: Request) -> int:
        """Wait for a place; returns the tokens set aside, for `leave`."""
        if self._queue or self._flying >= int(self._width):
            await self._turn()
        else:
            self._flying += 1
        if not self._call_takes and not self._token_takes and self._held_until < 0:
            return 0
        try:
            tokens = most_tokens(request, 3) + request.max_tokens if self._token_takes else 0
            now = self._clock()
            start = max(now, self._held_until, self._call_free, self._tokens_free)
            self._call_free = start + self._call_takes
            self._tokens_free = start + tokens * self._token_takes
            while start > now:
                await self._sleep(start - now)
                now = self._clock()
                start = self._held_until
        except BaseException:
            self._release()
            raise
        return tokens

    def leave(self, set_aside: int, used: int | None) -> None:
        """Give the place back; of the tokens `set_aside`, only those `used` were needed (None: nobody knows)."""
        if used is not None and set_aside > used:
            self._tokens_free -= (set_aside - used) * self._token_takes
        self._release()

    def answered(self) -> None:
        """A call was answered: the server may take more."""
        if self._width < self.most:
            self._width = min(self._width + (1 / self._width if self._refused else 1), self.most)
            self._admit()

    def throttled(self, since: float, retry_after: float | None) -> None:
        """A call under way since `since` was refused for there being too many; one cut answers for all of a round."""
        if not self.adaptive:
            return
        now = self._clock()
        if retry_after:
            self._held_until = max(self._held_until, now + retry_after)
        if since > self._cut_at:
            self._width = max(1.0, self._width / 2)
            self._cut_at, self._refused = now, True

    async def _turn(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._release()
            raise

    def _release(self) -> None:
        self._flying -= 1
        self._admit()

    def _admit(self) -> None:
        while self._queue and self._flying < int(self._width):
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                self._flying += 1


class Spend:
    """Money paid in one command, over all its runs and models.

    Args:
        prices: `{"MODEL": {"input": .., "output": ..}}`, money per million tokens.
        limit: what may be spent, or None.

    Attributes:
        spent: what was paid so far.
        assumed: calls in it that are booked at the most they could cost, since the server did not say what they took.
    """

    def __init__(self, prices: Prices, limit: float | None = None) -> None:
        self.prices = prices
        self.limit = limit
        self.spent = 0.0
        self.assumed = 0
        self._promised = 0.0
        self._flying = 0
        self._settled = asyncio.Event()

    def price(self, model: str) -> Mapping[str, float] | None:
        """What a model costs; None where the prices do not say and no limit depends on it.

        Raises:
            UsageError: there is a limit to keep and no price to keep it by.
        """
        price = self.prices.get(model)
        if price is None and self.limit is not None:
            known = ", ".join(sorted(self.prices)[:8]) or "none"
            raise UsageError(f"--max-cost needs a price for {model}; the file of --prices has one for: {known}")
        return price

    async def reserve(self, price: Mapping[str, float], request: Request) -> float:
        """Put aside the most that a call can cost and say how much; waits for calls in flight to cost less than that.

        Raises:
            SpendStop: nothing is in flight and the call might still pass the limit.
        """
        if self.limit is None:
            return 0.0
        most = _cost(price, most_tokens(request, 1), request.max_tokens)
        while self.spent + self._promised + most > self.limit:
            if not self._flying:
                assumed = (
                    f" ({self.assumed} calls without a credible token count are in it at the most they could cost)"
                    if self.assumed
                    else ""
                )
                raise SpendStop(
                    f"--max-cost {self.limit:g}: stopped with {self.spent:.6g} spent{assumed}, since the next call "
                    f"could cost up to {most:.6g}. Repeat the command to spend as much again, or give another --max-cost"
                )
            await self._settled.wait()
        self._promised += most
        self._flying += 1
        return most

    def settle(self, reserved: float, price: Mapping[str, float], usage: Usage | None) -> None:
        """A call ended: with a reply it cost its tokens (those of `usage`), otherwise nothing."""
        if usage is not None:
            self.spent += _cost(price, usage.input_tokens, usage.output_tokens)
        if self.limit is not None:
            self._flying -= 1
            self._promised = self._promised - reserved if self._flying else 0.0
            self._settled.set()
            self._settled.clear()


def _cost(price: Mapping[str, float], given: int, made: int) -> float:
    return (given * price["input"] + made * price["output"]) / 1_000_000


def most_tokens(request: Request, bytes_per_token: int) -> int:
    """Tokens of a prompt, estimated from above; no tokenizer makes more than one of a byte."""
    size = sum(len(message.content.encode()) for message in request.messages)
    if request.schema is not None:
        size += len(to_json(request.schema))
    return -(-size // bytes_per_token) + PER_MESSAGE * (len(request.messages) + 1)
