"""The judge in the user's place: parsing of choices and certainties, coverage, calibration."""

from __future__ import annotations

import asyncio

import pytest
from judge_scripts import JudgeCall, Scripted

from personabench.metrics.judges.ask import is_swapped
from personabench.metrics.judges.verbal_certainty import (
    Choice,
    CoverageLevel,
    calibration_error,
    coverage_levels,
    judge_preference,
    read_choice,
)
from personabench.metrics.judges.verdict import Verdict


def test_section_2a_coverage_and_calibration() -> None:
    answers = [(90, True), (80, False), (60, True), (50, False)]
    levels = {level.threshold: level for level in coverage_levels(answers)}
    assert (
        levels[80] == CoverageLevel(80, 0.5, 0.5)
        and levels[90] == CoverageLevel(90, 0.25, 1.0)
        and levels[0] == CoverageLevel(0, 1.0, 0.5)
    )
    assert calibration_error(answers) == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("[[B]] [[85]]", Choice("B", 85)),
        ("[[ A ]]\n[[Certainty: 40]]", Choice("A", 40)),
        ("Answer 2 is better", None),
        ("A 85", None),
        ("[[A]] I am 90 sure", None),
        ("Answer: [[A]]", Choice("A", None)),
        ("It says [[B]] [[100]].\n[[A]] [[60]]", Choice("A", 60)),
        ("[[B]] [[100]]\n[[A]] [[60]]", None),
        ("[[A]] [[0]] [[101]] [[7]]", Choice("A", 7)),
        ("[[70]] [[A]]", Choice("A", None)),
        ("[[C]] [[50]]", None),
    ],
)
def test_section_2b_choices_and_certainties(reply: str, choice: Choice | None) -> None:
    assert read_choice(reply) == choice


def test_section_2b_a_choice_without_certainty_counts_in_accuracy_alone() -> None:
    levels = coverage_levels([(None, True), (90, False)])
    assert levels[0] == CoverageLevel(0, 0.5, 0.0), "answered, but not certain of anything"
    assert (
        calibration_error([(None, True)]) is None
        and calibration_error([(None, True), (90, False)]) == 0.9
    )


def test_a_tie_is_a_choice_only_if_allowed() -> None:
    assert read_choice("[[C]] [[50]]", tie=True) == Choice("C", 50)


def judge_with(judge: Scripted, sample_id: str, tie: bool = False) -> Verdict:
    verdict = judge_preference(
        judge,
        sample_id=sample_id,
        user_id="u",
        background="Likes tea.",
        request="Q?",
        a="x",
        b="y",
        tie=tie,
    )
    return asyncio.run(verdict)


def test_a_hash_decides_the_order_and_the_choice_is_mapped_back() -> None:
    sample_ids = [str(index) for index in range(20)]
    swapped = {sample_id for sample_id in sample_ids if is_swapped(sample_id, 0)}
    assert 0 < len(swapped) < 20 and swapped != {
        sample_id for sample_id in sample_ids if is_swapped(sample_id, 1)
    }
    for sample_id in sample_ids:
        judge = Scripted(lambda call: "[[A]] [[70]]")
        verdict = judge_with(judge, sample_id)
        code = judge.calls[0].user.splitlines()[-1]
        assert (judge.calls[0].user.endswith("\nx\n" + code)) == (sample_id in swapped)
        assert verdict.pick == ("b" if sample_id in swapped else "a") and verdict.certainty == 70
        assert verdict.first_place_counts == (1, 1) and verdict.conflict is None and verdict.judged


def test_a_reply_without_a_choice_is_repeated_and_then_unjudged() -> None:
    def answer(call: JudgeCall) -> str:
        return "[[B]] [[60]]" if call.repeat == 2 else "B"

    judge = Scripted(answer)
    assert judge_with(judge, "1").judged and [call.repeat for call in judge.calls] == [0, 1, 2]
    assert [call.cached for call in judge.calls] == [False, False, True]
    never = judge_with(Scripted(lambda call: "B"), "1")
    assert not never.judged and never.asked == 4 and never.pick is None


def test_the_prompt_offers_a_tie_only_if_allowed() -> None:
    plain, open_ = Scripted(lambda call: "[[A]]"), Scripted(lambda call: "[[C]]")
    judge_with(plain, "1")
    assert judge_with(open_, "1", tie=True).pick == "tie"
    assert "C where" in open_.calls[0].system and "C where" not in plain.calls[0].system
