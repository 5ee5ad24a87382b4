"""Blocks: their order, their reuse, and the records shown beside their summary."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
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
)

from personabench import Request, UsageError, User
from personabench.api.params import fill_params
from personabench.methods.trsr import Trsr


def items(request: Any) -> list[int]:
    return [
        int(number) for number in re.findall(r"The tale of item(\d+)", request.messages[1].content)
    ]


async def test_one_more_record_runs_the_last_block_only(tmp_path: Path) -> None:
    # In online use a history grows by one record at a time.
    users = [tales(12)]
    setup = ScriptedTask(tmp_path, users, answer=reply)
    method = await prepared(setup, Trsr())
    await setup.ask(method, question(users))
    _, _, requests = await setup.ask(method, question(users, "Another, of a quarry"))
    assert stages(requests) == {"answer": 1}
    longer = [tales(13)]
    _, _, requests = await setup.ask(method, question(longer))
    assert stages(requests) == {"update": 1, "answer": 1}
    assert items(requests[0]) == [10, 11, 12]
    changed = msgspec.structs.replace(longer[0].history[0], response="reworded")
    _, _, requests = await setup.ask(
        method, question([User("ann", (changed, *longer[0].history[1:]))])
    )
    assert stages(requests)["block"] == 1


async def test_updates_hold_the_summary_before_and_the_new_block(
    tmp_path: Path,
) -> None:
    users = [tales(12)]
    _, _, requests = await ask_once(tmp_path, users, Trsr())
    blocks = offline(requests)
    assert [items(request) for request in blocks] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [10, 11],
    ]
    for before, after in itertools.pairwise(blocks):
        assert f"Summary so far:\n{reply(before)}\n" in after.messages[1].content
    assert reply(blocks[-1]) in requests[-1].messages[0].content


async def test_hierarchical_merges_all_periods_oldest_first(tmp_path: Path) -> None:
    users = [tales(50)]
    _, _, requests = await ask_once(
        tmp_path, users, Trsr(Trsr.Params(mode="hierarchical", fan_in=4))
    )
    assert stages(requests) == {
        "block": 10,
        "merge": 4,
        "answer": 1,
    }
    merges = [request.messages[1].content for request in requests if stage(request) == "merge"]
    assert sorted(len(re.findall(r"^\d+\. ", merge, re.MULTILINE)) for merge in merges) == [
        2,
        3,
        4,
        4,
    ]
    last = [int(number) for number in re.findall(r"item(\d+)", merges[-1])]
    assert last == list(range(50))


async def test_the_newest_records_follow_unless_they_are_retrieved(tmp_path: Path) -> None:
    users = [tales(12)]
    about = question(users, "item11 item2")
    _, _, requests = await ask_once(tmp_path, users, Trsr(Trsr.Params(k=2, recent=3)), about)
    assert set(shown(requests[-1])) == {"ann-11", "ann-2"}
    notes = requests[-1].messages[0].content.partition("Latest records")[2]
    assert re.findall(r"item(\d+)", notes) == ["9", "10"]


async def test_max_blocks_keeps_the_newest_blocks(tmp_path: Path) -> None:
    _, _, requests = await ask_once(tmp_path, [tales(22)], Trsr(Trsr.Params(max_blocks=2)))
    assert [items(request) for request in offline(requests)] == [[15, 16, 17, 18, 19], [20, 21]]


async def test_an_empty_reply_keeps_the_previous_summary(tmp_path: Path) -> None:
    # One failed call must not discard the summary of all earlier blocks.
    users = [tales(12)]

    def mute(request: Request) -> str:
        newer = request.messages[1].content.rpartition("Newer")[2]
        return "" if "item7" in newer else reply(request)

    _, ctx, requests = await ask_once(
        tmp_path,
        users,
        Trsr(Trsr.Params(recent=0)),
        answer=mute,
    )
    first, _, last = offline(requests)
    assert ctx.flags["empty_summary"] == 1
    assert f"Summary so far:\n{reply(first)}\n" in last.messages[1].content


async def test_undated_histories_are_reported(tmp_path: Path) -> None:
    _, ctx, _ = await ask_once(tmp_path / "a", [tales(3)], Trsr())
    assert ctx.flags["undated"] == 1
    dated = User(
        "ann", tuple(msgspec.structs.replace(r, time="2020-01-01") for r in tales(3).history)
    )
    _, ctx, _ = await ask_once(tmp_path / "b", [dated], Trsr())
    assert "undated" not in ctx.flags


async def test_a_narrow_window_drops_recent_records_and_splits_merges(tmp_path: Path) -> None:
    long = User(
        "ann",
        tuple(
            msgspec.structs.replace(
                r,
                stimulus=f"{r.stimulus} " + "and on " * 60,
                response="words " * 60,
            )
            for r in tales(40).history
        ),
    )

    def wordy(request: Request) -> str:
        return "a long summary " * 30 if stage(request) in ("block", "merge") else "A headline"

    method = Trsr(
        Trsr.Params(
            mode="hierarchical",
            recent=5,
            summary_max_tokens=64,
        )
    )
    _, ctx, requests = await ask_once(
        tmp_path,
        [long],
        method,
        answer=wordy,
        window=900,
    )
    assert ctx.flags["recent_dropped"] > 0
    assert ctx.flags["merge_split"] > 0
    assert stage(requests[-1]) == "answer"


@pytest.mark.parametrize(
    "params",
    [
        {"block": "0"},
        {"fan_in": "1"},
        {"mode": "both"},
    ],
)
def test_settings_that_cannot_work_are_refused(params: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        fill_params(Trsr.Params, params, "trsr")
