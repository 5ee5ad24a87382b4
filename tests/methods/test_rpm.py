"""RPM's stages, statistics and guards, with a scripted model and toy records."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rpm_fixtures import (
    WORDS,
    Headlines,
    ScriptedTask,
    Stars,
    Tags,
    pairs,
    question,
    reply,
    rpm,
    stage,
    stages,
    text,
)

from personabench import Record, Request, Task, UsageError
from personabench.errors import BackendError
from personabench.methods.none import NoPersonalization
from personabench.methods.rpm.factors import Group, repair_groups
from personabench.methods.rpm.knowledge import Feature, Item, Knowledge, influence, propensity
from personabench.testing.trials import trial


def known(
    rows: Sequence[tuple[str, Sequence[Feature]]],
    factors: int,
    *,
    closed: bool,
) -> Knowledge:
    items = [
        Item(
            str(index),
            "q",
            answer,
            features=list(features),
        )
        for index, (answer, features) in enumerate(rows)
    ]
    labels = list(dict.fromkeys(answer for answer, _ in rows))
    return Knowledge(
        closed=closed,
        labels=labels,
        items=items,
        factors=[],
    )


def in_factor(*factors: int) -> list[Feature]:
    return [Feature("f", "c", factor) for factor in factors]


def test_propensity() -> None:
    knowledge = known(
        [
            ("comedy", in_factor(0, 1, 0)),
            ("comedy", in_factor(0)),
            ("action", in_factor(1)),
            ("action", in_factor(0, 2)),
        ],
        3,
        closed=True,
    )
    assert propensity(knowledge, 0) == (
        3,
        {"comedy": 2 / 3, "action": 1 / 3},
        None,
    )
    assert propensity(knowledge, 1) == (
        2,
        {"comedy": 0.5, "action": 0.5},
        None,
    )
    assert propensity(knowledge, 2) == (
        1,
        {"action": 1.0},
        None,
    )
    smoothed = propensity(
        knowledge,
        2,
        alpha=1.0,
    ).shares
    assert smoothed == {"action": 2 / 3, "comedy": 1 / 3}


def test_influence() -> None:
    knowledge = known(
        [
            (
                "a",
                [Feature("f1", "", 0, True, "positive"), Feature("f2", "", 1, False, "positive")],
            ),
            ("b", [Feature("f3", "", 0, True, "negative"), Feature("f4", "", 0, True, "positive")]),
            ("c", [Feature("f5", "", 1, True, "neutral")]),
            ("d", [Feature("f6", "", 0, False, "neutral")]),
        ],
        2,
        closed=False,
    )
    assert influence(knowledge, 0) == (
        3,
        2,
        (
            2 / 3,
            0,
            1 / 3,
        ),
    )
    assert influence(knowledge, 1) == (
        2,
        1,
        (0, 1, 0),
    )
    knowledge.items[2].features[0].influential = None
    assert influence(knowledge, 1) == (2, 0, None)


def test_cluster_repair() -> None:
    texts = {
        1: "sea",
        2: "ship",
        3: "war",
        4: "big ship",
        5: "war loss",
        6: "baking",
    }
    groups = [
        Group("A", "", (1, 2)),
        Group("B", "", (2, 3, 9)),
        Group("C", "", ()),
    ]
    done = repair_groups(groups, texts)
    assert {group.name: group.ids for group in done.groups} == {
        "A": (1, 2, 4),
        "B": (3, 5),
        "other": (6,),
    }
    assert done.duplicates == 1
    assert done.unassigned == 3
    tied = repair_groups(
        [Group("A", "sea", (1,)), Group("B", "sea", (2,))],
        {
            1: "x",
            2: "y",
            3: "sea",
        },
    )
    assert tied.groups[0].ids == (1, 3)


async def test_batches_see_the_factors_found_so_far(tmp_path: Path) -> None:
    history = [
        Record(
            f"r{index}",
            f"Tale {index} " + " ".join(f"#{'abc'[index // 14]}{index}x{n}" for n in range(8)),
            "A headline",
        )
        for index in range(40)
    ]

    def answer(request: Request) -> str:
        if stage(request) != "X2":
            return reply(request)
        numbers = [
            int(number)
            for number in re.findall(r"^(\d+)\. ", request.messages[-1].content, re.MULTILINE)
        ]
        return json.dumps(
            {
                "factors": [
                    {"factor": f"Batch from {numbers[0]}", "description": "d", "ids": numbers}
                ]
            }
        )

    setup = ScriptedTask(tmp_path, answer=answer)
    state, ctx = await setup.study(rpm(use_examples=False), question(history))
    batches = [
        request.messages[0].content for request in setup.backend.requests if stage(request) == "X2"
    ]
    assert len(batches) == 3
    assert "Batch from" not in batches[0]
    assert "Batch from 1:" in batches[1]
    assert all(f"Batch from {number}:" in batches[2] for number in (1, 151))
    assert [factor["name"] for factor in state["factors"]] == [
        "Batch from 1",
        "Batch from 151",
        "Batch from 301",
    ]
    assert ctx.flags == {"n_factors": 3}


@pytest.mark.parametrize(("task", "offline"), [(Tags(), 9), (Headlines(), 13)])
async def test_calls_per_stage(tmp_path: Path, task: Task, offline: int) -> None:
    # One call per item and stage is the cost that the method's page states.
    setup = ScriptedTask(tmp_path, task)
    four = pairs("a", "b", "c", "d")
    _, _, requests = await setup.ask(rpm(), question(four))
    counts = stages(requests)
    assert len(requests) == offline + 2
    assert counts["X5"] + counts["X6"] == 2
    assert (await setup.ask(rpm(), question(four)))[2] == []
    _, _, requests = await setup.ask(rpm(), question(four, "Another tale of #love"))
    assert stages(requests) == {"X5": 1, "X6": 1}
    fifth = Record("r4", "Tale 4 of #love", "e")
    counts = stages((await setup.ask(rpm(), question([*four, fifth])))[2])
    assert counts["X1"] == 1
    assert counts["X2"] == 1
    assert counts["X4"] == 5
    assert counts["X3"] == int(offline == 13)


async def test_a_rationale_with_unchanged_numbers_is_cached(
    tmp_path: Path,
) -> None:
    setup = ScriptedTask(tmp_path, Tags())
    history = [Record("r0", "Tale #war", "a"), Record("r1", "Tale #love", "b")]
    await setup.study(rpm(), question(history))
    before = len(setup.backend.requests)
    await setup.study(rpm(), question([*history, Record("r2", "More #love", "b")]))
    assert stages(setup.backend.requests[before:]) == {
        "X1": 1,
        "X2": 1,
        "X4": 2,
    }


async def test_unseen_factor(tmp_path: Path) -> None:
    setup = ScriptedTask(tmp_path)
    about = "A tale of #war and #gardening"
    output, flags, requests = await setup.ask(rpm(), question(pairs("a", "b"), about))
    assert output == "The answer"
    notes = requests[-1].messages[0].content
    assert "- gardening: about gardening (new to this user)" in notes
    assert "- war: about war (factor: Fwar)" in notes
    assert re.search(r"^- Fwar: in 2 of 2 records", notes, re.MULTILINE)
    assert "Fgardening" not in notes
    assert flags["n_unknown_factor"] == 1
    assert "no_known_factor" not in flags
    output, flags, _ = await setup.ask(rpm(), question(pairs("a", "b"), "A tale of #gardening"))
    assert output == "The answer"
    assert flags["no_known_factor"] == 1
    assert flags["n_unknown_factor"] == 1


async def test_examples_are_the_items_with_the_most_similar_features(tmp_path: Path) -> None:
    points = ["(1,0)", "(0,1)", "(1,0)", "(3,4)"]
    history = [
        Record(f"r{index}", f"Tale{index} #x@{point}", f"answer {index}")
        for index, point in enumerate(points)
    ]
    setup = ScriptedTask(tmp_path)
    _, _, requests = await setup.ask(rpm(), question(history, "New #x@(9,0)"))
    tales = re.findall(r"^Story: Tale(\d)", requests[-1].messages[0].content, re.MULTILINE)
    assert tales == ["2", "0", "3"]
    _, _, requests = await setup.ask(rpm(), question(history[:2], "New #x@(9,0)"))
    assert re.findall(r"^Story: Tale(\d)", requests[-1].messages[0].content, re.MULTILINE) == [
        "0",
        "1",
    ]


@pytest.mark.parametrize("all_history", [False, True])
async def test_the_question_and_its_reference_reach_no_prompt(
    tmp_path: Path, all_history: bool
) -> None:
    # Histories of some benchmarks contain the question itself.
    same = Record("r9", "  a NEW tale\nof #WAR ", "leaked answer")
    marked = pairs("answer one", "answer two")
    setup = ScriptedTask(tmp_path)
    _, flags, requests = await setup.ask(
        rpm(),
        question([*marked, same]),
        all_history=all_history,
    )
    assert "GOLD" not in text(requests)
    assert flags.get("state_remade", 0) == all_history
    later = (
        requests
        if not all_history
        else [request for request in requests if stage(request) in ("X5", "X6")]
    )
    assert "leaked answer" not in text(later)
    assert all("answer" not in text([request]) for request in requests if stage(request) == "X1")
    visible = rpm().visible(question([*marked, msgspec.structs.replace(marked[0], id="q")]))
    assert [record.id for record in visible] == ["r0", "r1"]


@pytest.mark.parametrize(
    ("broken", "expected", "output"),
    [
        (
            "X1",
            {"extract_failed": 2, "items_without_features": 2, "locate_failed": 0},
            "The answer",
        ),
        (
            "X2",
            {
                "cluster_failed": 1,
                "degraded": 1,
                "n_factors": 1,
            },
            "The answer",
        ),
        ("X3", {"influence_failed": 2}, "The answer"),
        ("X5", {"locate_failed": 1, "no_known_factor": 1}, "The answer"),
        ("X6", {"unmarked_answer": 1}, '{"answer": "cut'),
    ],
)
async def test_malformed_replies(
    tmp_path: Path,
    broken: str,
    expected: Mapping[str, float],
    output: str,
) -> None:
    setup = ScriptedTask(
        tmp_path, answer=lambda r: '{"answer": "cut' if stage(r) == broken else reply(r)
    )
    answer, flags, requests = await setup.ask(rpm(), question(pairs("a", "b")))
    assert answer == output
    assert {name: flags.get(name, 0) for name in expected} == expected
    once = 2 if broken in ("X1", "X3") else 1
    assert stages(requests)[broken] == 3 * once
    # A second model on the same cache: whatever could not be parsed must not have been stored.
    answer, flags, requests = await ScriptedTask(tmp_path).ask(rpm(), question(pairs("a", "b")))
    assert answer == "The answer", "an unparsed reply was cached"
    assert stages(requests)[broken] == once, "an unparsed reply was cached"
    assert not [name for name in expected if flags.get(name, 0) and name != "n_factors"]


async def test_an_empty_rationale_leaves_an_example_without(tmp_path: Path) -> None:
    setup = ScriptedTask(tmp_path, answer=lambda r: " " if stage(r) == "X4" else reply(r))
    _, flags, requests = await setup.ask(rpm(), question(pairs("a", "b")))
    assert flags["reason_failed"] == 2
    assert "Reasoning:" not in requests[-1].messages[0].content


LADDER: list[tuple[dict[str, Any], int]] = [
    ({"use_factors": False, "use_examples": False}, 1),
    ({"use_examples": False}, 4 + 1 + 2),
    ({"example_reasoning": "none"}, 4 + 1 + 2),
    ({"example_reasoning": "generic_cot"}, 4 + 1 + 4 + 2),
    ({}, 4 + 1 + 4 + 2),
    ({"use_factors": False, "example_reasoning": "none"}, 1),
    ({"use_factors": False, "example_reasoning": "generic_cot"}, 4 + 1),
]


@pytest.mark.parametrize(("flags", "calls"), LADDER)
@pytest.mark.parametrize("task", [Tags(), Headlines()])
async def test_rungs_of_the_ablation(
    tmp_path: Path,
    task: Task,
    flags: dict[str, Any],
    calls: int,
) -> None:
    # Each rung must differ from the one below it in a single part of the prompt.
    setup = ScriptedTask(tmp_path, task)
    sample = question(pairs("aa", "bb", "cc", "dd"))
    _, _, requests = await setup.ask(rpm(**flags), sample)
    judged = 4 if task.kind == "text" and flags.get("use_factors", True) else 0
    assert len(requests) == calls + judged
    notes = requests[-1].messages[0].content
    assert ("Earlier case 1" in notes) == flags.get("use_examples", True)
    assert ("F" in notes and "in 4" in notes) == flags.get("use_factors", True)
    reasoned = flags.get("use_examples", True) and flags.get("example_reasoning", "rpm") != "none"
    assert ("Reasoning: Because" in notes) == reasoned
    if calls == 1 and not flags["use_factors"] and not flags.get("use_examples", True):
        ctx = setup.context()
        await NoPersonalization().predict(sample, None, ctx)
        assert ctx.calls[0].cached


def test_rationales_need_factors() -> None:
    with pytest.raises(UsageError, match="example_reasoning"):
        rpm(use_factors=False)


def test_lamp1_uses_titles_and_abstracts() -> None:
    result = trial(
        rpm(),
        task="lamp1",
        limit=2,
        answer=reply,
    )
    assert all(line.flags["adapted"] == 1 for line in result.predictions)
    prompts = [request for request in result.requests if stage(request) != "X6"]
    assert not re.search(r"\[[12]\] \d+%", text(result.requests))
    assert all("[1]" not in text([request]) for request in prompts if stage(request) != "X5")
    assert stages(prompts)["X3"] > 0
    with pytest.raises(UsageError, match="no past answers of the kind"):
        trial(
            rpm(stats_mode="propensity"),
            task="lamp1",
            limit=1,
            answer=reply,
        )


async def test_scores_have_a_mean(tmp_path: Path) -> None:
    setup = ScriptedTask(tmp_path, Stars())
    _, _, requests = await setup.ask(
        rpm(),
        question(
            pairs(
                "5",
                "5",
                "1",
                tags="#war",
            )
        ),
    )
    assert "- Fwar: in 3 records; 5 67%, 1 33%; mean 3.67" in requests[-1].messages[0].content


def test_scores_of_the_example_reviews() -> None:
    result = trial(
        rpm(),
        task="lamp3",
        limit=1,
        answer=reply,
    )
    assert re.search(r"Ftopic: in \d+ records; [1-5] \d+%.* mean \d\.\d\d", text(result.requests))


def chat(*turns: tuple[str, str]) -> tuple[Record, ...]:
    return tuple(
        Record(
            f"m{index}",
            None,
            message,
            fields={"role": role},
        )
        for index, (role, message) in enumerate(turns)
    )


def long_chat(count: int) -> tuple[Record, ...]:
    turns = [("system", "A persona.")]
    for index in range(count):
        turns += [("user", f"Said {index}: I like #tea{index % 2}"), ("assistant", "Noted.")]
    return chat(*turns)


def chat_reply(request: Request) -> str:
    if stage(request) != "X0":
        return reply(request)
    matches = re.findall(
        r"^(\d+)\. user: (Said \d+): .*#(\S+)$", request.messages[1].content, re.MULTILINE
    )
    rows = [
        {"situation": f"#{tag}", "preference": message, "message": int(number)}
        for number, message, tag in matches[:2]
    ]
    return json.dumps({"items": rows})


async def test_personamem_preferences(tmp_path: Path) -> None:
    setup = ScriptedTask(
        tmp_path,
        Tags(),
        answer=chat_reply,
    )
    whole = long_chat(30)
    early = question(whole[:40], "Which drink, #tea0?")
    _, flags, requests = await setup.ask(rpm(), early)
    assert "Said 20" not in text(requests)
    assert stages(requests)["X0"] == 2
    assert stages(requests)["X3"] == 4
    notes = requests[-1].messages[0].content
    assert "newest (message 25): Said 12; earlier (message 1): Said 0" in notes
    assert "A persona." not in text(requests)
    assert "adapted" not in flags
    _, _, requests = await setup.ask(rpm(), question(whole, "Which drink, #tea0?"))
    assert stages(requests)["X0"] == 2
    assert (
        "newest (message 49): Said 24; earlier (message 25): Said 12"
        in requests[-1].messages[0].content
    )


def labelled(*cuts: int) -> list[Record]:
    return [
        Record(
            f"p{cut}",
            f"Question at {cut} #tea",
            "b",
            fields={"cut": str(cut), "option": f"option of {cut}"},
        )
        for cut in cuts
    ]


async def test_personamem_letters(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="label_history"):
        rpm(chat="letters")
    method = rpm(chat="letters", label_history=True)
    setup = ScriptedTask(tmp_path, Tags())
    history = [*long_chat(2), *labelled(10, 20, 30, 40, 50)]
    _, flags, requests = await setup.ask(
        method,
        question(
            history,
            "Now #tea?",
            attributes={"cut": "40"},
        ),
    )
    assert flags["label_history"] == 1
    assert stages(requests)["X1"] == 3
    assert not re.search("at 40|at 50|Said", text(requests))
    assert "in 3 records; b 100%" in requests[-1].messages[0].content
    assert "Headline: (b) option of 30" in requests[-1].messages[0].content
    _, flags, requests = await setup.ask(
        method,
        question(
            history,
            "Now #tea?",
            attributes={"cut": "30"},
        ),
    )
    assert flags["too_few_labels"] == 1
    assert (
        stages(requests) == {"X1": 0, "X6": 1}
        or requests[-1].messages[0].content == WORDS.instruction
    )


@pytest.mark.parametrize("history", [(), (Record("r", "a new TALE of #war", "x"),)])
async def test_empty_history(tmp_path: Path, history: tuple[Record, ...]) -> None:
    setup = ScriptedTask(tmp_path)
    _, flags, requests = await setup.ask(rpm(), question(history))
    assert len(requests) == 1
    assert flags == {"empty_history": 1}
    ctx = setup.context()
    await NoPersonalization().predict(question(history), None, ctx)
    assert ctx.calls[0].cached


async def test_a_resumed_run_repeats_no_call(tmp_path: Path) -> None:
    sample = question(pairs("a", "b", "c", "d"))
    whole, _ = await ScriptedTask(tmp_path / "whole").study(rpm(), sample)
    rationales = 0

    def dying(request: Request) -> str:
        nonlocal rationales
        if stage(request) == "X4":
            rationales += 1
            if rationales > 2:
                raise BackendError("killed")
        return reply(request)

    with pytest.raises(BackendError):
        await ScriptedTask(tmp_path / "part", answer=dying).study(rpm(), sample)
    again = ScriptedTask(tmp_path / "part")
    state, _ = await again.study(rpm(), sample)
    assert stages(again.backend.requests) == {"X4": 2}
    assert state == whole
