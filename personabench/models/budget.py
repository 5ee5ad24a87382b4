"""Prices of models and the spending cap of one command."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec

from personabench.errors import BudgetExceeded, UsageError
from personabench.models.tokens import max_tokens_of
from personabench.types import Request, Usage

Prices = Mapping[str, Mapping[str, float]]


class Budget:
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
            raise UsageError(
                f"--max-cost needs a price for {model}; the file of --prices has one for: {known}"
            )
        return price

    async def reserve(self, price: Mapping[str, float], request: Request) -> float:
        """Put aside the most that a call can cost and say how much; waits for calls in flight to cost less than that.

        Raises:
            SpendStop: nothing is in flight and the call might still pass the limit.
        """
        if self.limit is None:
            return 0.0
        most = _cost(price, max_tokens_of(request, 1), request.max_tokens)
        while self.spent + self._promised + most > self.limit:
            if not self._flying:
                assumed = (
                    f" ({self.assumed} calls without a credible token count are in it at the most they could cost)"
                    if self.assumed
                    else ""
                )
                raise BudgetExceeded(
                    f"--max-cost {self.limit:g}: stopped with {self.spent:.6g} spent{assumed}, since the next call "
                    f"could cost up to {most:.6g}. Repeat the command to spend as much again, "
                    "or give another --max-cost"
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


def read_prices(path: Path) -> dict[str, dict[str, float]]:
    """A price file: `{"MODEL": {"input": .., "output": ..}}`, per million tokens.

    Raises:
        UsageError: it cannot be read as such.
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
