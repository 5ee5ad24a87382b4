"""memoryos_like: the queue, segments and their heat, the profile, and what a question gets."""

from __future__ import annotations

from typing import Any

import pytest
from memory_fixtures import Script, batch, create_context, feed

from personabench.methods.memoryos_like import MemoryOSLike, compare_keywords, compute_heat

MARKS = {
    "link": "Page before:",
    "topic": "Topic:",
    "profile": "Profile so far:",
    "keywords": "Question:",
}


def scripted(**replies: Any) -> Script:
    default: dict[str, Any] = {
        "link": [{"continues": True, "chain": "About sails."}],
        "topic": [{"summary": "Ann sails.", "keywords": ["Sail", "Ann"]}],
        "profile": [{"profile": "Ann is a sailor.", "user_facts": ["Ann sails."]}],
        "keywords": [{"keywords": ["sail"]}],
    }
    script = Script(**{**default, **replies})
    script.marks = MARKS
    return script


def create(**params: Any) -> MemoryOSLike:
    return MemoryOSLike(MemoryOSLike.Params(retriever="bm25", **params))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (["a", "b"], ["b", "c", "d", "e"], 0.5 * (1 / 2 + 1 / 4)),
        (["a"], ["a"], 1.0),
        ([], ["a"], 0.0),
        (["a"], [], 0.0),
    ],
)
def test_shared_keywords(first: list[str], second: list[str], expected: float) -> None:
    """Acceptance 8: the second part of F."""
    assert compare_keywords(first, second) == expected


def test_the_golden_heat_and_its_recency() -> None:
    """Acceptance 8: N = 2, L = 3, R = 1."""
    segment = {"visits": 2, "length": 3, "time": "2023-05-01T10:00"}
    assert compute_heat(segment, "2023-05-01T10:00") == pytest.approx(4.0001)
    # A day is the scale of recency.
    later = compute_heat(segment, "2023-05-02T10:00")
    assert later == pytest.approx(4 + 0.0001 * 0.36788, abs=1e-8)


async def test_the_eighth_exchange_pushes_the_first_out() -> None:
    """Acceptance 8: nothing is called before."""
    script = scripted()
    memory = create()
    ctx = create_context(memory, script)
    parts = [batch(day, f"Text {day}.") for day in range(8)]
    state = await feed(memory, ctx, *parts[:7])
    assert (len(state["queue"]), state["segments"], script.requests) == (7, {}, [])
    state = await feed(memory, ctx, *parts)
    assert [page["ids"] for page in state["queue"]] == [[f"D{day}:0"] for day in range(1, 8)]
    (segment,) = state["segments"].values()
    assert [page["ids"] for page in segment["pages"]] == [["D0:0"]]
    assert segment["keywords"] == ["sail", "ann"]
    # The first page has none before it.
    assert len(script.requests) == 1


async def test_a_hot_segment_updates_the_profile_and_cools_down() -> None:
    """Acceptance 8: the reset. Seven pages without visits have a heat of 5.6."""
    script = scripted()
    memory = create(queue=0)
    ctx = create_context(memory, script)
    parts = [batch(day, f"Text {day}.") for day in range(7)]
    state = await feed(memory, ctx, *parts[:6])
    assert state["profile"]["text"] == ""
    state = await feed(memory, ctx, *parts)
    (segment,) = state["segments"].values()
    assert (segment["length"], segment["visits"], len(segment["pages"])) == (0, 0, 7)
    assert state["profile"] == {
        "text": "Ann is a sailor.",
        "ids": [f"D{day}:0" for day in range(7)],
    }
    assert [fact["text"] for fact in state["user_facts"]] == ["Ann sails."]
    assert segment["pages"][1]["chain"] == "About sails."


async def test_the_least_visited_of_three_segments_is_evicted() -> None:
    """Acceptance 8: capacity 2; a page that founds a segment makes no other one grow."""
    topics = [{"summary": f"Matter {name}", "keywords": [name]} for name in ("one", "two", "three")]
    script = scripted(topic=topics)
    memory = create(queue=0, capacity=2, join=9.0)
    ctx = create_context(memory, script)
    parts = [batch(day, f"Text {day}.") for day in range(3)]
    state = await feed(memory, ctx, *parts[:2])
    assert [segment["length"] for segment in state["segments"].values()] == [1, 1]
    state["segments"]["1"]["visits"] = 1
    state = await memory.ingest(state, parts[2], ctx)
    assert list(state["segments"]) == ["1", "3"]
    assert ctx.flags["memory_evicted"] == 1


async def test_a_question_gets_queue_pages_profile_and_facts() -> None:
    script = scripted()
    memory = create(queue=1, k=3, threshold=0.0)
    ctx = create_context(memory, script)
    state = await feed(memory, ctx, *(batch(day, f"We sail {day} miles.") for day in range(8)))
    items = await memory.retrieve(state, "Who will sail 3 miles?", ctx, "2023-06-01")
    parts = [item.part for item in items]
    assert parts[0] == "queue"
    assert parts[1:] == ["pages", "pages", "pages", "profile", "user_facts"]
    page = items[1]
    assert page.text == "[4 May 2023, 10:00] (About sails.) Ann: We sail 3 miles."
    assert (page.record_ids, page.key) == (["D3:0"], "1")
    assert memory.size(state) == {"items": 9, "segments": 1, "facts": 1}


async def test_bad_json_keeps_pages_and_counts() -> None:
    script = scripted(link=["?"], topic=["?"], keywords=["?"])
    memory = create(queue=0, threshold=0.0)
    ctx = create_context(memory, script)
    state = await feed(memory, ctx, batch(0, "A cat."), batch(1, "A boat."))
    texts = [page["text"] for s in state["segments"].values() for page in s["pages"]]
    assert texts == ["Ann: A cat.", "Ann: A boat."]
    assert ctx.flags == {"memory_bad_json": 6, "link_failed": 1, "topic_failed": 2}
    assert await memory.retrieve(state, "boat", ctx, "")
    assert ctx.flags["keywords_failed"] == 1


async def test_recalled_segments_are_visited_where_rounds_have_an_order() -> None:
    memory = create(queue=0, strengthen="on")
    state = await feed(memory, create_context(memory, scripted()), batch(0, "A cat."))
    state = memory.reinforce(state, ["1", "1"], "2023-06-01")
    assert (state["segments"]["1"]["visits"], state["segments"]["1"]["time"]) == (1, "2023-06-01")
