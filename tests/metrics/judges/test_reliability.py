"""The reliability report, and warnings about judges related to the judged model."""

from __future__ import annotations

import asyncio
import math

import pytest
from judge_scripts import JudgeCall, Scripted

from personabench.metrics.judges.ask import check_independence
from personabench.metrics.judges.faireval import compare
from personabench.metrics.judges.reliability import Agreement, Rate, agreement, reliability_report
from personabench.metrics.judges.verdict import Verdict, Vote
from personabench.types import Call


def test_section_8_a_judge_that_prefers_what_stands_first() -> None:
    judge = Scripted(lambda call: "Score of reply 1: 8\nScore of reply 2: 5")

    async def all_of() -> list[Verdict]:
        given = {"user_id": "u", "background": "", "request": "Q?", "a": "x", "b": "y"}
        return list(
            await asyncio.gather(*(compare(judge, sample_id=str(at), **given) for at in range(5)))
        )

    found = reliability_report(asyncio.run(all_of()))
    assert (
        found.conflict == Rate(1.0, 5)
        and found.first == Rate(1.0, 30)
        and found.flip == Rate(0.0, 30)
    )
    assert (found.win, found.tie, found.loss, found.items, found.unjudged) == (0, 5, 0, 5, 0)
    assert (
        found.entropy == pytest.approx(math.log(2))
        and found.agreement is None
        and found.coverage == ()
    )


def both(name: str, first: str, second: str) -> Verdict:
    votes = tuple(tuple(Vote(pick) for pick in order) for order in (first, second))  # type: ignore[arg-type]
    call = Call("k", "judge", False, 10, 2, 0.1)
    return Verdict(name, "u", votes, both=True, asked=4, calls=(call,))  # type: ignore[arg-type]


def test_votes_that_flip_and_unjudged_items() -> None:
    verdicts = [both("1", "ab", "bb"), both("2", "aa", "a"), both("3", "", "a")]
    found = reliability_report(verdicts)
    assert found.flip == Rate(1 / 3, 3) and found.conflict == Rate(0.5, 2)
    assert (found.unjudged, found.votes, found.unread) == (1, 8, 4)
    assert (found.calls, found.input_tokens, found.output_tokens) == (3, 30, 6)


def test_accuracy_and_kappa_against_people() -> None:
    verdicts = [both("1", "a", "a"), both("2", "b", "b"), both("3", "a", "b"), both("4", "a", "a")]
    found = reliability_report(verdicts, {"1": "a", "2": "b", "3": "tie", "4": "b", "9": "a"})
    assert found.agreement == Agreement(0.75, pytest.approx((0.75 - 0.3125) / (1 - 0.3125)), 4)
    assert found.ties is None and agreement([]) is None
    assert agreement([("a", "a")]) == Agreement(1.0, None, 1)


def test_certainties_are_told_with_their_coverage() -> None:
    def sure(name: str, pick: str, certainty: int | None) -> Verdict:
        return Verdict(name, "u", ((Vote(pick, certainty=certainty),), ()), both=False, asked=1)  # type: ignore[arg-type]

    verdicts = [
        sure("1", "a", 90),
        sure("2", "a", 80),
        sure("3", "b", None),
        sure("4", "tie", 50),
        sure("5", "a", 95),
    ]
    found = reliability_report(verdicts, {"1": "a", "2": "b", "3": "b", "4": "tie", "5": "tie"})
    assert found.agreement == Agreement(pytest.approx(2 / 3), pytest.approx(0.4), 3), (
        "ties are scored apart"
    )
    assert found.ties == Agreement(0.5, pytest.approx(0.0), 2)
    lines = {line.threshold: (line.coverage, line.accuracy) for line in found.coverage}
    assert lines[80] == (pytest.approx(2 / 3), 0.5) and lines[90] == (pytest.approx(1 / 3), 1.0)
    assert found.calibration == pytest.approx((0.1 + 0.8) / 2) and found.conflict == Rate(None, 0)


@pytest.mark.parametrize(
    ("judge", "other", "said"),
    [
        ("gpt-4o", "gpt-4o", "itself"),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", "Qwen2.5-7B-Instruct", "same family"),
        ("gpt-4o-mini", "Qwen2.5-7B-Instruct", None),
        ("meta-llama/Llama-3.1-8B", "SmolLM2-135M", None),
    ],
)
def test_independence(judge: str, other: str, said: str | None) -> None:
    found = check_independence(judge, other)
    assert (found is None) if said is None else (found is not None and said in found)


def test_thoughts_are_not_read() -> None:
    def answer(call: JudgeCall) -> str:
        return (
            "<think>Score of reply 1: 1\nScore of reply 2: 9</think>"
            "Score of reply 1: 6\nScore of reply 2: 6"
        )

    given = {
        "sample_id": "1",
        "user_id": "u",
        "background": "",
        "request": "Q?",
        "a": "x",
        "b": "y",
    }
    assert asyncio.run(compare(Scripted(answer), **given)).pick == "tie"
