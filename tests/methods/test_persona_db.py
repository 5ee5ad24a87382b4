"""Personas in layers, and the guards on entries of similar users."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

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

from personabench import Request, UsageError, User
from personabench.errors import BackendError
from personabench.methods.persona_db import PersonaDb
from personabench.testing.trials import trial


def author(request: Request) -> str:
    """The user whose records a request shows."""
    match = re.search(r"Headline: (\w+)", request.messages[1].content)
    return match[1] if match else "nobody"


def personal(request: Request) -> str:
    """A model that gives every user a card of their own and ten habits."""
    if stage(request) == "distil":
        name = author(request)
        patterns = [f"{name} habit {number}" for number in range(10)]
        return json.dumps(
            {
                "topics": [f"topic of {name}"],
                "traits": [],
                "patterns": patterns,
                "stances": [],
            }
        )
    return reply(request)


def collaborative(request: Request) -> list[str]:
    return re.findall(
        r"^- (.*)$", request.messages[0].content.partition("other people")[2], re.MULTILINE
    )


async def test_a_persona_is_made_once(tmp_path: Path) -> None:
    users = crowd(items=4, peers=2)
    setup = ScriptedTask(tmp_path, users, answer=reply)
    method = await prepared(setup, PersonaDb())
    await setup.ask(method, question(users))
    _, _, requests = await setup.ask(method, question(users, "Another, of a quarry"))
    assert stages(requests) == {"answer": 1}
    changed = msgspec.structs.replace(users[0].history[0], response="ann reworded")
    _, _, requests = await setup.ask(
        method, question([User("ann", (changed, *users[0].history[1:]))])
    )
    assert stages(requests) == {
        "distil": 1,
        "induce": 1,
        "answer": 1,
    }


def test_a_run_makes_two_calls_per_user_and_one_per_question() -> None:
    result = trial(
        PersonaDb(),
        task="lamp4",
        limit=6,
        answer=reply,
    )
    assert stages(result.requests)["answer"] == len(result.predictions)
    assert result.summary.usage["prepare"].calls == 2 * 24
    # The personas of the questions' users are among those of the population.
    assert result.summary.usage["profile"].calls == 0 < result.summary.usage["profile"].repeated


async def test_collaborative_entries_are_counted_in_total(tmp_path: Path) -> None:
    method = PersonaDb(PersonaDb.Params(item_topk_collab=10))
    _, ctx, requests = await ask_once(
        tmp_path,
        crowd(items=4, peers=6),
        method,
        answer=personal,
    )
    entries = collaborative(requests[-1])
    assert len(entries) == ctx.flags["neighbour_entries"] == 10
    assert len({entry.split()[0] for entry in entries} - {"Less"}) <= 3


async def test_only_entries_of_the_nearest_users_are_used(tmp_path: Path) -> None:
    corners = {
        "ann": (1, 0),
        "b": (9, 1),
        "c": (0, 9),
        "d": (9, 2),
        "e": (-5, 1),
    }

    def placed(request: Request) -> str:
        if stage(request) == "distil":
            name = author(request)
            x, y = corners[name]
            return json.dumps(
                {
                    "topics": [f"@({x},{y})"],
                    "traits": [],
                    "patterns": [f"{name} does so"],
                    "stances": [],
                }
            )
        return '{"views": []}' if stage(request) == "induce" else reply(request)

    users = [tales(3, name) for name in corners]
    method = PersonaDb(PersonaDb.Params(neighbor_topk=2))
    _, _, requests = await ask_once(
        tmp_path,
        users,
        method,
        answer=placed,
    )
    assert sorted(collaborative(requests[-1])) == ["b does so", "d does so"]


async def test_no_user_is_their_own_neighbour(tmp_path: Path) -> None:
    # The nearest persona to the user's is the user's own.
    users = crowd(items=4, peers=1)
    twin = User("twin", (*users[0].history[:2], *(tales(4, "twin").history[2:])))
    setup = ScriptedTask(
        tmp_path,
        [*users, twin],
        answer=personal,
        nameless=True,
    )
    method = await prepared(setup, PersonaDb(PersonaDb.Params(item_topk_collab=99)))
    _, _, requests = await setup.ask(method, question(users))
    assert {entry.split()[0] for entry in collaborative(requests[-1])} <= {"peer0", "Less"}
    single_setup = ScriptedTask(
        tmp_path / "alone",
        users[:1],
        answer=personal,
    )
    _, ctx, requests = await single_setup.ask(
        await prepared(single_setup, PersonaDb()), question(users)
    )
    assert ctx.flags["neighbour_entries"] == 0
    assert "other people" not in text(requests)


@pytest.mark.parametrize(
    ("broken", "flag"), [("distil", "distil_failed"), ("induce", "induce_failed")]
)
async def test_malformed_json_is_retried_once_then_counted(
    tmp_path: Path, broken: str, flag: str
) -> None:
    users = crowd(items=3, peers=1)
    setup = ScriptedTask(
        tmp_path,
        users,
        answer=lambda request: "No {json" if stage(request) == broken else reply(request),
    )
    method = await prepared(setup, PersonaDb())
    output, ctx, requests = await setup.ask(method, question(users))
    assert output.endswith("A headline")
    assert ctx.flags[flag] == 1
    assert ctx.flags[flag.replace("failed", "retried")] == 1
    assert stages(setup.backend.requests)[broken] == 4
    assert ("Topics: ports" in requests[-1].messages[0].content) is (broken == "induce")


async def test_a_retry_with_json_is_used(tmp_path: Path) -> None:
    def second(request: Request) -> str:
        hasty = (
            stage(request) == "distil" and "JSON object alone" not in request.messages[1].content
        )
        return "Well," if hasty else f"Here:\n```json\n{reply(request)}\n```"

    _, ctx, requests = await ask_once(
        tmp_path,
        crowd(items=3, peers=1),
        PersonaDb(),
        answer=second,
    )
    assert ctx.flags["distil_retried"] == 1
    assert "distil_failed" not in ctx.flags
    assert "Topics: ports\nTraits: dry" in requests[-1].messages[0].content


@pytest.mark.parametrize("familiar", ["stimulus", "item"])
async def test_users_who_answered_the_question_are_left_out(tmp_path: Path, familiar: str) -> None:
    # Their entries may state their answer.
    users = crowd(items=4, peers=1)
    about = "The Tale of item2, and the glacier?" if familiar == "stimulus" else "Something else"
    peer = (
        [User("bob", tuple(_unlisted(r) for r in users[1].history))]
        if familiar == "stimulus"
        else users[1:]
    )
    sample = question(
        users,
        about,
        item=None if familiar == "stimulus" else "i2",
    )
    _, ctx, _ = await ask_once(tmp_path, [users[0], *peer], PersonaDb(), sample)
    assert ctx.flags["neighbour_entries"] == 0
    _, ctx, _ = await ask_once(
        tmp_path / "other", [users[0], *peer], PersonaDb(), question(users, "Of another thing")
    )
    assert ctx.flags["neighbour_entries"] > 0


def _unlisted(record: Any) -> Any:
    topic = "glacier" if record.id.endswith("-2") else "pond"
    return msgspec.structs.replace(
        record,
        item=None,
        stimulus=f"the tale of {record.item.replace('i', 'item')} and the {topic}",
    )


async def test_neighbours_records_too_similar_to_the_question_are_left_out(tmp_path: Path) -> None:
    users = [
        tales(3),
        User(
            "bob",
            (msgspec.structs.replace(tales(1, "bob").history[0], stimulus="moon tides at noon"),),
        ),
    ]
    for dup_max, expected in ((0.9, False), (1.1, True)):
        method = PersonaDb(PersonaDb.Params(neighbor_records=True, dup_max=dup_max))
        _, _, requests = await ask_once(
            tmp_path / str(dup_max), users, method, question(users, "moon at noon tides")
        )
        assert ("bob wrote" in text(requests)) is expected


async def test_own_records_and_entries_share_one_ranking(tmp_path: Path) -> None:
    users = crowd(items=4, peers=1)

    def distinct(request: Request) -> str:
        if stage(request) == "distil":
            patterns = ["new tale of the tramway and the orchard", "unrelated"]
            return json.dumps(
                {
                    "topics": ["ports"],
                    "traits": [],
                    "patterns": patterns,
                    "stances": [],
                }
            )
        return reply(request)

    method = PersonaDb(PersonaDb.Params(item_topk=3, item_topk_collab=0))
    _, _, requests = await ask_once(
        tmp_path,
        users,
        method,
        answer=distinct,
    )
    notes, retrieved = (
        requests[-1].messages[0].content,
        re.findall(r"<ann-\d>", requests[-1].messages[1].content),
    )
    own_entries = re.findall(r"^- (.*)$", notes, re.MULTILINE)
    assert "new tale of the tramway and the orchard" in own_entries
    assert len(own_entries) + len(retrieved) == 3


async def test_a_persona_is_made_of_the_newest_records(tmp_path: Path) -> None:
    _, _, requests = await ask_once(
        tmp_path, [tales(30), tales(2, "bob")], PersonaDb(PersonaDb.Params(history_cap=4))
    )
    assert len(requests) == 1
    setup = ScriptedTask(
        tmp_path / "one",
        [tales(30)],
        answer=reply,
    )
    await prepared(setup, PersonaDb(PersonaDb.Params(history_cap=4)))
    assert re.findall(r"item(\d+)", setup.backend.requests[0].messages[1].content) == [
        "26",
        "27",
        "28",
        "29",
    ]


def test_the_paper_preset() -> None:
    paper = PersonaDb(PersonaDb.Params(preset="paper", item_topk=5))
    assert paper.item_topk == 5
    assert paper.item_topk_collab == 10
    assert PersonaDb().item_topk == 8
    assert PersonaDb().item_topk_collab == 4
    with pytest.raises(UsageError, match="papr"):
        PersonaDb(PersonaDb.Params(preset="papr"))


async def test_a_user_whose_persona_is_refused_is_left_out(tmp_path: Path) -> None:
    # A content filter stops single users of large populations, and the run must go on.
    users = crowd(items=4, peers=3)

    def refusing(request: Request) -> str:
        if stage(request) == "distil" and author(request) == users[2].id:
            raise BackendError("content filter")
        return personal(request)

    setup = ScriptedTask(tmp_path, users, answer=refusing)
    method = PersonaDb()
    ctx = setup.context()
    await method.prepare(setup.population, ctx)
    assert ctx.flags["persona_failed"] == 1
    assert {neighbour.user_id for neighbour in method.neighbours} == {user.id for user in users} - {
        users[2].id
    }
