"""mem0_like: extraction, decisions, additions and the score of the additive mode."""

from __future__ import annotations

import math
from typing import Any

import pytest
from memory_fixtures import Script, batch, create_context, feed, last_text

from personabench.methods.mem0_like import Mem0Like
from personabench.methods.mem0_scoring import (
    boost_entity,
    combine,
    find_entities,
    score_keywords,
)

MARKS = {"extract": "Facts in the new", "decide": "New facts:", "add": "Facts to add"}


def scripted(**replies: Any) -> Script:
    script = Script(**replies)
    script.marks = MARKS
    return script


async def test_v1_adds_updates_deletes_and_leaves() -> None:
    """Acceptance 1: states computed by hand."""
    script = scripted(
        extract=[
            {"facts": ["Ann has a cat.", "Ann lives in Rome."]},
            {
                "facts": [
                    "Ann's cat is called Tom.",
                    "Ann left Rome.",
                    "Bo sails.",
                    "Ann has a cat.",
                ]
            },
        ],
        decide=[
            {
                "events": [
                    {"event": "UPDATE", "id": 0, "text": "Ann has a cat called Tom."},
                    {"event": "DELETE", "id": 1, "text": ""},
                    {"event": "ADD", "id": 0, "text": "Bo sails."},
                    {"event": "NONE", "id": 0, "text": ""},
                    {"event": "UPDATE", "id": 7, "text": "Bo has a boat."},
                ]
            }
        ],
    )
    memory = Mem0Like(Mem0Like.Params(retriever="bm25"))
    ctx = create_context(memory, script)
    state = await feed(memory, ctx, batch(0, "I got a cat in Rome."), batch(1, "Tom!", "I sail."))
    # The first batch has nothing to be compared with.
    assert len(script.requests) == 3
    assert state["items"] == {
        "1": {
            "text": "Ann has a cat called Tom.",
            "time": "2023-05-02T10:00",
            "ids": ["D0:0", "D1:0", "D1:1"],
        },
        "3": {"text": "Bo sails.", "time": "2023-05-02T10:00", "ids": ["D1:0", "D1:1"]},
        "4": {"text": "Bo has a boat.", "time": "2023-05-02T10:00", "ids": ["D1:0", "D1:1"]},
    }
    assert ctx.flags == {"memory_unknown_id": 1}
    assert "Earlier messages:\nAnn: I got a cat in Rome." in str(
        script.requests[1].messages[1].content
    )
    assert "2 May 2023, 10:00" in script.requests[1].messages[1].content

    items = await memory.retrieve(state, "cat?", ctx, "2023-06-01")
    assert items[0].text == "[2 May 2023, 10:00] Ann has a cat called Tom."
    assert items[0].record_ids == ["D0:0", "D1:0", "D1:1"]


async def test_bad_json_is_requested_once_more_and_counted() -> None:
    script = scripted(extract=["no json", {"facts": ["Ann has a cat."]}, "{", "{"], decide=["?"])
    memory = Mem0Like(Mem0Like.Params(retriever="bm25"))
    ctx = create_context(memory, script)
    state = await feed(memory, ctx, batch(0, "A cat."), batch(1, "Nothing."))
    assert [item["text"] for item in state["items"].values()] == ["Ann has a cat."]
    assert "Reply with the JSON object alone." in last_text(script.requests)
    assert ctx.flags == {"memory_bad_json": 3, "extract_failed": 1}


async def test_facts_of_an_unreadable_decision_are_added() -> None:
    script = scripted(
        extract=[{"facts": ["Ann has a cat."]}, {"facts": ["Ann has a dog."]}], decide=["?"]
    )
    memory = Mem0Like(Mem0Like.Params(retriever="bm25"))
    ctx = create_context(memory, script)
    state = await feed(memory, ctx, batch(0, "A cat."), batch(1, "A dog."))
    assert [item["text"] for item in state["items"].values()] == [
        "Ann has a cat.",
        "Ann has a dog.",
    ]
    assert ctx.flags == {"memory_bad_json": 2, "decide_failed": 1}


async def test_additive_drops_duplicates_and_edits_nothing() -> None:
    """Acceptance 1: one call, and an exact duplicate is dropped."""
    script = scripted(
        add=[
            {
                "additions": [
                    {"text": "Ann has a cat.", "about": "user", "related": []},
                    {"text": "The vet is Dr. Low.", "about": "assistant", "related": [0]},
                ]
            },
            {
                "additions": [
                    {"text": "ann has a  CAT", "about": "user", "related": []},
                    {"text": "Ann moved to Rome.", "about": "user", "related": [1]},
                ]
            },
        ]
    )
    memory = Mem0Like(Mem0Like.Params(mode="additive", retriever="bm25"))
    ctx = create_context(memory, script)
    state = await feed(memory, ctx, batch(0, "A cat."), batch(1, "Rome."))
    assert len(script.requests) == 2
    texts = {number: item["text"] for number, item in state["items"].items()}
    assert texts == {"1": "Ann has a cat.", "2": "The vet is Dr. Low.", "3": "Ann moved to Rome."}
    assert state["items"]["2"]["about"] == "assistant"
    assert state["items"]["3"]["related"] == ["2"]
    assert ctx.flags == {"memory_duplicate": 1, "memory_unknown_id": 1}
    items = await memory.retrieve(state, "Who is the vet?", ctx, "")
    assert items[0].text.endswith("The vet is Dr. Low.")


def test_the_golden_score() -> None:
    keywords = score_keywords(8, 5)
    assert round(keywords, 4) == 0.6457
    score = combine(0.6, keywords, 0, has_keywords=True, has_entities=False)
    assert round(score, 4) == 0.6228


@pytest.mark.parametrize(
    ("lemmas", "middle", "slope"),
    [(1, 5, 0.7), (3, 5, 0.7), (4, 7, 0.6), (9, 9, 0.5), (15, 10, 0.5), (16, 12, 0.5)],
)
def test_the_scale_of_keywords_depends_on_the_query(lemmas: int, middle: int, slope: float) -> None:
    assert score_keywords(middle, lemmas) == 0.5
    assert math.isclose(score_keywords(middle + 1, lemmas), 1 / (1 + math.exp(-slope)))


def test_entities_are_names_and_count_less_if_many_items_hold_them() -> None:
    assert find_entities("When did Ann Lee and Bo see The Louvre in Paris?") == [
        "Ann Lee",
        "Bo",
        "Louvre",
        "Paris",
    ]
    assert boost_entity(0.8, 1) == 0.4
    assert math.isclose(boost_entity(0.8, 11), 0.4 / 1.1)
    assert combine(0.9, 0.9, 0.9, has_keywords=True, has_entities=True) == 1.0
