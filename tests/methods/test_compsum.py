"""Comparative pairs: whose records they are, and an analysis with both of its sections."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from baseline_fixtures import (
    World,
    asked,
    crowd,
    prepared,
    question,
    reply,
    stage,
    stages,
    tales,
    text,
)

from personabench import Record, User
from personabench.methods.compsum import ComPSum, is_complete


@pytest.mark.parametrize(
    ("analysis", "expected"),
    [
        ("Writing style: terse.\nContent focus: places.", True),
        ("**Writing style:** terse.\n\n## Content focus\nplaces.", True),
        ("1. writing style: terse\n2. content focus: places", True),
        ("Writing style: terse.", False),
        ("Writing style: terse.\nContent focus:", False),
        ("The writing style is terse and the content focus is places.", False),
        ("", False),
    ],
)
def test_acceptance_b10_both_sections_must_be_there(analysis: str, expected: bool) -> None:
    assert is_complete(analysis) is expected


async def test_acceptance_b10_a_missing_section_is_asked_again_once_then_flagged(
    tmp_path: Path,
) -> None:
    users = crowd()
    half = lambda request: "Writing style: terse." if stage(request) == "analysis" else "A headline"  # noqa: E731
    _, ctx, requests = await asked(tmp_path / "never", users, ComPSum(), answer=half)
    assert stages(requests) == {"analysis": 2, "answer": 1}
    assert (ctx.flags["analysis_retried"], ctx.flags["analysis_incomplete"]) == (1, 1)
    assert "Writing style: terse." in requests[-1].messages[0].content
    replies = iter(["Nothing", "Writing style: dry.\nContent focus: ports.", "A headline"])
    _, ctx, requests = await asked(
        tmp_path / "second", users, ComPSum(), answer=lambda request: next(replies)
    )
    assert ctx.flags["analysis_retried"] == 1
    assert "analysis_incomplete" not in ctx.flags
    assert "Content focus: ports." in requests[-1].messages[0].content


async def test_acceptance_b10_pairs_keep_to_the_guards(tmp_path: Path) -> None:
    users = crowd(items=8, others=2)
    own = users[0].history
    twin = User("twin", (*own[:4], *(tales(8, "TWIN").history[4:])))
    copier = User(
        "copier",
        tuple(msgspec.structs.replace(r, id=f"copy-{r.id}", response=r.response) for r in own[4:]),
    )
    world = World(tmp_path, [*users, twin], answer=reply, nameless=True)
    method = await prepared(world, ComPSum(ComPSum.Params(n_pairs=8)))
    _, ctx, requests = await world.ask(method, question(users, "Of something else", item="i3"))
    others = re.findall(
        r"Somebody else:\n(.*?)(?:\n\nPair|$)", requests[0].messages[1].content, re.DOTALL
    )
    assert len(others) == ctx.flags["pairs"] == 8
    assert all("peer" in other and "item3" not in other for other in others)
    assert "TWIN" not in text(requests)
    apart = World(tmp_path / "copies", [*users[:1], copier], answer=reply)
    _, ctx, requests = await apart.ask(
        await prepared(apart, ComPSum(ComPSum.Params(n_pairs=8, population_max_users=0))),
        question(users),
    )
    for pair in requests[0].messages[1].content.split("Pair ")[1:]:
        mine, other = pair.split("Somebody else:\n")
        assert re.findall(r"item\d+", mine) != re.findall(r"item\d+", other)


async def test_the_nearest_of_several_others_is_compared(tmp_path: Path) -> None:
    users = [
        User(person, (Record(f"{person}-0", f"A walk along the {topic}", f"{person} says"),))
        for person, topic in (
            ("ann", "harbour wall"),
            ("bob", "zoo"),
            ("cem", "harbour wall at dusk"),
            ("dee", "zoo"),
        )
    ]
    _, ctx, requests = await asked(tmp_path, users, ComPSum())
    assert ctx.flags["pairs"] == 1
    assert (
        "Somebody else:\nStory: A walk along the harbour wall at dusk"
        in requests[0].messages[1].content
    )
    assert "bob" not in text(requests)


async def test_at_most_n_pairs_of_the_best_records(tmp_path: Path) -> None:
    users = crowd(items=12)
    _, ctx, requests = await asked(
        tmp_path, users, ComPSum(), question(users, "item9 item5 item2 item7 item1")
    )
    own = re.findall(
        r"This columnist:\nStory: The tale of item(\d+)", requests[0].messages[1].content
    )
    assert len(own) == ctx.flags["pairs"] == 4
    assert set(own) < {"9", "5", "2", "7", "1"}


async def test_nobody_to_compare_with_is_a_counted_fallback(tmp_path: Path) -> None:
    users = [tales(5)]
    _, ctx, requests = await asked(tmp_path, users, ComPSum())
    assert ctx.flags["fallback"] == 1
    assert stages(requests) == {"summary": 1, "answer": 1}
