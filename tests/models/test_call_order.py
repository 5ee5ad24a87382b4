"""Receipts stand in the order of the program, whichever call is answered first."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from engine_fixtures import make_engine

from personabench.api.registry import load_class
from personabench.models.backends.scripted import Scripted, echo
from personabench.models.call_order import Ordered, next_place, number_tasks
from personabench.types import Request, Response


async def run_branches(seed: int) -> list[str]:
    """Calls of nested concurrent tasks, each of which takes a random time."""
    number_tasks()
    delays = random.Random(seed)
    calls = Ordered[str]()

    async def call(name: str) -> None:
        place = next_place()
        await asyncio.sleep(delays.random() / 500)
        calls.add(place, name)

    async def chain(name: str) -> None:
        await call(f"{name}1")
        await asyncio.gather(*(call(f"{name}2{letter}") for letter in "xy"))
        await call(f"{name}3")

    await call("first")
    # A branch that makes no call of its own before its branches do.
    await asyncio.gather(*(asyncio.gather(chain(name), chain(name.upper())) for name in "abc"))
    await call("last")
    return calls.items


def test_the_order_is_that_of_the_program() -> None:
    parts = [f"{name}{step}" for name in "aAbBcC" for step in ("1", "2x", "2y", "3")]
    for seed in range(5):
        assert asyncio.run(run_branches(seed)) == ["first", *parts, "last"]


def test_an_item_is_removed_by_its_place() -> None:
    items = Ordered[str]()
    for place, name in (((2,), "b"), ((1, 5), "a"), ((2, 1), "c")):
        items.add(place, name)
    items.remove((2,))
    assert items.items == ["a", "c"]


class Shuffling(Scripted):
    """Scripted answers that come back in another order for another seed."""

    def __init__(self, seed: int) -> None:
        super().__init__(answer=echo)
        self.delays = random.Random(seed)

    async def complete(self, request: Request, group: str) -> Response:
        await asyncio.sleep(self.delays.random() / 200)
        return await super().complete(request, group)


@pytest.mark.parametrize(
    "name",
    [
        "cicl",
        *(pytest.param(name, marks=pytest.mark.variants) for name in ("cipher", "dpl", "drp")),
    ],
)
def test_receipts_of_a_method_do_not_depend_on_the_order_of_replies(
    tmp_path: Path, name: str
) -> None:
    receipts = []
    for seed in range(3):
        method = load_class("method", name)()
        setup = make_engine(
            tmp_path / str(seed), method, backend=Shuffling(seed), limit=3, policy="off"
        )
        asyncio.run(setup.run())
        profiles = setup.folder.profiles()
        lines = [
            ([call.key for call in line.calls], line.shown)
            for line in setup.predictions().values()
            if line.error is None
        ]
        lines += [
            ([call.key for call in profiles[key].calls], profiles[key].shown) for key in profiles
        ]
        assert any(len(calls) > 2 for calls, _ in lines)
        receipts.append(sorted(lines))
        setup.close()
    assert receipts[0] == receipts[1] == receipts[2]
