"""Contrast pairs: their peers, their difference, and the part of a reply that counts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from baseline_fixtures import (
    Headlines,
    ScriptedTask,
    Stars,
    Tags,
    ask_once,
    crowd,
    labelled,
    prepared,
    question,
    reply,
    stage,
    stages,
    tales,
    text,
    without_items,
)

from personabench import Record, Request, Sample, User
from personabench.methods.cicl import Cicl, read_answer
from personabench.methods.none import NoPersonalization
from personabench.testing.trials import trial


@pytest.mark.parametrize("two_step", [False, True])
async def test_negatives_come_from_peers(tmp_path: Path, two_step: bool) -> None:
    users = crowd(items=9)
    twin = User("twin", (*users[0].history[:5], *(tales(9, "TWIN").history[5:])))
    about = question(
        users,
        users[0].history[3].stimulus or "",
        item="i3",
    )
    setup = ScriptedTask(
        tmp_path,
        [*users, twin],
        answer=reply,
        nameless=True,
    )
    method = await prepared(setup, Cicl(Cicl.Params(negatives="peer", two_step=two_step)))
    _, ctx, requests = await setup.ask(method, about)
    prompt = requests[0].messages[1 if two_step else 0].content
    negatives = re.findall(r"Not as this columnist would:\n(.*?)(?:\n\n|$)", prompt, re.DOTALL)
    assert len(negatives) == ctx.flags["pairs"] == 8
    assert all("peer" in negative and "item3" not in negative for negative in negatives)
    assert "TWIN" not in text(requests)


async def test_no_negative_answers_the_question_itself(tmp_path: Path) -> None:
    # A peer's response to the question would reveal how it can be answered.
    users = crowd(items=1)
    _, ctx, requests = await ask_once(
        tmp_path,
        users,
        Cicl(Cicl.Params(negatives="peer")),
        question(users, "Some words", item="i0"),
    )
    assert ctx.flags["fallback"] == 1
    assert "peer" not in text(requests)


@pytest.mark.parametrize("task", [Tags(), Stars()])
async def test_negative_labels_differ_from_the_users(tmp_path: Path, task: Headlines) -> None:
    users = [
        labelled("ann", "1234"),
        labelled("b", "1133"),
        labelled("c", "1124"),
    ]
    method = Cicl(Cicl.Params(negatives="peer"))
    _, ctx, requests = await ask_once(
        tmp_path,
        users,
        method,
        question(users, "Of a zoo"),
        task=task,
    )
    assert ctx.flags["pairs"] == 3
    assert ctx.flags["positive_only"] == 1
    notes = requests[-1].messages[0].content
    for example in notes.split("Example ")[1:]:
        user_label, *peer_labels = re.findall(r"Headline: (\d)", example)
        assert user_label not in peer_labels
    assert notes.count("Not as this columnist would") == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Analysis: short.\nAnswer: A headline", "A headline"),
        ("**Analysis:** short.\n\n**Answer:** A headline", "A headline"),
        ("answer:\nA headline", "A headline"),
        ("Answer: first\nAnswer: A headline", "A headline"),
        ("Two lines.\nAnswer: A\nheadline", "A\nheadline"),
        ("The answer is: A headline", ""),
        ("Analysis: short.\nAnswer:", ""),
    ],
)
def test_only_the_answer_counts(text: str, expected: str) -> None:
    assert read_answer(text) == expected


async def test_a_missing_answer_is_retried_once_then_counted(
    tmp_path: Path,
) -> None:
    users = crowd()
    output, ctx, requests = await ask_once(
        tmp_path / "never",
        users,
        Cicl(),
        answer=lambda request: "Just words",
    )
    assert output == "Just words"
    assert ctx.flags["answer_retried"] == 1
    assert ctx.flags["answer_missing"] == 1
    assert len(requests) == 2
    replies = iter(["Just words", "Analysis: x\nAnswer: At last"])
    output, ctx, _ = await ask_once(
        tmp_path / "second",
        users,
        Cicl(),
        answer=lambda request: next(replies),
    )
    assert output == "At last"
    assert ctx.flags["answer_retried"] == 1
    assert "answer_missing" not in ctx.flags


async def test_two_steps_return_the_second_reply(tmp_path: Path) -> None:
    users = crowd()
    method = Cicl(Cicl.Params(two_step=True))
    output, _, requests = await ask_once(
        tmp_path,
        users,
        method,
        answer=lambda r: stage(r) + " said",
    )
    assert output == "answer said"
    assert "contrast said" in requests[-1].messages[0].content


async def test_drafts_send_the_request_of_none_and_are_shared(tmp_path: Path) -> None:
    # The same request has the same cache key, so that `none` and other methods pay for the drafts.
    users = without_items([tales(3)])
    setup = ScriptedTask(tmp_path, users, answer=reply)
    method = await prepared(setup, Cicl())
    _, ctx, requests = await setup.ask(method, question(users))
    assert stages(requests) == {"answer": 4}
    assert ctx.flags["pairs"] == 3
    record = users[0].history[1]
    plain = Sample(
        "q",
        "bob",
        record.stimulus or "",
        stimulus=record.stimulus,
    )
    _, _, repeated = await setup.ask(NoPersonalization(), plain)
    assert repeated == []
    _, _, requests = await setup.ask(method, question(users, "Another, of a quarry"))
    assert stages(requests) == {"answer": 1}


async def test_a_draft_equal_to_the_users_response_is_no_negative(tmp_path: Path) -> None:
    users = without_items([labelled("ann", "12")])

    def guess(request: Request) -> str:
        return "1" if "item" in request.messages[1].content else "Analysis: x\nAnswer: 2"

    _, ctx, requests = await ask_once(
        tmp_path,
        users,
        Cicl(),
        question(users, "Of a zoo"),
        answer=guess,
        task=Stars(),
    )
    assert ctx.flags["pairs"] == 1
    assert ctx.flags["positive_only"] == 1
    assert requests[-1].messages[0].content.count("Not as this columnist would:\nHeadline: 1") == 1


async def test_records_without_a_stimulus_have_no_drafts(tmp_path: Path) -> None:
    users = [
        User(p, (Record(f"{p}-0", None, f"lovely day at the quarry {p}"),)) for p in ("ann", "bob")
    ]
    sample = Sample(
        "q",
        "ann",
        "Reword: a day out",
        history=users[0].history,
    )
    _, ctx, requests = await ask_once(tmp_path / "peer", users, Cicl(), sample)
    assert ctx.flags["pairs"] == 1
    assert (
        "Not as this columnist would:\nHeadline: lovely day at the quarry bob"
        in requests[0].messages[0].content
    )
    _, ctx, _ = await ask_once(
        tmp_path / "draft", users, Cicl(Cicl.Params(negatives="draft")), sample
    )
    assert ctx.flags["fallback"] == 1


async def test_pairs_are_dropped_to_fit_the_window(tmp_path: Path) -> None:
    # The question is never truncated, so the examples are.
    users = [User(u.id, tuple(_long(r) for r in u.history)) for u in crowd(items=8)]
    _, ctx, requests = await ask_once(
        tmp_path,
        users,
        Cicl(Cicl.Params(negatives="peer", analysis_max_tokens=64)),
        window=1200,
    )
    assert ctx.flags["records_dropped"] == 8 - requests[0].messages[0].content.count("Example ")
    assert 0 < ctx.flags["records_dropped"] < 8


def _long(record: Record) -> Record:
    return Record(
        record.id,
        f"{record.stimulus} " + "and on " * 60,
        record.response,
        item=record.item,
    )


def test_drafting_needs_no_population() -> None:
    # A data set without other users can still be run with negatives=draft.
    assert "population" not in Cicl(Cicl.Params(negatives="draft")).requirements()
    assert "population" in Cicl().requirements()


def test_labels_can_be_drafted_on_a_real_task() -> None:
    def guess(request: Any) -> str:
        return (
            "Analysis: x\nAnswer: comedy"
            if "Example 1" in request.messages[0].content
            else "comedy"
        )

    result = trial(
        Cicl(),
        task="lamp2m",
        limit=4,
        answer=guess,
    )
    assert all(line.parsed == "comedy" for line in result.predictions)
    assert result.summary.counters["pairs"] > 0


async def test_an_empty_analysis_is_counted(tmp_path: Path) -> None:
    method = Cicl(Cicl.Params(two_step=True))
    silent = {"contrast": ""}
    _, ctx, _ = await ask_once(
        tmp_path,
        crowd(),
        method,
        answer=lambda r: silent.get(stage(r), reply(r)),
    )
    assert ctx.flags["empty_analysis"] == 1
