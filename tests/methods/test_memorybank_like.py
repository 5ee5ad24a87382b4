"""memorybank_like: days, the portrait of all of them, and the forgetting curve."""

from __future__ import annotations

from typing import Any

import pytest
from memory_fixtures import Script, batch, create_context, feed
from toy_methods import Daily

from personabench.methods.memorybank_like import MemoryBankLike, retain
from personabench.testing import trial

MARKS = {
    "day_summary": "Summary of the day:",
    "day_portrait": "Portrait of the day:",
    "summary": "Summary of everything:",
    "portrait": "Portrait of the people:",
}


def scripted() -> Script:
    script = Script(
        day_summary=["They met.", "They sailed."],
        day_portrait=["Ann is calm.", "Bo is bold."],
        summary=["They met, then sailed."],
        portrait=["Ann is calm, Bo bold."],
    )
    script.marks = MARKS
    return script


@pytest.mark.parametrize(
    ("strength", "paper", "released"), [(5, 0.1353, 0.0000454), (1, 0.0000454, 0.1353)]
)
def test_the_golden_table_of_retention(strength: int, paper: float, released: float) -> None:
    """Acceptance 8: ten days; by the released code stronger pieces fade faster."""
    assert retain(10, strength, "paper") == pytest.approx(paper, abs=5e-5)
    assert retain(10, strength, "released") == pytest.approx(released, abs=5e-5)


async def two_days(**params: Any) -> tuple[MemoryBankLike, Any, Any, Script]:
    script = scripted()
    memory = MemoryBankLike(MemoryBankLike.Params(retriever="bm25", **params))
    ctx = create_context(memory, script)
    state = await feed(memory, ctx, batch(0, "Hello.", "Hi Ann."), batch(1, "Ahoy.", "Wind!"))
    return memory, ctx, await memory.finish(state, ctx), script


async def test_days_pieces_and_the_whole() -> None:
    memory, ctx, state, script = await two_days()
    # Two calls for each day, two when the history has ended.
    assert len(script.requests) == 6
    assert state["summary"] == "They met, then sailed."
    assert state["days"]["1"] == {
        "summary": "They met.",
        "portrait": "Ann is calm.",
        "time": "2023-05-01T10:00",
        "ids": ["D0:0", "D0:1"],
    }
    assert [piece["text"] for piece in state["pieces"].values()] == [
        "Ann: Hello.\nBo: Hi Ann.",
        "They met.",
        "Ann: Ahoy.\nBo: Wind!",
        "They sailed.",
    ]
    items = await memory.retrieve(state, "sailed?", ctx, "2023-05-03")
    assert [item.part for item in items[:3]] == ["portrait", "summary", "days"]
    assert items[0].text == "Portrait: Ann is calm, Bo bold."
    assert items[2].text == "[2 May 2023, 10:00] They sailed."
    assert items[2].record_ids == ["D1:0", "D1:1"]
    assert len(items) == 6


async def test_forgetting_hides_the_same_pieces_each_time() -> None:
    memory, ctx, state, _ = await two_days(forgetting="on")
    late = [await memory.retrieve(state, "They?", ctx, "2024-05-01") for _ in range(2)]
    assert late[0] == late[1]
    assert [item.part for item in late[0]] == ["portrait", "summary"]
    soon = await memory.retrieve(state, "They?", ctx, "2023-05-02T10:00")
    assert len(soon) > 2
    assert ctx.flags["memory_forgotten"] >= 8


async def test_recalled_pieces_grow_stronger_where_rounds_have_an_order() -> None:
    memory, _, state, _ = await two_days(strengthen="on")
    assert memory.requirements() >= {"feedback"}
    state = memory.reinforce(state, ["2"], "2023-06-01")
    piece = state["pieces"]["2"]
    assert (piece["strength"], piece["recalled"]) == (2, "2023-06-01")
    assert state["pieces"]["1"]["strength"] == 1


def test_rounds_are_ingested_and_reinforced() -> None:
    memory = MemoryBankLike(MemoryBankLike.Params(retriever="bm25", strengthen="on"))
    result = trial(memory, Daily(), roles={"simulator": lambda request: "longer"})
    assert {line.error for line in result.predictions} == {None}
