"""ERAGent: its replies, the pool, and the records that reach the answer."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from baseline_fixtures import ScriptedTask, ask_once, prepared, question, shown, tales, text

from personabench import Record, Request, User
from personabench.methods.eragent import (
    ErAgent,
    interleave,
    read_label,
    read_profile,
    read_rewrite,
)

PROFILE = json.dumps({"interests": "ports", "background": "a sailor", "style": "dry"})
REWRITE = json.dumps({"question": "A headline on boats?", "queries": ["item3", "item5"]})


def kind(request: Request) -> str:
    opening = request.messages[0].content
    if opening.startswith("You keep a profile"):
        return "profile"
    if opening.startswith("You prepare a search"):
        return "rewrite"
    return "filter" if opening.startswith("You decide") else "answer"


def answering(rewrite: str = REWRITE, label: str = "entailment", profile: str = PROFILE) -> Any:
    def answer(request: Request) -> str:
        return {
            "profile": profile,
            "rewrite": rewrite,
            "filter": json.dumps({"label": label}) if label else "Well.",
            "answer": "A headline",
        }[kind(request)]

    return answer


def counts(requests: list[Request]) -> dict[str, int]:
    return dict(Counter(map(kind, requests)))


async def test_calls_are_two_and_one_per_snippet(tmp_path: Path) -> None:
    _, ctx, requests = await ask_once(tmp_path, [tales(12)], ErAgent(), answer=answering())
    assert counts(requests) == {"profile": 1, "rewrite": 1, "filter": 5, "answer": 1}
    answer = requests[-1]
    assert len(shown(answer)) == 5
    # The first of each query before the second of any.
    assert shown(answer)[:2] == ["ann-3", "ann-5"]
    assert "Interests: ports\nBackground: a sailor\nStyle: dry" in answer.messages[0].content
    assert ctx.flags["records_filtered"] == 0


async def test_filter_and_reader_get_the_same_question(tmp_path: Path) -> None:
    _, _, requests = await ask_once(tmp_path, [tales(12)], ErAgent(), answer=answering())
    for request in requests:
        if kind(request) in ("filter", "answer"):
            assert "A new tale of the tramway and the orchard" in text([request])
            assert "In other words: A headline on boats?" in text([request])


@pytest.mark.parametrize("reply", ["No JSON.", '{"question": "x", "queries": []}', "{", "[]"])
async def test_a_bad_rewrite_still_answers(tmp_path: Path, reply: str) -> None:
    output, ctx, requests = await ask_once(
        tmp_path,
        [tales(12)],
        ErAgent(),
        question([tales(12)], "Of item7"),
        answer=answering(rewrite=reply),
    )
    assert output == "A headline"
    assert counts(requests)["rewrite"] == 2
    assert ctx.flags["rewrite_retried"] == ctx.flags["rewrite_failed"] == 1
    # The original question is the only query.
    assert shown(requests[-1])[0] == "ann-7"
    assert "In other words" not in text(requests)


async def test_a_rewrite_without_words_is_dropped(tmp_path: Path) -> None:
    reply = json.dumps({"question": "...", "queries": ["...", "-"]})
    users = [tales(12)]
    _, ctx, requests = await ask_once(
        tmp_path, users, ErAgent(), question(users, "Of item7"), answer=answering(rewrite=reply)
    )
    assert counts(requests)["rewrite"] == ctx.flags["rewrite_empty"] == 1
    assert shown(requests[-1])[0] == "ann-7"
    assert "In other words" not in text(requests)


@pytest.mark.parametrize("label", ["contradiction", "neutral"])
async def test_all_filtered_out_keeps_one_snippet(tmp_path: Path, label: str) -> None:
    _, ctx, requests = await ask_once(
        tmp_path, [tales(12)], ErAgent(), answer=answering(label=label)
    )
    assert shown(requests[-1]) == ["ann-3"]
    assert ctx.flags["top_record_kept"] == 1
    assert ctx.flags["records_filtered"] == 5


async def test_an_unparsed_label_is_neutral_and_counted(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        if kind(request) == "filter" and "ann wrote 3" in text([request]):
            return "Hard to say."
        return str(answering()(request))

    _, ctx, requests = await ask_once(tmp_path, [tales(12)], ErAgent(), answer=answer)
    assert counts(requests)["filter"] == 6
    assert ctx.flags["filter_failed"] == 1
    assert "ann-3" not in shown(requests[-1]) and len(shown(requests[-1])) == 4


def pooled() -> User:
    """Records of the pool at a cosine of .5 to the query, and one that BM25 finds."""
    near = [
        Record(f"ann-{number}", f"@(0.5,0.866) near {number}", f"near {number}")
        for number in range(4)
    ]
    return User("ann", (*near, Record("ann-9", "a wanted record", "wanted")))


@pytest.mark.parametrize("theta", [3, 4])
async def test_theta_matching_titles_skip_retrieval_and_fewer_do_not(
    tmp_path: Path, theta: int
) -> None:
    query = "@(1,0) wanted record"
    rewrite = json.dumps({"question": "", "queries": [query]})
    users = [pooled()]
    method = ErAgent(ErAgent.Params(theta=theta))
    setup = ScriptedTask(tmp_path, users, answer=answering(rewrite=rewrite))
    ctx = setup.context("ann")
    # Three titles of the pool match.
    state = {"profile": {}, "pool": ["ann-0", "ann-1", "ann-2"]}
    await method.predict(question(users), state, ctx)
    records = shown(setup.backend.requests[-1])
    if theta == 3:
        assert ctx.flags["pool_used"] == 1
        assert records == ["ann-0", "ann-1", "ann-2"]
    else:
        assert "pool_used" not in ctx.flags
        assert records[0] == "ann-9" and len(records) == 5


async def test_tau_is_the_least_cosine_of_a_match(tmp_path: Path) -> None:
    rewrite = json.dumps({"question": "", "queries": ["@(1,0) wanted record"]})
    users = [pooled()]
    for tau, used in ((0.5, 1), (0.51, 0)):
        setup = ScriptedTask(tmp_path / str(tau), users, answer=answering(rewrite=rewrite))
        ctx = setup.context("ann")
        state = {"profile": {}, "pool": ["ann-0", "ann-1", "ann-2"]}
        await ErAgent(ErAgent.Params(tau=tau)).predict(question(users), state, ctx)
        assert ctx.flags.get("pool_used", 0) == used


async def test_the_pool_comes_from_the_history_and_is_empty_by_default(tmp_path: Path) -> None:
    users = [tales(12)]
    for pool_questions, expected in ((0, []), (2, None)):
        setup = ScriptedTask(tmp_path / str(pool_questions), users, answer=answering())
        method = ErAgent(ErAgent.Params(pool_questions=pool_questions, k=2))
        await prepared(setup, method)
        state = await method.profile(users[0], setup.context("ann"))
        if expected is None:
            # Two stimuli, each with the two records nearest to it among those before it.
            assert 2 <= len(set(state["pool"])) == len(state["pool"]) <= 4
            assert "ann-11" not in state["pool"]
        else:
            assert state["pool"] == expected
        assert counts(setup.backend.requests) == {"profile": 1}


async def test_an_unparsed_profile_is_left_out_and_counted(tmp_path: Path) -> None:
    _, ctx, requests = await ask_once(
        tmp_path, [tales(12)], ErAgent(), answer=answering(profile="A sailor.")
    )
    assert counts(requests)["profile"] == 2
    assert ctx.flags["profile_failed"] == 1
    assert "A sailor." not in text(requests[-1:])


async def test_an_empty_history_is_the_plain_request_flagged(tmp_path: Path) -> None:
    users = [User("ann", ())]
    _, ctx, requests = await ask_once(tmp_path, users, ErAgent(), answer=answering())
    assert counts(requests) == {"answer": 1}
    assert ctx.flags["empty_history"] == 1


def test_equal_titles_are_two_records_and_equal_ids_one() -> None:
    first, second = Record("a", "Same", "x"), Record("b", "Same", "y")
    assert interleave([[first], [second, first]], 5) == [first, second]
    assert interleave([[first, second]], 1) == [first]
    assert interleave([], 3) == []


def test_replies_are_read() -> None:
    assert read_label('{"label": "Entailment"}') == "entailment"
    assert read_label("I think it is neutral.") == "neutral"
    assert read_label("entailment or neutral") is None
    assert read_profile('{"interests": ["boats", "tea"], "style": ""}') == {
        "interests": "boats, tea"
    }
    assert read_profile("{}") is None
    rewrite = read_rewrite('Sure: {"question": 3, "queries": ["A b", "a  B", {"query": "c"}]}')
    assert rewrite == ("", ("A b", "c"))
