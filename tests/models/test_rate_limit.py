"""The gate of an endpoint and the purse of a command, on a clock of their own."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable
from itertools import count

import pytest

from personabench.errors import BudgetExceeded, UsageError
from personabench.models.budget import Budget
from personabench.models.rate_limit import START, Limiter
from personabench.models.tokens import estimate_max_tokens
from personabench.types import Message, Request, Usage

ASKED = Request((Message("user", "a" * 284),), max_tokens=100)
PRICES = {"m": {"input": 1.0, "output": 10.0}}


class VirtualTime:
    """Time that passes only while every task sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), future))
        await future

    async def run(self, *work: Awaitable[object]) -> None:
        tasks = [asyncio.ensure_future(each) for each in work]
        while not all(task.done() for task in tasks):
            for _ in range(20):
                await asyncio.sleep(0)
            if not self._sleepers:
                break
            self.now, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
        for task in tasks:
            task.result()


def gate(time: VirtualTime, most: int = 8, **options: object) -> Limiter:
    return Limiter(most, clock=time.clock, sleep=time.sleep, **options)  # type: ignore[arg-type]


async def call(
    time: VirtualTime,
    limiter: Limiter,
    starts: list[float],
    seconds: float = 1.0,
    used: int | None = None,
) -> None:
    set_aside = await limiter.enter(ASKED)
    starts.append(time.now)
    await time.sleep(seconds)
    limiter.leave(set_aside, used)
    limiter.answered()


async def test_a_fixed_cap_is_kept_and_never_moves() -> None:
    time, starts = VirtualTime(), []
    limiter = gate(time, 3)
    await time.run(*(call(time, limiter, starts) for _ in range(7)))
    assert starts == [0, 0, 0, 1, 1, 1, 2]
    limiter.throttled(0.0, 60.0)
    assert limiter.width == 3
    starts.clear()
    await time.run(*(call(time, limiter, starts) for _ in range(3)))
    assert starts == [3, 3, 3]


async def test_an_adaptive_gate_doubles_until_refused_then_halves_and_grows_by_one_a_round() -> (
    None
):
    time = VirtualTime()
    limiter = gate(time, 256, adaptive=True)
    assert limiter.width == START
    for _ in range(START):
        limiter.answered()
    assert limiter.width == 2 * START
    time.now = 10.0
    limiter.throttled(9.0, None)
    assert limiter.width == START
    for _ in range(START + 1):
        limiter.answered()
    assert limiter.width == START + 1


async def test_one_burst_of_refusals_is_one_cut() -> None:
    time = VirtualTime()
    limiter = gate(time, 32, adaptive=True)
    time.now = 10.0
    for _ in range(20):
        limiter.throttled(9.0, None)
    assert limiter.width == 16
    time.now = 11.0
    limiter.throttled(10.5, None)
    assert limiter.width == 8
    for later in range(20, 30):
        time.now = later
        limiter.throttled(later - 0.5, None)
    assert limiter.width == 1


async def test_a_cut_gate_lets_no_more_through_than_its_width() -> None:
    time = VirtualTime()
    limiter = gate(time, 8, adaptive=True)
    flying = most = 0

    async def one() -> None:
        nonlocal flying, most
        set_aside = await limiter.enter(ASKED)
        flying += 1
        most = max(most, flying)
        await time.sleep(1.0)
        flying -= 1
        limiter.leave(set_aside, None)

    async def cut() -> None:
        nonlocal most
        await time.sleep(0.5)
        assert most == 8
        limiter.throttled(0.1, None)
        await time.sleep(1.0)
        most = flying

    await time.run(cut(), *(one() for _ in range(40)))
    assert most == 4 and limiter.width == 4


async def test_retry_after_holds_everybody_back() -> None:
    time, starts = VirtualTime(), []
    limiter = gate(time, 4, adaptive=True)
    await time.run(call(time, limiter, starts))
    limiter.throttled(0.5, 30.0)
    await time.run(*(call(time, limiter, starts) for _ in range(4)))
    assert starts == [0, 31, 31, 32, 32]


async def test_a_hold_that_comes_while_waiting_counts_too() -> None:
    time, starts = VirtualTime(), []
    limiter = gate(time, 4, adaptive=True, rpm=6)

    async def refuse() -> None:
        await time.sleep(5.0)
        limiter.throttled(4.0, 60.0)

    await time.run(refuse(), call(time, limiter, starts), call(time, limiter, starts))
    assert starts == [0, 65]


async def test_calls_per_minute_are_spaced_evenly() -> None:
    time, starts = VirtualTime(), []
    limiter = gate(time, 64, rpm=120)
    await time.run(*(call(time, limiter, starts, 0.01) for _ in range(130)))
    assert starts == pytest.approx([0.5 * at for at in range(130)])
    assert all(sum(start <= other < start + 60 for other in starts) <= 120 for start in starts)


async def test_an_idle_minute_is_not_saved_up() -> None:
    time, starts = VirtualTime(), []
    limiter = gate(time, 64, rpm=60)
    time.now = 600.0
    await time.run(*(call(time, limiter, starts) for _ in range(5)))
    assert starts == [600, 601, 602, 603, 604]


async def test_tokens_per_minute_are_set_aside_and_given_back() -> None:
    tokens = estimate_max_tokens(ASKED, 3) + ASKED.max_tokens
    assert tokens == 95 + 32 + 100
    time, starts = VirtualTime(), []
    limiter = gate(time, 1, tpm=2 * tokens)
    await time.run(*(call(time, limiter, starts) for _ in range(4)))
    assert starts == pytest.approx([0, 30, 60, 90])
    time, starts = VirtualTime(), []
    limiter = gate(time, 1, tpm=2 * tokens)
    await time.run(*(call(time, limiter, starts, used=tokens // 5) for _ in range(4)))
    assert starts == pytest.approx([0, 6, 12, 18], abs=0.2)


async def test_who_gives_up_waiting_keeps_no_place() -> None:
    time, starts = VirtualTime(), []
    limiter = gate(time, 1)
    queued, chosen, paced = (asyncio.create_task(limiter.enter(ASKED)) for _ in range(3))
    await asyncio.sleep(0)
    await queued
    chosen.cancel()
    limiter.leave(0, None)
    await paced
    again = asyncio.create_task(limiter.enter(ASKED))
    await asyncio.sleep(0)
    limiter.leave(0, None)
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)
    assert again.cancelled()

    limiter._seconds_per_call = 60.0  # noqa: SLF001  (from here on, calls wait for a minute)
    await limiter.enter(ASKED)
    limiter.leave(0, None)
    waiting = asyncio.create_task(limiter.enter(ASKED))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.wait_for(time.run(call(time, limiter, starts)), 5)
    assert len(starts) == 1


async def test_spending_never_passes_the_limit_however_many_are_in_flight() -> None:
    budget = Budget(PRICES, 0.01)
    price = budget.price("m")
    assert price is not None
    highest, stopped = 0.0, 0

    async def one() -> None:
        nonlocal highest, stopped
        try:
            reserved = await budget.reserve(price, ASKED)
        except BudgetExceeded as stop:
            stopped += 1
            assert "--max-cost 0.01: stopped with 0.009" in str(
                stop
            ) and "Repeat the command" in str(stop)
            return
        await asyncio.sleep(0)
        budget.settle(reserved, price, Usage(120, 60))
        highest = max(highest, budget.spent)

    await asyncio.gather(*(one() for _ in range(40)))
    each = (120 * 1 + 60 * 10) / 1e6
    assert budget.spent == pytest.approx(each * round(budget.spent / each)) and stopped > 0
    assert 0.01 - (300 + 1000) / 1e6 - each < highest <= 0.01


async def test_failed_calls_cost_nothing_and_make_room() -> None:
    budget = Budget(PRICES, 0.0014)
    price = budget.price("m")
    assert price is not None
    reserved = await budget.reserve(price, ASKED)
    waiting = asyncio.create_task(budget.reserve(price, ASKED))
    await asyncio.sleep(0)
    assert not waiting.done()
    budget.settle(reserved, price, None)
    assert await waiting == reserved and budget.spent == 0


async def test_without_a_limit_money_is_only_counted() -> None:
    budget = Budget(PRICES)
    assert budget.price("free") is None
    price = budget.price("m")
    assert price is not None
    for _ in range(3):
        budget.settle(await budget.reserve(price, ASKED), price, Usage(1_000_000, 100_000))
    assert budget.spent == pytest.approx(6.0)


async def test_a_limit_needs_a_price() -> None:
    with pytest.raises(UsageError, match=r"--max-cost needs a price for other.*: m"):
        Budget(PRICES, 1.0).price("other")


@pytest.mark.parametrize(("size", "bound"), [(1, 284 + 32), (3, 95 + 32)])
async def test_prompts_are_estimated_from_above(size: int, bound: int) -> None:
    assert estimate_max_tokens(ASKED, size) == bound
