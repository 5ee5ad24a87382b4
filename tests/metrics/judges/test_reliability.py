"""The reliability report, and warnings about judges related to the judged model."""

from __future__ import annotations

import asyncio
import math

import pytest
from judge_scripts import JudgeCall, Scripted

from personabench.metrics.judges.ask import check_independence
from personabench.metrics.judges.faireval import compare
from personabench.metrics.judges.reliability import (
    Agreement,
    Rate,
    ReliabilityReport,
    agreement,
    reliability_report,
)
from personabench.metrics.judges.verdict import Pick, Verdict, Vote
from personabench.types import Call


def test_section_8_a_judge_that_prefers_the_first_answer() -> None:
    judge = Scripted(lambda call: "Score of reply 1: 8\nScore of reply 2: 5")

    async def judge_all() -> list[Verdict]:
        arguments = {"user_id": "u", "background": "", "request": "Q?", "a": "x", "b": "y"}
        return list(
            await asyncio.gather(
                *(compare(judge, sample_id=str(index), **arguments) for index in range(5))
            )
        )

    report = reliability_report(asyncio.run(judge_all()))
    assert (
        report.conflict == Rate(1.0, 5)
        and report.first == Rate(1.0, 30)
        and report.flip == Rate(0.0, 30)
    )
    assert (report.win, report.tie, report.loss, report.items, report.unjudged) == (0, 5, 0, 5, 0)
    assert (
        report.entropy == pytest.approx(math.log(2))
        and report.agreement is None
        and report.coverage == ()
    )


def both(name: str, first: str, second: str) -> Verdict:
    votes = tuple(tuple(Vote(pick) for pick in order) for order in (first, second))  # type: ignore[arg-type]
    call = Call("k", "judge", False, 10, 2, 0.1)
    return Verdict(name, "u", votes, both=True, asked=4, calls=(call,))  # type: ignore[arg-type]


def test_votes_that_flip_and_unjudged_items() -> None:
    verdicts = [both("1", "ab", "bb"), both("2", "aa", "a"), both("3", "", "a")]
    report = reliability_report(verdicts)
    assert report.flip == Rate(1 / 3, 3) and report.conflict == Rate(0.5, 2)
    assert (report.unjudged, report.votes, report.unparsed) == (1, 8, 4)
    assert (report.calls, report.input_tokens, report.output_tokens) == (3, 30, 6)


def test_accuracy_and_kappa_against_labels() -> None:
    verdicts = [both("1", "a", "a"), both("2", "b", "b"), both("3", "a", "b"), both("4", "a", "a")]
    report = reliability_report(verdicts, {"1": "a", "2": "b", "3": "tie", "4": "b", "9": "a"})
    assert report.agreement == Agreement(0.75, pytest.approx((0.75 - 0.3125) / (1 - 0.3125)), 4)
    assert report.ties is None and agreement([]) is None
    assert agreement([("a", "a")]) == Agreement(1.0, None, 1)


def test_certainties_are_reported_with_their_coverage() -> None:
    def sure(name: str, pick: str, certainty: int | None) -> Verdict:
        return Verdict(name, "u", ((Vote(pick, certainty=certainty),), ()), both=False, asked=1)  # type: ignore[arg-type]

    verdicts = [
        sure("1", "a", 90),
        sure("2", "a", 80),
        sure("3", "b", None),
        sure("4", "tie", 50),
        sure("5", "a", 95),
    ]
    report = reliability_report(verdicts, {"1": "a", "2": "b", "3": "b", "4": "tie", "5": "tie"})
    assert report.agreement == Agreement(pytest.approx(2 / 3), pytest.approx(0.4), 3), (
        "ties are scored apart"
    )
    assert report.ties == Agreement(0.5, pytest.approx(0.0), 2)
    levels = {level.threshold: (level.coverage, level.accuracy) for level in report.coverage}
    assert levels[80] == (pytest.approx(2 / 3), 0.5) and levels[90] == (pytest.approx(1 / 3), 1.0)
    assert report.calibration == pytest.approx((0.1 + 0.8) / 2) and report.conflict == Rate(None, 0)


@pytest.mark.parametrize(
    ("judge", "model", "part"),
    [
        ("gpt-4o", "gpt-4o", "itself"),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", "Qwen2.5-7B-Instruct", "same family"),
        ("gpt-4o-mini", "Qwen2.5-7B-Instruct", None),
        ("meta-llama/Llama-3.1-8B", "SmolLM2-135M", None),
    ],
)
def test_independence(judge: str, model: str, part: str | None) -> None:
    warning = check_independence(judge, model)
    assert (warning is None) if part is None else (warning is not None and part in warning)


def test_thoughts_are_not_read() -> None:
    def answer(call: JudgeCall) -> str:
        return (
            "<think>Score of reply 1: 1\nScore of reply 2: 9</think>"
            "Score of reply 1: 6\nScore of reply 2: 6"
        )

    arguments = {
        "sample_id": "1",
        "user_id": "u",
        "background": "",
        "request": "Q?",
        "a": "x",
        "b": "y",
    }
    assert asyncio.run(compare(Scripted(answer), **arguments)).pick == "tie"


@pytest.mark.parametrize("both", [True, False])
def test_certainties_do_not_change_which_items_count(both: bool) -> None:
    picks: list[tuple[Pick, Pick]] = [("a", "a"), ("tie", "b"), ("b", "tie"), ("b", "a")]
    labels = {f"{number}": label for number, (_, label) in enumerate(picks)}

    def report(certain: int) -> ReliabilityReport:
        verdicts = []
        for number, (pick, _) in enumerate(picks):
            vote = Vote(pick, certainty=90 if number < certain else None)
            orders = ((vote,), (vote,) if both else ())
            verdicts.append(Verdict(f"{number}", "u", orders, both=both, asked=1 + both))
        return reliability_report(verdicts, labels)

    none, few = report(0), report(1)
    assert few.agreement == none.agreement and few.ties == none.ties
    assert none.agreement is not None
    assert (none.agreement.accuracy, none.agreement.n) == ((0.25, 4) if both else (0.5, 2))
