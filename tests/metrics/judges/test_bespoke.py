"""BESPOKE: grades as one person gives them, and claims one by one."""

from __future__ import annotations

import asyncio

import pytest
from judge_scripts import JudgeCall, Scripted

from personabench.metrics.judges.bespoke import (
    CRITERIA,
    Example,
    Grades,
    Recall,
    grade,
    read_grades,
    recall,
    scores,
)

FULL = "need alignment: 4\ncontent depth: 3\ntone: 5\nexplanation style: 4"


def grades(judge: Scripted, examples: list[Example] | None = None) -> Grades:
    found = grade(
        judge, rubric="Short.", examples=examples or [], need="n", query="q", response="The reply."
    )
    return asyncio.run(found)


def test_section_5a_scores() -> None:
    found = scores([(grades(Scripted(lambda call: FULL)), Recall(3, 8, 8))])
    assert (
        list(found.criteria.values()) == [80, 60, 100, 80]
        and found.recall == 37.5
        and found.average == 71.5
    )


def test_section_5b_a_missing_line_is_asked_for_again_and_only_it_is_unjudged() -> None:
    judge = Scripted(lambda call: FULL.replace("tone: 5\n", ""))
    found = grades(judge)
    assert found.values == {
        "need alignment": 4,
        "content depth": 3,
        "tone": None,
        "explanation style": 4,
    }
    assert found.asked == 4 and [call.repeat for call in judge.calls] == [0, 1, 2, 3]
    assert not any(call.kept for call in judge.calls)
    late = grades(
        Scripted(lambda call: "Tone: 2" if call.repeat else FULL.replace("tone: 5", "tone: good"))
    )
    assert late.values["tone"] == 2 and late.values["content depth"] == 3 and late.asked == 2
    total = scores([(found, Recall(0, 0, 0))])
    assert total.criteria["tone"] is None and total.average is None and total.recall is None


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("4/5", 4),
        ("<3>", 3),
        ("**2**", 2),
        ("45", None),
        ("6", None),
        ("4.5", None),
        ("3/10", None),
        ("good", None),
    ],
)
def test_section_5c_one_digit(said: str, value: int | None) -> None:
    assert read_grades(f"Fine.\nTone: {said}\n").get("tone") == value


def test_section_5d_a_call_for_each_claim() -> None:
    def answer(call: JudgeCall) -> str:
        number = int(call.user.split()[2])
        return "True, it does." if number < 3 else "no" if number < 7 else "perhaps"

    judge = Scripted(answer)
    found = asyncio.run(
        recall(judge, claims=[f"claim {at}" for at in range(8)], response="The reply.")
    )
    assert len({call.user for call in judge.calls}) == 8 and found == Recall(3, 7, 8)
    assert found.value == pytest.approx(300 / 7), "a claim nobody could judge is no wrong one"


def test_a_response_is_no_example_of_its_own_grades() -> None:
    judge = Scripted(lambda call: FULL)
    with pytest.raises(ValueError, match="own grades"):
        grades(judge, [Example("q", "The  reply.\n", dict.fromkeys(CRITERIA, 5))])
    grades(judge, [Example(f"q{at}", f"other {at}", dict.fromkeys(CRITERIA, 2)) for at in range(7)])
    assert judge.calls[0].user.count("They graded so:") == 5 and "tone: 2" in judge.calls[0].user
