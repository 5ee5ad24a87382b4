"""BESPOKE's scores: grades that may be missing, claims with a call each, and the average."""

from __future__ import annotations

import asyncio

import pytest
from judge_scripts import JudgeCall, Scripted

from personabench.metrics.judges.bespoke import (
    Grades,
    check_claims,
    grade_answer,
    read_entailment,
    read_grades,
    score_answer,
    split_claims,
)

CRITERIA = ("need", "depth", "tone", "style")


def grade(judge: Scripted) -> Grades:
    return asyncio.run(grade_answer(judge, "Grade.", "The answer.", CRITERIA, 256))


def test_section_5a_scores_recall_and_average_by_hand() -> None:
    grades = dict(zip(CRITERIA, (4, 3, 5, 4), strict=True))
    scores = score_answer(grades, [True] * 3 + [False] * 5, CRITERIA)
    assert scores == {
        **{"need": 80, "depth": 60, "tone": 100, "style": 80},
        **{"recall": 37.5, "average": 71.5},
    }


def test_section_5b_a_missing_grade_is_requested_again_and_then_unjudged_alone() -> None:
    judge = Scripted(lambda call: "It fits.\nneed: 4\ndepth: <3>\nstyle: 5/5")
    graded = grade(judge)
    assert graded.grades == {"need": 4, "depth": 3, "style": 5}
    assert graded.attempts == 4
    assert [call.repeat for call in judge.calls] == [0, 1, 2, 3]
    assert not any(call.cached for call in judge.calls)
    scores = score_answer(graded.grades, [True], CRITERIA)
    assert "tone" not in scores and "average" not in scores
    assert scores["recall"] == 100


def test_a_grade_of_an_earlier_reply_stays_when_another_is_requested_again() -> None:
    replies = iter(["need: 4\ndepth: 3\nstyle: 5", "need: 1\ntone: 2"])
    graded = grade(Scripted(lambda call: next(replies)))
    assert graded.grades == {"need": 4, "depth": 3, "tone": 2, "style": 5}
    assert graded.attempts == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tone: 4", 4),
        ("tone: 4/5", 4),
        ("Tone: <4>", 4),
        ("**tone**: 4.", 4),
        ("- tone: 4", 4),
        ("tone: 45", None),
        ("tone: 6", None),
        ("tone: 0", None),
        ("tone: 4 or 5", None),
        ("tone: four", None),
        ("tone: 4\ntone: 5", None),
    ],
)
def test_section_5c_one_digit_from_1_to_5(line: str, expected: int | None) -> None:
    assert read_grades(line, CRITERIA).get("tone") == expected


def test_section_5d_every_claim_is_one_call() -> None:
    def answer(call: JudgeCall) -> str:
        return "yes, it says so" if "claim 3" in call.user else "No."

    judge = Scripted(answer)
    claims = [f"claim {number}" for number in range(8)]
    entailed = asyncio.run(check_claims(judge, claims, "An answer."))
    assert len(judge.calls) == 8
    assert entailed == [number == 3 for number in range(8)]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [("True", True), ("no: not stated", False), ("Perhaps", None), ("yes\nno", None), ("", None)],
)
def test_the_first_word_says_whether_a_claim_is_contained(
    reply: str, expected: bool | None
) -> None:
    assert read_entailment(reply) is expected


def test_without_claims_there_is_no_recall_and_an_average_of_the_criteria() -> None:
    scores = score_answer(dict.fromkeys(CRITERIA, 3), [], CRITERIA)
    assert "recall" not in scores and scores["average"] == 60


def test_an_unjudged_claim_leaves_recall_and_takes_the_average_with_it() -> None:
    scores = score_answer(dict.fromkeys(CRITERIA, 3), [True, None], CRITERIA)
    assert scores["recall"] == 100 and "average" not in scores


def test_references_are_split_into_sentences_and_lines() -> None:
    assert split_claims(["Take the bus. It is cheap!\n- Runs daily", "…"]) == [
        "Take the bus.",
        "It is cheap!",
        "Runs daily",
    ]
