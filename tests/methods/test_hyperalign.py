"""Hypotheses: the reading of replies, records put aside, and what the answer is given with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from baseline_fixtures import ScriptedTask, Stars, ask_once, labelled, question, tales, text

from personabench import Record, Request, User
from personabench.methods.hyperalign import HyPerAlign, read_hypotheses, read_verdicts

PLAIN = "This columnist is dry, and ends every line early."


def kind(request: Request) -> str:
    opening = request.messages[0].content
    if opening.startswith("You form hypotheses"):
        return "infer"
    return "validate" if opening.startswith("You check hypotheses") else "answer"


def kinds(requests: list[Request]) -> list[str]:
    return [kind(request) for request in requests]


def answering(inferred: str, verdicts: Any = None) -> Any:
    """A model with fixed hypotheses; `verdicts` maps the response of a record to a reply."""

    def answer(request: Request) -> str:
        if kind(request) == "infer":
            return inferred
        if kind(request) == "validate":
            record = request.messages[1].content.partition("Record:")[2]
            return next(reply for mark, reply in verdicts.items() if mark in record)
        return "A headline"

    return answer


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('["Is terse.", "Is dry."]', ["Is terse.", "Is dry."]),
        ('Here they are:\n```json\n["Is terse.",\n "Is dry."]\n```', ["Is terse.", "Is dry."]),
        ('{"hypotheses": ["Is terse."]}', ["Is terse."]),
        ("Hypotheses:\n- Is terse.\n- Is dry.", ["Is terse.", "Is dry."]),
        ("1. Is terse.\n2) Is dry.\n* Is warm.", ["Is terse.", "Is dry.", "Is warm."]),
        ("Is terse.\n\nIs dry.", ["Is terse.", "Is dry."]),
        # A list that reached the token limit.
        ('["Is terse.",\n"Is dry.",\n"Is wa', ["Is terse.", "Is dry."]),
        ('["Is terse.", "Is "dry".", "Is warm."', ["Is terse."]),
        ('{"hypotheses": ["Is terse.", "Is dr', ["Is terse."]),
        (PLAIN, None),
        ('```json\n{\n"headlines": [\n"title": "Headlines",\n', None),
        ('{"hypotheses": ["..."]}', []),
        ("", None),
    ],
)
def test_json_bullets_and_lines_parse(reply: str, expected: list[str] | None) -> None:
    assert read_hypotheses(reply) == expected


@pytest.mark.parametrize(
    "reply",
    ['["Is terse.", "IS  TERSE.", "Is dry."]', "- Is terse.\n- is terse.\n- Is dry."],
)
def test_duplicates_merge(reply: str) -> None:
    assert read_hypotheses(reply) == ["Is terse.", "Is dry."]


async def test_plain_text_is_one_flagged_hypothesis(tmp_path: Path) -> None:
    _, ctx, requests = await ask_once(tmp_path, [tales(4)], HyPerAlign(), answer=answering(PLAIN))
    assert kinds(requests) == ["infer", "answer"]
    assert ctx.flags["raw_hypothesis"] == 1
    assert f"- {PLAIN}" in requests[-1].messages[0].content


async def test_at_most_so_many_hypotheses_are_kept(tmp_path: Path) -> None:
    reply = json.dumps([f"Habit {number}." for number in range(30)])
    for count in (3, 10):
        method = HyPerAlign(HyPerAlign.Params(max_hypotheses=count))
        _, ctx, requests = await ask_once(
            tmp_path / str(count), [tales(4)], method, answer=answering(reply)
        )
        assert ctx.flags["hypotheses"] == count
        assert requests[-1].messages[0].content.count("- Habit") == count


async def test_validation_items_are_not_in_the_inference_prompt(tmp_path: Path) -> None:
    votes = {"supports": 1, "neutral": 0, "contradicts": -1}
    table = {
        "ann wrote 4": ["neutral", "supports", "contradicts", "supports"],
        "ann wrote 5": ["neutral", "supports", "supports", "neutral"],
    }
    verdicts = {
        mark: json.dumps(
            {"verdicts": [{"number": n, "verdict": word} for n, word in enumerate(words, 1)]}
        )
        for mark, words in table.items()
    }
    totals = [sum(votes[words[index]] for words in table.values()) for index in range(4)]
    assert totals == [0, 2, 0, 1]

    params = HyPerAlign.Params(select="validate", n_validation=2, n_selected=3)
    reply = json.dumps(["First.", "Second.", "Third.", "Fourth."])
    _, _, requests = await ask_once(
        tmp_path, [tales(6)], HyPerAlign(params), answer=answering(reply, verdicts)
    )
    # One batched call for each of the two items.
    assert kinds(requests) == ["infer", "validate", "validate", "answer"]
    inference = text(requests[:1])
    assert all(f"ann wrote {number}" in inference for number in range(4))
    assert "ann wrote 4" not in inference and "ann wrote 5" not in inference
    assert all("Fourth." in text([request]) for request in requests[1:3])
    # Of the two hypotheses at 0, the earlier is kept.
    notes = requests[-1].messages[0].content
    assert "- First.\n- Second.\n- Fourth." in notes and "Third." not in notes


async def test_unparsed_checks_are_excluded_and_counted(tmp_path: Path) -> None:
    supported = json.dumps({"verdicts": [{"number": 2, "verdict": "supports"}]})
    params = HyPerAlign.Params(select="validate", n_validation=2, n_selected=1)
    reply = json.dumps(["First.", "Second."])
    verdicts = {"ann wrote 4": "Hard to say.", "ann wrote 5": supported}
    _, ctx, requests = await ask_once(
        tmp_path, [tales(6)], HyPerAlign(params), answer=answering(reply, verdicts)
    )
    assert kinds(requests).count("validate") == 3
    assert ctx.flags["validate_retried"] == ctx.flags["validate_failed"] == 1
    assert ctx.flags["verdicts_missing"] == 1
    assert "- Second." in requests[-1].messages[0].content
    assert "First." not in requests[-1].messages[0].content


async def test_small_histories_are_answered_without_hypotheses_or_without_validation(
    tmp_path: Path,
) -> None:
    params = HyPerAlign.Params(select="validate", n_validation=4)
    reply = json.dumps(["First.", "Second."])
    sizes = {0: "empty_history", 1: "no_hypotheses", 5: "validation_skipped"}
    for size, flag in sizes.items():
        users = [tales(size)]
        _, ctx, requests = await ask_once(
            tmp_path / str(size), users, HyPerAlign(params), answer=answering(reply)
        )
        assert ctx.flags[flag] == 1
        assert kinds(requests) == (["answer"] if size < 2 else ["infer", "answer"])
        assert ("First." in text(requests)) is (size == 5)


async def test_labels_ask_for_decisions_and_show_the_inputs(tmp_path: Path) -> None:
    users = [labelled("ann", "35251")]
    setup = ScriptedTask(tmp_path, users, Stars(), answer=answering('["Is strict.", "Is brief."]'))
    _, _, requests = await setup.ask(HyPerAlign(), question(users))
    assert "decides" in requests[0].messages[0].content
    assert "The tale of item1" in requests[0].messages[1].content

    _, _, requests = await ask_once(
        tmp_path / "texts", [tales(3)], HyPerAlign(), answer=answering("[]")
    )
    assert "The tale of item1" not in requests[0].messages[1].content
    assert "ann wrote 1" in requests[0].messages[1].content


async def test_a_record_that_repeats_the_question_is_left_out(tmp_path: Path) -> None:
    about = "A new tale of the tramway"
    user = tales(3)
    users = [User("ann", (*user.history, Record("ann-9", about, "SECRET")))]
    setup = ScriptedTask(tmp_path, users, answer=answering('["Is terse.", "Is dry."]'))
    method = HyPerAlign()
    sample = question(users, about)
    assert [record.id for record in method.visible(sample)] == ["ann-0", "ann-1", "ann-2"]
    assert setup.task.kind == "text"


def test_verdicts_are_read_by_number() -> None:
    rows = [
        {"number": "2", "verdict": "Supports"},
        {"number": 2, "verdict": "contradicts"},
        {"number": 9, "verdict": "supports"},
        {"number": 1, "verdict": "maybe"},
    ]
    assert read_verdicts(json.dumps({"verdicts": rows}), 3) == {2: 1}
    assert read_verdicts(json.dumps({"verdicts": rows[2:]}), 3) is None
    assert read_verdicts("None of them.", 3) is None
