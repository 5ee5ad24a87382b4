"""Parts of RPM: online rounds, small windows, other models' states, parsing of replies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rpm_fixtures import WORDS, ScriptedTask, pairs, question, reply, rpm, stage, stages

from personabench import Record, Request, Sample, UsageError, User
from personabench.methods.rpm.knowledge import Feature, Item, Knowledge, dimension_shares
from personabench.methods.rpm.replies import find_json, find_marked_answer, to_whole_number
from personabench.testing.trials import trial
from personabench.types import to_json


async def test_more_factors_than_allowed_are_merged_in_one_call(tmp_path: Path) -> None:
    history = [Record(f"r{index}", f"Tale #t{index}", "A headline") for index in range(6)]

    def answer(request: Request) -> str:
        if stage(request) != "merge":
            return reply(request)
        return json.dumps(
            {
                "factors": [
                    {
                        "factor": "One",
                        "description": "d",
                        "ids": [1, 2, 3, 3],
                    }
                ]
            }
        )

    setup = ScriptedTask(tmp_path, answer=answer)
    state, ctx = await setup.study(rpm(max_factors=4, use_examples=False), question(history))
    assert stages(setup.backend.requests)["merge"] == 1
    assert [factor["name"] for factor in state["factors"]] == ["One", "Ft3", "Ft4", "Ft5"]
    assert ctx.flags == {"n_factors": 4}


def test_lamp7_has_neutral_paraphrases_for_queries() -> None:
    result = trial(
        rpm(),
        task="lamp7",
        limit=1,
        answer=reply,
    )
    assert result.predictions[0].flags["adapted"] == 1
    extracted = [
        request.messages[1].content for request in result.requests if stage(request) == "X1"
    ]
    assert set(extracted) == {"Topic: a plain remark #plain"}
    assert stages(result.requests)["X0"] == stages(result.requests)["X4"] > 3


async def test_states_of_another_model_can_be_used(tmp_path: Path) -> None:
    # The paper builds states with a large model and answers with a small one.
    sample = question(pairs("a", "b"))
    state, _ = await ScriptedTask(tmp_path / "one").study(rpm(), sample)
    path = tmp_path / "profiles.jsonl"
    path.write_text(json.dumps({"user_id": "ann", "state": state}) + "\n")
    second_setup = ScriptedTask(tmp_path / "two")
    _, _, requests = await second_setup.ask(rpm(state_from=str(path)), sample)
    assert stages(requests) == {"X5": 1, "X6": 1}
    _, lacking = await second_setup.study(rpm(state_from=str(path)), question(pairs("a", "b", "c")))
    assert lacking.flags["state_not_stored"] == 1
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(path.read_bytes())
    again = rpm(state_from=str(moved)).params
    assert again == rpm(state_from=str(path)).params
    assert again.state_from.startswith("sha256:")
    moved.write_text(path.read_text() + json.dumps({"user_id": "bob", "state": None}) + "\n")
    assert rpm(state_from=str(path)).params != rpm(state_from=str(moved)).params, (
        "another content, another run"
    )
    with pytest.raises(UsageError, match="state_from"):
        await second_setup.ask(rpm(state_from=str(tmp_path / "none.jsonl")), sample)


async def test_online_rounds_refresh_the_state_periodically(tmp_path: Path) -> None:
    setup = ScriptedTask(tmp_path)
    method = rpm(refresh_rounds=3)
    ctx = setup.context()
    state = await method.profile(User("ann", ()), ctx)
    studied = []
    for turn in range(4):
        sample = Sample(
            f"q{turn}",
            "ann",
            f"Tale {turn} #war",
            stimulus=f"Tale {turn} #war",
        )
        before = len(setup.backend.requests)
        await method.predict(sample, state, ctx)
        system = setup.backend.requests[-1].messages[0].content
        assert (system == WORDS.instruction) == (turn == 0)
        assert "draft" not in system
        feedback = {"draft": f"draft {turn}", "edited": f"final {turn}", "cost": 1.0}
        state = msgspec.json.decode(to_json(await method.update(state, feedback, ctx)))
        studied.append(stages(setup.backend.requests[before:])["X2"])
    assert studied == [1, 0, 1, 0]
    assert [item["answer"] for item in state["items"]] == ["final 0", "final 1", "final 2"]
    assert len(state["rounds"]) == 4


async def test_a_small_window_drops_examples_before_numbers(tmp_path: Path) -> None:
    history = [
        Record(f"r{index}", f"Tale {index} #war " + "and so on " * 60, f"answer {index}")
        for index in range(5)
    ]
    setup = ScriptedTask(tmp_path, window=900)
    output, flags, requests = await setup.ask(rpm(), question(history))
    notes = requests[-1].messages[0].content
    assert output == "The answer"
    assert 0 < flags["examples_dropped"] <= 3
    assert notes.count("Earlier case") == 3 - flags["examples_dropped"]
    assert "Fwar: in 5 of 5" in notes


async def test_in_a_small_window_the_reply_is_shortened_before_the_notes(
    tmp_path: Path,
) -> None:
    # Long rationales are optional, the evidence is the method.
    prompts_seen = []
    for words in range(0, 440, 20):
        setup = ScriptedTask(tmp_path / str(words), window=800)
        sample = question(pairs("aa", "bb", "cc"), f"A new tale of #war #love {'and ' * words}")
        _, flags, requests = await setup.ask(rpm(), sample)
        last, ctx = requests[-1], setup.context()
        assert stage(last) == "X6"
        assert ctx.count_excess_tokens(last.messages, last.max_tokens) <= 0
        notes = last.messages[0].content
        assert ("Features of the story" in notes) == ("statistics_dropped" not in flags)
        assert notes.count("Earlier case") == 3 - flags.get("examples_dropped", 0)
        prompts_seen.append(
            (
                "statistics_dropped" not in flags,
                notes.count("Earlier case"),
                last.max_tokens,
            )
        )
    assert prompts_seen[0][:2] == (True, 3)
    assert prompts_seen[-1][:2] == (False, 0)
    assert prompts_seen[-1][2] >= ctx.answer_tokens
    assert (
        min(
            allowed
            for has_statistics, cases, allowed in prompts_seen
            if has_statistics and cases == 3
        )
        < 200
    )
    assert any(has_statistics and not cases for has_statistics, cases, _ in prompts_seen)


def test_dimension_shares_count_items() -> None:
    rows = [
        (["brief", "formal", "brief"], 0),
        (["brief"], 0),
        ([], 1),
    ]
    items = [
        Item(
            str(index),
            "q",
            "a",
            dimensions=dimensions,
            features=[Feature("f", "", f)],
        )
        for index, (dimensions, f) in enumerate(rows)
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
def test_answers_are_parsed_tolerantly(reply_text: str, expected: tuple[str, str] | None) -> None:
    assert find_marked_answer(reply_text) == expected


def test_the_first_balanced_value_is_parsed() -> None:
    assert find_json('{oh {"a": [1]} {"b": 2}') == {"a": [1]}
    assert find_json('see [1, 2]: [{"a": 1}]') == [{"a": 1}]
    assert find_json('{"a": [') is None


def test_odd_json_values_are_parsed_or_skipped() -> None:
    assert find_json('{"a": "one\ntwo\tthree"}') == {"a": "one\ntwo\tthree"}
    assert find_json('{"a": "\\ud83d", "\\ud83d\\ude00": ["\\ude00"]}') == {
        "a": "\ufffd",
        "\U0001f600": ["\ufffd"],
    }
    assert find_json(f'{{"a": {"9" * 5000}}}') is None
    assert find_json(f'{{"a": {"9" * 5000}}} {{"b": 1}}') == {"b": 1}


@pytest.mark.parametrize(
    ("field", "number"),
    [
        (3, 3),
        (3.0, 3),
        ("3.", 3),
        ("#3", 3),
        ("-3", -3),
        (3.5, None),
        ("3 or 4", None),
        (True, None),
        (None, None),
    ],
)
def test_numbers_are_parsed_tolerantly(field: Any, number: int | None) -> None:
    assert to_whole_number(field) == number


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"k": 0}, "k must"),
        ({"history_cap": 0}, "history_cap"),
        ({"propensity_alpha": -1.0}, "propensity_alpha"),
    ],
)
def test_parameters_that_cannot_work_are_refused(params: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        rpm(**params)
