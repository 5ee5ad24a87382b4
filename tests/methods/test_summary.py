"""Summaries of the user: their records, budgets and reuse."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from baseline_fixtures import (
    ScriptedTask,
    ask_once,
    offline,
    prepared,
    question,
    reply,
    shown,
    stage,
    stages,
    tales,
    text,
)
from engine_fixtures import options

from personabench import User
from personabench.methods.rag import Rag
from personabench.methods.summary import Summary, SummaryRetrieved
from personabench.models.backends.scripted import Scripted
from personabench.run import runner
from personabench.testing.trials import trial


async def test_one_summary_per_profile(tmp_path: Path) -> None:
    users = [tales(6)]
    setup = ScriptedTask(tmp_path, users, answer=reply)
    method = await prepared(setup, Summary())
    await setup.ask(method, question(users))
    _, _, requests = await setup.ask(method, question(users, "Another, of a quarry"))
    assert stages(requests) == {"answer": 1}
    longer = [User("ann", (*users[0].history[:-1], tales(8).history[-1]))]
    _, _, requests = await setup.ask(method, question(longer))
    assert stages(requests) == {"summary": 1, "answer": 1}


def test_questions_of_one_user_share_a_profile() -> None:
    # The profile is paid once per user, not once per question.
    result = trial(Summary(), task="lamp4")
    users = {prediction.user_id for prediction in result.predictions}
    assert len(result.profiles) == len(users) < len(result.predictions)


async def test_the_summary_prompt_holds_neither_question_nor_reference(tmp_path: Path) -> None:
    # A profile that depended on the question could not be shared.
    users = [tales(6)]
    _, _, requests = await ask_once(
        tmp_path, users, Summary(), question(users, "A singular zeppelin")
    )
    (summary,) = offline(requests)
    assert "zeppelin" not in text([summary])
    assert "GOLD" not in text([summary])
    assert "A summary." in requests[-1].messages[0].content


async def test_a_budget_keeps_the_newest_records_and_zero_keeps_all(tmp_path: Path) -> None:
    users = [tales(40)]
    _, ctx, requests = await ask_once(
        tmp_path / "tight", users, Summary(Summary.Params(summary_budget_tokens=60))
    )
    items = re.findall(r"item(\d+)", offline(requests)[0].messages[1].content)
    assert 0 < len(items) < 40
    assert items == [str(number) for number in range(40 - len(items), 40)]
    assert ctx.flags["records_over_budget"] == 40 - len(items)
    _, ctx, requests = await ask_once(
        tmp_path / "whole", users, Summary(Summary.Params(summary_budget_tokens=0))
    )
    assert len(re.findall(r"item\d+", offline(requests)[0].messages[1].content)) == 40
    assert "records_over_budget" not in ctx.flags


async def test_without_records_only_the_summary_is_shown(tmp_path: Path) -> None:
    _, _, requests = await ask_once(tmp_path, [tales(6)], Summary(Summary.Params(k=0)))
    assert shown(requests[-1]) == []
    assert "A summary." in requests[-1].messages[0].content


async def test_retrieved_records_are_summarised_oldest_first_and_shown_best_first(
    tmp_path: Path,
) -> None:
    users = [tales(12)]
    about = question(users, "Of item3, item9 and item5 item5")
    _, _, requests = await ask_once(
        tmp_path / "ours", users, SummaryRetrieved(SummaryRetrieved.Params(k=3)), about
    )
    _, _, expected = await ask_once(tmp_path / "rag", users, Rag(Rag.Params(k=3)), about)
    assert shown(requests[-1]) == shown(expected[-1])
    summarised = re.findall(r"item(\d+)", offline(requests)[0].messages[1].content)
    assert summarised == sorted(
        (name.removeprefix("ann-") for name in shown(expected[-1])), key=int
    )


async def test_a_heading_before_the_summary_is_stripped(tmp_path: Path) -> None:
    for number, method in enumerate((Summary(), SummaryRetrieved())):
        reply_text = "**New summary:** Terse, and fond of profile: shots."
        _, ctx, requests = await ask_once(
            tmp_path / f"{number}",
            [tales(3)],
            method,
            answer=lambda _, reply_text=reply_text: reply_text,
        )
        assert (
            "About the columnist: Terse, and fond of profile: shots."
            in requests[-1].messages[0].content
        )
        assert "summary:" not in requests[-1].messages[0].content
        assert ctx.flags["tag_stripped"] == 1


def test_an_empty_summary_is_flagged_and_requested_again_by_the_next_run(tmp_path: Path) -> None:
    silent = Scripted(answer=lambda request: "" if stage(request) == "summary" else "A line")
    healthy = Scripted(answer=reply)
    (first,) = asyncio.run(
        runner.run(
            options(
                tmp_path,
                "summary",
                limit=1,
                wording="compact",
            ),
            backend=silent,
        )
    )
    assert first.summary.counters["empty_summary"] == 1
    second_options = options(
        tmp_path,
        "summary",
        limit=1,
        wording="compact",
        assignments=["summary.k=3"],
    )
    asyncio.run(runner.run(second_options, backend=healthy))
    assert "summary" in stages(healthy.requests)
