"""Comparative pairs: the records they consist of, and the two sections of the analysis."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from baseline_fixtures import (
    ScriptedTask,
    ask_once,
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
def test_both_sections_are_required(analysis: str, expected: bool) -> None:
    assert is_complete(analysis) is expected


async def test_a_missing_section_is_retried_once_then_flagged(
    tmp_path: Path,
) -> None:
    users = crowd()
    half = lambda request: "Writing style: terse." if stage(request) == "analysis" else "A headline"  # noqa: E731
    _, ctx, requests = await ask_once(
        tmp_path / "never",
        users,
        ComPSum(),
        answer=half,
    )
    assert stages(requests) == {"analysis": 2, "answer": 1}
    assert ctx.flags["analysis_retried"] == 1
    assert ctx.flags["analysis_incomplete"] == 1
    assert "Writing style: terse." in requests[-1].messages[0].content
    replies = iter(["Nothing", "Writing style: dry.\nContent focus: ports.", "A headline"])
    _, ctx, requests = await ask_once(
        tmp_path / "second",
        users,
        ComPSum(),
        answer=lambda request: next(replies),
    )
    assert ctx.flags["analysis_retried"] == 1
    assert "analysis_incomplete" not in ctx.flags
    assert "Content focus: ports." in requests[-1].messages[0].content


async def test_pairs_respect_the_guards(tmp_path: Path) -> None:
    users = crowd(items=8, peers=2)
    records = users[0].history
    twin = User("twin", (*records[:4], *(tales(8, "TWIN").history[4:])))
    copier = User(
        "copier",
        tuple(
            msgspec.structs.replace(
                r,
                id=f"copy-{r.id}",
                response=r.response,
            )
            for r in records[4:]
        ),
    )
    setup = ScriptedTask(
        tmp_path,
        [*users, twin],
        answer=reply,
        nameless=True,
    )
    method = await prepared(setup, ComPSum(ComPSum.Params(n_pairs=8)))
    _, ctx, requests = await setup.ask(
        method,
        question(
            users,
            "Of something else",
            item="i3",
        ),
    )
    peer_texts = re.findall(
        r"Somebody else:\n(.*?)(?:\n\nPair|$)", requests[0].messages[1].content, re.DOTALL
    )
    assert len(peer_texts) == ctx.flags["pairs"] == 8
    assert all("peer" in peer_part and "item3" not in peer_part for peer_part in peer_texts)
    assert "TWIN" not in text(requests)
    apart = ScriptedTask(
        tmp_path / "copies",
        [*users[:1], copier],
        answer=reply,
    )
    _, ctx, requests = await apart.ask(
        await prepared(apart, ComPSum(ComPSum.Params(n_pairs=8, population_max_users=0))),
        question(users),
    )
    for pair in requests[0].messages[1].content.split("Pair ")[1:]:
        user_part, peer_part = pair.split("Somebody else:\n")
        assert re.findall(r"item\d+", user_part) != re.findall(r"item\d+", peer_part)


async def test_the_most_similar_of_several_peers_is_compared(tmp_path: Path) -> None:
    users = [
        User(person, (Record(f"{person}-0", f"A walk along the {topic}", f"{person} says"),))
        for person, topic in (
            ("ann", "harbour wall"),
            ("bob", "zoo"),
            ("cem", "harbour wall at dusk"),
            ("dee", "zoo"),
        )
    ]
    _, ctx, requests = await ask_once(tmp_path, users, ComPSum())
    assert ctx.flags["pairs"] == 1
    assert (
        "Somebody else:\nStory: A walk along the harbour wall at dusk"
        in requests[0].messages[1].content
    )
    assert "bob" not in text(requests)


async def test_at_most_n_pairs_of_the_best_records(tmp_path: Path) -> None:
    users = crowd(items=12)
    _, ctx, requests = await ask_once(
        tmp_path, users, ComPSum(), question(users, "item9 item5 item2 item7 item1")
    )
    user_texts = re.findall(
        r"This columnist:\nStory: The tale of item(\d+)", requests[0].messages[1].content
    )
    assert len(user_texts) == ctx.flags["pairs"] == 4
    assert set(user_texts) < {"9", "5", "2", "7", "1"}


async def test_a_user_without_peers_is_a_counted_fallback(tmp_path: Path) -> None:
    # The share of fallbacks shows how much of a score is that of `summary`.
    users = [tales(5)]
    _, ctx, requests = await ask_once(tmp_path, users, ComPSum())
    assert ctx.flags["fallback"] == 1
    assert stages(requests) == {"summary": 1, "answer": 1}


async def test_a_draw_decides_among_partners_on_the_same_item(tmp_path: Path) -> None:
    users = crowd(items=12, peers=6)
    method = ComPSum(ComPSum.Params(k=12, n_pairs=12))
    _, _, requests = await ask_once(tmp_path, users, method)
    partners = re.findall(r"Somebody else:\n.*?(peer\d)", requests[0].messages[1].content, re.S)
    assert len(partners) == 12
    # The smallest id would be everybody's partner if the alphabet decided.
    assert len(set(partners)) >= 3
