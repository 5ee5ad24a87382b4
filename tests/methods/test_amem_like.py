"""amem_like: notes, links that stay, and neighbours that are found by their changed text."""

from __future__ import annotations

from typing import Any

from memory_fixtures import Script, batch, create_context, feed

from personabench.methods.amem_like import AMemLike, document

MARKS = {"analyse": "Index entry:", "evolve": "Neighbours by id:"}
NOTHING = {"evolve": False, "links": [], "tags": [], "updates": []}


def scripted(**replies: Any) -> Script:
    script = Script(**replies)
    script.marks = MARKS
    return script


def analysis(word: str) -> dict[str, Any]:
    return {"keywords": [word], "context": f"About {word}.", "tags": ["life"]}


async def test_links_survive_insertions_and_missing_ones_are_counted() -> None:
    """Acceptance 9: links are numbers of notes, not positions in a list."""
    script = scripted(
        analyse=[analysis("cats"), analysis("boats"), analysis("trees"), analysis("maps")],
        evolve=[
            {"evolve": True, "links": [0, 9], "tags": ["pets"], "updates": []},
            NOTHING,
            NOTHING,
        ],
    )
    memory = AMemLike(AMemLike.Params(retriever="bm25"))
    ctx = create_context(memory, script)
    parts = [batch(day, f"Text {day}.") for day in range(4)]
    state = await feed(memory, ctx, *parts[:2])
    assert state["notes"]["2"]["links"] == ["1"]
    assert state["notes"]["2"]["tags"] == ["pets"]
    assert ctx.flags == {"memory_unknown_id": 1}

    state = await feed(memory, create_context(memory, script), *parts)
    assert len(script.requests) == 3 + 7
    script = scripted(
        analyse=[analysis("cats"), analysis("boats"), analysis("trees"), analysis("maps")],
        evolve=[{"evolve": True, "links": [0, 9], "tags": ["pets"], "updates": []}, NOTHING],
    )
    state = await feed(memory, create_context(memory, script), *parts)
    assert [note["links"] for note in state["notes"].values()] == [[], ["1"], [], []]
    assert memory.size(state) == {"items": 4, "links": 1}


async def test_an_updated_neighbour_is_found_by_its_new_text() -> None:
    """Acceptance 9: the vector is that of the changed text."""
    update = {"id": 0, "context": "Bo studies astronomy.", "tags": ["stars"]}
    script = scripted(
        analyse=[analysis("school"), analysis("telescopes")],
        evolve=[{"evolve": True, "links": [], "tags": [], "updates": [update]}],
    )
    memory = AMemLike(AMemLike.Params(k=1))
    ctx = create_context(memory, script)
    state = await feed(memory, ctx, batch(0, "I began."), batch(1, "It was dark."))
    assert document(state["notes"]["1"]).endswith("Bo studies astronomy.\nschool\nstars")
    (item,) = await memory.retrieve(state, "Does Bo study astronomy and stars?", ctx, "")
    assert item.record_ids == ["D0:0"]
    assert item.text == (
        "[1 May 2023, 10:00] Ann: I began.\n"
        "Context: Bo studies astronomy.\nKeywords: school\nTags: stars"
    )


async def test_linked_notes_follow_the_nearest() -> None:
    script = scripted(
        analyse=[analysis("cats"), analysis("boats")],
        evolve=[{"evolve": True, "links": [0], "tags": [], "updates": []}],
    )
    memory = AMemLike(AMemLike.Params(k=1, retriever="bm25"))
    ctx = create_context(memory, script)
    state = await feed(memory, ctx, batch(0, "A cat."), batch(1, "A boat."))
    items = await memory.retrieve(state, "boats", ctx, "")
    assert [(item.part, item.key) for item in items] == [("notes", "2"), ("linked", "1")]


async def test_bad_json_leaves_a_note_without_annotations_or_evolution() -> None:
    script = scripted(analyse=["?"], evolve=["?"])
    memory = AMemLike(AMemLike.Params(retriever="bm25"))
    ctx = create_context(memory, script)
    state = await feed(memory, ctx, batch(0, "A cat."), batch(1, "A boat."))
    assert [note["text"] for note in state["notes"].values()] == ["Ann: A cat.", "Ann: A boat."]
    assert ctx.flags == {"memory_bad_json": 6, "analyse_failed": 2, "evolve_failed": 1}
