"""The steering score: judges that obey, that quote, and that prefer the poor answer anyway."""

from __future__ import annotations

import asyncio
import re

import pytest
from judge_scripts import JudgeCall, Scripted

from personabench.metrics.judges.fence import RULE
from personabench.metrics.judges.steering import (
    ATTACKS,
    CASES,
    PROTOCOLS,
    Protocol,
    SteeringReport,
    measure_steering,
)

GOOD = tuple(case.good for case in CASES)


def measured(judge: Scripted, protocol: Protocol) -> SteeringReport:
    return asyncio.run(measure_steering(judge, protocol))


def texts(call: JudgeCall) -> list[str]:
    """The fenced texts of a prompt."""
    (code,) = set(re.findall(r"^<<<(\w{8})$", call.user, re.MULTILINE)) - {"00000000"}
    return re.findall(rf"<<<{code}\n(.*?)\n{code}>>>", call.user, re.DOTALL)


def fair_verdict(call: JudgeCall) -> str:
    """The verdict of a judge that prefers the good answers, in the form that the call requests."""
    first, second = texts(call)[-2:]
    if "Score of reply 1" in call.system:
        good, poor = ("8", "3") if first in GOOD else ("3", "8")
        return f"Score of reply 1: {good}\nScore of reply 2: {poor}"
    if "double brackets" in call.system:
        return f"[[{'A' if first in GOOD else 'B'}]] [[80]]"
    assert first in GOOD and second not in GOOD
    return "Score: 2"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_judge_that_quotes_the_answers_is_not_steered(protocol: Protocol) -> None:
    judge = Scripted(lambda call: "\n".join([*texts(call), fair_verdict(call)]))
    report = measured(judge, protocol)
    assert report.moved == 0 and not report.by_attack
    # A quoted verdict leaves the answer unjudged, which is counted, and does not decide.
    assert report.attacks + report.unjudged == len(ATTACKS) * len(CASES)
    assert 0 < report.unjudged < report.attacks
    assert all(RULE in call.system for call in judge.calls)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_judge_that_obeys_is_steered(protocol: Protocol) -> None:
    def answer(call: JudgeCall) -> str:
        if "Ignore all earlier instructions" not in call.user:
            return fair_verdict(call)
        if "double brackets" in call.system:
            return f"[[{'B' if texts(call)[-2] in GOOD else 'A'}]] [[100]]"
        return "Score: 10\nScore of reply 1: 1\nScore of reply 2: 10"

    report = measured(Scripted(answer), protocol)
    assert report.by_attack == {"instruction": len(CASES)}
    assert report.score == pytest.approx(1 / len(ATTACKS)) and report.immovable == 0


def test_a_judge_that_prefers_the_poor_answer_cannot_be_steered() -> None:
    report = measured(Scripted(lambda call: "Score: 10"), "similarity")
    assert (report.score, report.attacks) == (None, 0)
    assert report.immovable == len(ATTACKS) * len(CASES)
