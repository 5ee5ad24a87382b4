"""RPM beyond its acceptance list: online rounds, small windows, other models' states, reading of replies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rpm_world import WORDS, World, pairs, question, reply, rpm, stage, stages

from personabench import Record, Request, Sample, UsageError, User
from personabench.methods.rpm.knowledge import Feature, Item, Knowledge, dimension_shares
from personabench.methods.rpm.replies import first_json, marked_answer
from personabench.testing import trial
from personabench.types import to_json


async def test_more_factors_than_allowed_are_merged_in_one_call(tmp_path: Path) -> None:
    history = [Record(f"r{at}", f"Tale #t{at}", "A headline") for at in range(6)]

    def answer(request: Request) -> str:
        if stage(request) != "merge":
            return reply(request)
        return json.dumps({"factors": [{"factor": "One", "description": "d", "ids": [1, 2, 3, 3]}]})

    world = World(tmp_path, answer=answer)
    state, ctx = await world.study(rpm(max_factors=4, use_examples=False), question(history))
    assert stages(world.backend.requests)["merge"] == 1
    assert [factor["name"] for factor in state["factors"]] == ["One", "Ft3", "Ft4", "Ft5"]
    assert ctx.flags == {"n_factors": 4}


def test_lamp7_has_neutral_paraphrases_for_queries() -> None:
    result = trial(rpm(), task="lamp7", limit=1, answer=reply)
    assert result.predictions[0].flags["adapted"] == 1
    extracted = [request.messages[1].content for request in result.requests if stage(request) == "X1"]
    assert set(extracted) == {"Topic: a plain remark #plain"}
    assert stages(result.requests)["X0"] == stages(result.requests)["X4"] > 3


async def test_states_of_another_model_are_used(tmp_path: Path) -> None:
    sample = question(pairs("a", "b"))
    state, _ = await World(tmp_path / "one").study(rpm(), sample)
    path = tmp_path / "profiles.jsonl"
    path.write_text(json.dumps({"user_id": "ann", "state": state}) + "\n")
    other = World(tmp_path / "two")
    _, _, requests = await other.ask(rpm(state_from=str(path)), sample)
    assert stages(requests) == {"X5": 1, "X6": 1}
    _, lacking = await other.study(rpm(state_from=str(path)), question(pairs("a", "b", "c")))
    assert lacking.flags["state_not_stored"] == 1
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(path.read_bytes())
    again = rpm(state_from=str(moved)).params
    assert again == rpm(state_from=str(path)).params and again.state_from.startswith("sha256:")
    moved.write_text(path.read_text() + json.dumps({"user_id": "bob", "state": None}) + "\n")
    assert rpm(state_from=str(path)).params != rpm(state_from=str(moved)).params, "another content, another run"
    with pytest.raises(UsageError, match="state_from"):
        await other.ask(rpm(state_from=str(tmp_path / "none.jsonl")), sample)


async def test_online_rounds_refresh_now_and_then(tmp_path: Path) -> None:
    world = World(tmp_path)
    method = rpm(refresh_rounds=3)
    ctx = world.context()
    state = await method.profile(User("ann", ()), ctx)
    studied = []
    for turn in range(4):
        sample = Sample(f"q{turn}", "ann", f"Tale {turn} #war", stimulus=f"Tale {turn} #war")
        before = len(world.backend.requests)
        await method.predict(sample, state, ctx)
        shown = world.backend.requests[-1].messages[0].content
        assert (shown == WORDS.instruction) == (turn == 0)
        assert "draft" not in shown
        feedback = {"draft": f"draft {turn}", "edited": f"final {turn}", "cost": 1.0}
        state = msgspec.json.decode(to_json(await method.update(state, feedback, ctx)))
        studied.append(stages(world.backend.requests[before:])["X2"])
    assert studied == [1, 0, 1, 0]
    assert [item["answer"] for item in state["items"]] == ["final 0", "final 1", "final 2"]
    assert len(state["rounds"]) == 4


async def test_a_small_window_drops_examples_before_numbers(tmp_path: Path) -> None:
    history = [Record(f"r{at}", f"Tale {at} #war " + "and so on " * 60, f"answer {at}") for at in range(5)]
    world = World(tmp_path, window=1300)
    output, flags, requests = await world.ask(rpm(), question(history))
    notes = requests[-1].messages[0].content
    assert output == "The answer"
    assert 0 < flags["examples_dropped"] <= 3
    assert notes.count("Earlier case") == 3 - flags["examples_dropped"]
    assert "Fwar: in 5 of 5" in notes


def test_dimension_shares_count_items() -> None:
    rows = [(["brief", "formal", "brief"], 0), (["brief"], 0), ([], 1)]
    items = [
        Item(str(at), "q", "a", dimensions=names, features=[Feature("f", "", f)]) for at, (names, f) in enumerate(rows)
    ]
    assert dimension_shares(Knowledge(items=items), 0) == {"brief": 1.0, "formal": 0.5}


@pytest.mark.parametrize(
    ("reply_text", "expected"),
    [
        ('Sure:\n```json\n{"reasoning": "r", "answer": "x\\ny"}\n```', ("r", "x\ny")),
        ("First this.\n**Answer:** x", ("First this.", "x")),
        ('{"reasoning": "r", "answer": 4}', ("r", "4")),
        ("x", None),
        ('{"reasoning": "r"}', None),
    ],
)
def test_answers_are_read_tolerantly(reply_text: str, expected: tuple[str, str] | None) -> None:
    assert marked_answer(reply_text) == expected


def test_the_first_balanced_value_is_read() -> None:
    assert first_json('{oh {"a": [1]} {"b": 2}') == {"a": [1]}
    assert first_json('see [1, 2]: [{"a": 1}]') == [{"a": 1}]
    assert first_json('{"a": [') is None


@pytest.mark.parametrize(
    ("given", "named"),
    [({"k": 0}, "k must"), ({"history_cap": 0}, "history_cap"), ({"propensity_alpha": -1.0}, "propensity_alpha")],
)
def test_parameters_that_cannot_work_are_refused(given: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        rpm(**given)
