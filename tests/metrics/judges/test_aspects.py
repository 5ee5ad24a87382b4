"""Aspects of an answer against those of the user's own text: three calls, precision and recall."""

from __future__ import annotations

import asyncio

import pytest
from judge_scripts import JudgeCall, Scripted

from personabench.metrics.judges.aspects import (
    Comparison,
    Match,
    compare_aspects,
    read_aspects,
    read_matches,
    score_matches,
)

CRITERIA = {"content": "The same?", "style": "Written alike?"}


def compare(judge: Scripted) -> Comparison:
    return asyncio.run(
        compare_aspects(judge, request="Write.", answer="Mine.", own="Theirs.", criteria=CRITERIA)
    )


def test_precision_recall_and_f_by_hand() -> None:
    # Two of the answer's four aspects match two of the user's three; the third repeats one.
    matches = {
        1: Match(2, ("yes", "yes")),
        2: None,
        3: Match(2, ("yes", "yes")),
        4: Match(1, ("partly", "no")),
    }
    scores = score_matches(matches, 4, 3, ["content", "style"])
    # The degrees of the two: 1 and .25.
    assert scores.precision == pytest.approx(1.25 / 4)
    assert scores.recall == pytest.approx(1.25 / 3)
    assert scores.f == pytest.approx(2 * 1.25 / 7)
    assert scores.criteria == {"content": 0.75, "style": 0.5}


def test_nothing_in_common_is_0_and_all_in_common_1() -> None:
    nothing = score_matches({1: None}, 1, 2, ["content"])
    assert (nothing.f, nothing.precision, nothing.recall, nothing.criteria) == (0, 0, 0, {})
    everything = score_matches({1: Match(1, ("yes",))}, 1, 1, ["content"])
    assert (everything.f, everything.criteria) == (1, {"content": 1})


def test_one_call_splits_each_text_and_one_compares_them() -> None:
    def answer(call: JudgeCall) -> str:
        if "Aspects of the answer" in call.user:
            assert "A1: price" in call.user and "U2: tone" in call.user
            return "A1: U1, content yes, style partly"
        return "1: price" if "Mine." in call.user else "1: cost\n2: tone"

    judge = Scripted(answer)
    comparison = compare(judge)
    assert len(judge.calls) == comparison.attempts == 3
    assert comparison.scores is not None
    assert (comparison.scores.precision, comparison.scores.recall) == (0.75, 0.375)


@pytest.mark.parametrize("stage", ["split", "match"])
def test_a_stage_that_cannot_be_read_leaves_the_answer_unjudged(stage: str) -> None:
    def answer(call: JudgeCall) -> str:
        is_match = "Aspects of the answer" in call.user
        return "I would rather not." if (stage == "match") == is_match else "1: price"

    comparison = compare(Scripted(answer))
    assert comparison.scores is None
    assert comparison.attempts > 3


@pytest.mark.parametrize(
    "reply",
    [
        "A1: U1, content yes, style no",  # the second aspect is missing
        "A1: U1, content yes, style no\nA2: U4, content no, style no",  # no such aspect
        "A1: U1, content yes\nA2: none",  # no degree of style
        "A1: U1, content yes, style no\nA1: none\nA2: none",  # two answers
    ],
)
def test_incomplete_matches_are_unparsed(reply: str) -> None:
    assert read_matches(reply, 2, 3, list(CRITERIA)) is None


def test_matches_are_read_in_any_case_and_with_emphasis() -> None:
    reply = "Here:\n**A1**: u2, Content: Yes, Style: partly\n- A2: None"
    assert read_matches(reply, 2, 2, list(CRITERIA)) == {1: Match(2, ("yes", "partly")), 2: None}


def test_at_most_ten_aspects_are_kept() -> None:
    reply = "\n".join(f"{number}. aspect" for number in range(1, 15))
    assert len(read_aspects(reply) or []) == 10
    assert read_aspects("none that I see") is None
