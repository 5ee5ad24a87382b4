"""Model prices and the spending limit of one command (`--max-cost`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec

from personabench.errors import BudgetExceeded, UsageError
from personabench.models.tokens import estimate_max_tokens
from personabench.types import Request, Usage

Prices = Mapping[str, Mapping[str, float]]


class Budget:
    """The cost of one command, over all its runs and models.

    Args:
        prices: `{"MODEL": {"input": .., "output": ..}}`, money per million tokens.
        limit: the most that may be spent, or None.

    Attributes:
        spent: the cost so far.
        assumed: calls booked at their highest possible cost, because the server's token count was
            missing or not credible.
    """

    def __init__(self, prices: Prices, limit: float | None = None) -> None:
        self.prices = prices
        self.limit = limit
        self.spent = 0.0
        self.assumed = 0
        self._reserved = 0.0
        self._in_flight = 0
        self._settled = asyncio.Event()

    def price(self, model: str) -> Mapping[str, float] | None:
        """Return the price of a model, or None if it has no price and there is no limit.

        Raises:
            UsageError: there is a limit, but no price for this model.
        """
        price = self.prices.get(model)
        if price is None and self.limit is not None:
            models = ", ".join(sorted(self.prices)[:8]) or "none"
            raise UsageError(
                f"--max-cost needs a price for {model}; the --prices file has prices for: {models}"
            )
        return price

    async def reserve(self, price: Mapping[str, float], request: Request) -> float:
        """Reserve and return the highest possible cost of a call.

        If it does not fit now, wait for calls in flight to cost less than reserved.

        Raises:
            BudgetExceeded: nothing is in flight and the call might still exceed the limit.
        """
        if self.limit is None:
            return 0.0

        # The highest cost is reserved, not the expected one, so that calls in flight cannot exceed
        # the limit together.
        input_tokens = estimate_max_tokens(request, 1)
        max_cost = _cost(price, input_tokens, request.max_tokens)

        while self.spent + self._reserved + max_cost > self.limit:
            if not self._in_flight:
                raise BudgetExceeded(self._describe_excess(self.limit, max_cost))
            await self._settled.wait()

        self._reserved += max_cost
        self._in_flight += 1
        return max_cost

    def settle(self, reserved: float, price: Mapping[str, float], usage: Usage | None) -> None:
        """Book a finished call: the price of its `usage`, or nothing if there was no reply."""
        if usage is not None:
            self.spent += _cost(price, usage.input_tokens, usage.output_tokens)
        if self.limit is None:
            return

        self._in_flight -= 1
        self._reserved -= reserved
        # Rounding errors of many additions must not keep a part of the limit reserved forever.
        if not self._in_flight:
            self._reserved = 0.0

        # Wake all who wait now, and let later ones wait for the next call.
        self._settled.set()
        self._settled.clear()

    def _describe_excess(self, limit: float, max_cost: float) -> str:
        assumed = ""
        if self.assumed:
            assumed = (
                f" (including {self.assumed} calls without a credible token count, "
                "booked at their highest possible cost)"
            )
        return (
            f"--max-cost {limit:g}: stopped with {self.spent:.6g} spent{assumed}, "
            f"because the next call could cost up to {max_cost:.6g}. "
            "Repeat the command to spend as much again, or raise --max-cost"
        )


def _cost(price: Mapping[str, float], input_tokens: int, output_tokens: int) -> float:
    input_cost = input_tokens * price["input"]
    output_cost = output_tokens * price["output"]
    return (input_cost + output_cost) / 1_000_000


def read_prices(path: Path) -> dict[str, dict[str, float]]:
    """Read a price file: `{"MODEL": {"input": .., "output": ..}}`, per million tokens.

    Raises:
        UsageError: the file cannot be read, or has another form.
    """
    try:
        prices = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, float]])
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        raise UsageError(f"{path} is not a price file: {error}") from error

    for model, price in prices.items():
        if not {"input", "output"} <= price.keys():
            raise UsageError(
                f"{path}: {model} needs both 'input' and 'output', in money per million tokens"
            )
        if min(price.values()) < 0:
            raise UsageError(f"{path}: {model} has a negative price")
    return prices
