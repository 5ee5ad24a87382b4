"""The judge in a person's place: what counts as a choice and as a certainty, coverage and calibration."""

from __future__ import annotations

import asyncio

import pytest
from judge_scripts import JudgeCall, Scripted

from personabench.metrics.judges.ask import swapped
from personabench.metrics.judges.verbal_certainty import (
    Choice,
    Line,
    bin_of,
    calibration_error,
    coverage,
    prefer,
    read,
)
from personabench.metrics.judges.verdict import Verdict


def test_section_2a_coverage_and_calibration() -> None:
    answers = [(90, True), (80, False), (60, True), (50, False)]
    lines = {line.threshold: line for line in coverage(answers)}
    assert (
        lines[80] == Line(80, 0.5, 0.5)
        and lines[90] == Line(90, 0.25, 1.0)
        and lines[0] == Line(0, 1.0, 0.5)
    )
    assert calibration_error(answers) == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("[[B]] [[85]]", Choice("B", 85)),
        ("[[ A ]]\n[[Certainty: 40]]", Choice("A", 40)),
        ("Answer 2 is better", None),
        ("A 85", None),
        ("[[A]] I am 90 sure", Choice("A", None)),
        ("[[A]] [[0]] [[101]] [[7]]", Choice("A", 7)),
        ("[[70]] [[A]]", Choice("A", None)),
        ("[[C]] [[50]]", None),
    ],
)
def test_section_2b_choices_and_certainties(reply: str, choice: Choice | None) -> None:
    assert read(reply) == choice


def test_section_2b_a_choice_without_certainty_counts_in_accuracy_alone() -> None:
    lines = coverage([(None, True), (90, False)])
    assert lines[0] == Line(0, 0.5, 0.0), "answered, but not certain of anything"
    assert (
        calibration_error([(None, True)]) is None
        and calibration_error([(None, True), (90, False)]) == 0.9
    )


def test_section_2c_bins() -> None:
    assert [bin_of(certainty) for certainty in (100, 99, 85, 40, 15, 1)] == [9, 9, 8, 4, 4, 4]


def test_a_tie_is_a_choice_only_where_it_may_be() -> None:
    assert read("[[C]] [[50]]", tie=True) == Choice("C", 50)


def asked(judge: Scripted, name: str, tie: bool = False) -> Verdict:
    found = prefer(
        judge, sample_id=name, user_id="u", known="Likes tea.", request="Q?", a="x", b="y", tie=tie
    )
    return asyncio.run(found)


def test_a_hash_says_what_stands_first_and_the_choice_is_mapped_back() -> None:
    names = [str(at) for at in range(20)]
    turned = {name for name in names if swapped(name, 0)}
    assert 0 < len(turned) < 20 and turned != {name for name in names if swapped(name, 1)}
    for name in names:
        judge = Scripted(lambda call: "[[A]] [[70]]")
        verdict = asked(judge, name)
        assert ("Answer A:\ny" in judge.calls[0].user) == (name in turned)
        assert verdict.pick == ("b" if name in turned else "a") and verdict.certainty == 70
        assert verdict.firsts == (1, 1) and verdict.conflict is None and verdict.judged


def test_a_reply_without_a_choice_is_repeated_and_then_unjudged() -> None:
    def answer(call: JudgeCall) -> str:
        return "[[B]] [[60]]" if call.repeat == 2 else "B"

    judge = Scripted(answer)
    assert asked(judge, "1").judged and [call.repeat for call in judge.calls] == [0, 1, 2]
    assert [call.kept for call in judge.calls] == [False, False, True]
    never = asked(Scripted(lambda call: "B"), "1")
    assert not never.judged and never.asked == 4 and never.pick is None


def test_the_prompt_offers_a_tie_only_where_it_may_be() -> None:
    plain, open_ = Scripted(lambda call: "[[A]]"), Scripted(lambda call: "[[C]]")
    asked(plain, "1")
    assert asked(open_, "1", tie=True).pick == "tie"
    assert "C where" in open_.calls[0].system and "C where" not in plain.calls[0].system
