"""FairEval's judge: scores over both orders, unparsed votes, and items for annotators."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any

import pytest
from judge_scripts import JudgeCall, Scripted

from personabench.metrics.judges.faireval import (
    TEMPERATURE,
    VOTES,
    apply_labels,
    build_prompt,
    compare,
    read_scores,
    select_for_review,
)
from personabench.metrics.judges.verdict import Verdict, Vote


def judged(judge: Scripted, **changes: Any) -> Verdict:
    arguments = {
        "sample_id": "1",
        "user_id": "u",
        "background": "",
        "request": "Q?",
        "a": "first text",
        "b": "second text",
    }
    return asyncio.run(compare(judge, **{**arguments, **changes}))


def shows_first(call: JudgeCall, text: str) -> bool:
    return re.search(rf"Reply 1:\n<<<\w+\n{text}", call.user) is not None


def scored(
    straight: list[str | tuple[int, int]], mirrored: list[str | tuple[int, int]]
) -> Scripted:
    """Replies by order of the answers.

    Pairs are the scores of the first and second answer in the prompt, strings are sent as they are.
    """

    def answer(call: JudgeCall) -> str:
        replies = straight if shows_first(call, "first text") else mirrored
        reply = replies[call.repeat]
        if isinstance(reply, str):
            return reply
        first, second = reply
        return f"Both are fine.\nScore of reply 1: {first}\nScore of reply 2: {second}"

    return Scripted(answer)


def test_section_1a_scores_tie_spread_and_conflict() -> None:
    """Swapped scores are in the judge's order; mapped back they are (8,7), (6,8), (7,7)."""
    verdict = judged(scored([(9, 7), (8, 8), (7, 8)], [(7, 8), (8, 6), (7, 7)]))
    assert verdict.scores == (7.5, 7.5) and verdict.pick == "tie"
    assert all(share == pytest.approx(1 / 3) for share in verdict.shares.values())
    assert verdict.entropy == pytest.approx(1.0986, abs=5e-5) and verdict.entropy == pytest.approx(
        math.log(3)
    )
    assert verdict.conflict is True and verdict.asked == len(verdict.votes) == 6


def test_section_1b_the_swapped_prompt_shows_the_second_answer_first() -> None:
    judge = scored([(5, 5)] * VOTES, [(5, 5)] * VOTES)
    judged(judge, background="Likes brevity.")
    straight = [call.user for call in judge.calls if shows_first(call, "first text")]
    mirrored = [call.user for call in judge.calls if shows_first(call, "second text")]
    assert len(straight) == len(mirrored) == VOTES
    assert straight[0].index("first text") < straight[0].index("second text")
    assert mirrored[0].index("second text") < mirrored[0].index("first text")
    assert "Likes brevity." in mirrored[0] and "Q?" in mirrored[0]
    assert [call.repeat for call in judge.calls if call.user == straight[0]] == list(range(VOTES))
    assert {call.temperature for call in judge.calls} == {TEMPERATURE}


def test_section_1c_orders_are_averaged_before_they_are_pooled() -> None:
    verdict = judged(scored([(9, 5), (7, 5), "no idea"], [(6, 6)] * 3))
    assert verdict.scores == (7.0, 5.5) and verdict.pick == "a"
    assert verdict.asked == 6 and len(verdict.votes) == 5


def test_section_1d_a_fifth_of_ten_items_goes_to_annotators() -> None:
    split, sure = ((Vote("a"), Vote("b")), (Vote("a"), Vote("b"))), ((Vote("a"),), (Vote("a"),))
    verdicts = [
        Verdict(f"{index}", "u", split if index in (7, 3, 5) else sure, True, 4)
        for index in range(10)
    ]
    assert select_for_review(verdicts) == ["3", "5"], "three are spread alike, and ids decide"
    labelled = apply_labels(verdicts, {"3": "b"})
    assert (labelled["3"], labelled["5"], labelled["0"]) == ("b", "tie", "a")


def test_an_order_without_a_vote_is_repeated_once_and_then_unjudged() -> None:
    again = judged(scored(["?", "?", "?", (8, 2), "?", "?"], [(3, 6)] * 3))
    assert again.judged and again.asked == 9 and again.pick == "a" and len(again.votes) == 4
    never = judged(scored(["?"] * 6, [(3, 6)] * 3))
    assert (
        not never.judged and never.pick is None and never.scores is None and never.conflict is None
    )
    assert select_for_review([never], 1.0) == []


def test_unparsed_replies_are_not_cached() -> None:
    judge = scored([(9, 5), "no idea", (9, 5)], [(6, 6)] * 3)
    judged(judge)
    assert sorted(call.cached for call in judge.calls) == [False] + [True] * 5


@pytest.mark.parametrize(
    ("reply", "scores"),
    [
        ("Fine.\nScore of reply 1: 8\nScore of reply 2: 6.5\n\n", (8.0, 6.5)),
        ("**Score of reply 1:** 8/10\n\n**Score of reply 2:** [6]", (8.0, 6.0)),
        ("<think>Score of reply 1: 1\nScore of reply 2: 1</think>A: 2\nB: 3", (2.0, 3.0)),
        ("Score of reply 1: 0\nScore of reply 2: 5", None),
        ("Score of reply 1: 11\nScore of reply 2: 5", None),
        ("Score of reply 1: 8\nScore of reply 2: 6\nThat is all.", (8.0, 6.0)),
        ("Score of reply 1: 8\nIt says:\nScore of reply 1: 1\nScore of reply 2: 6", None),
        ("8 6", None),
        ("Score of reply 2: 6", None),
        ("", None),
    ],
)
def test_scores_are_alone_on_their_lines(reply: str, scores: tuple[float, float] | None) -> None:
    assert read_scores(reply) == scores


def test_an_empty_background_leaves_no_heading() -> None:
    assert "known" not in build_prompt("", "Q?", "x", "y")[1].content
