"""PrefDisco's numbers: grades, PrefAlign, NormAlign, correctness, and what is done when a judge fails."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from prefdisco_files import WANTS, graded, play, row, said, written

from personabench import Request
from personabench.tasks.prefdisco.__main__ import main, problem_of
from personabench.tasks.prefdisco.files import Criterion, Preference
from personabench.tasks.prefdisco.grading import (
    prefalign,
    read_correct,
    read_grade,
    result_of,
    selected,
    weights,
)
from personabench.tasks.prefdisco.scoring import by_problem, normalign, parts
from personabench.tasks.prefdisco.sources import Problem

NAMES = tuple(WANTS)
PREFERENCES = {name: Preference(value, importance) for name, (value, importance) in WANTS.items()}
CRITERIA = [
    Criterion(name, "", weight, {}) for name, weight in zip(NAMES, (0.2, 0.2, 0.8), strict=True)
]
SHARE = weights(CRITERIA, PREFERENCES, "importance")


def aligned(*grades: int | None) -> float | None:
    return prefalign(dict(zip(NAMES, grades, strict=True)), SHARE)


def test_acceptance_1_formulas() -> None:
    base, discovery, known = aligned(2, 3, 1), aligned(4, 3, 2), aligned(5, 4, 4)
    assert (base, discovery, known) == (pytest.approx(2.1), pytest.approx(3.3), pytest.approx(4.5))
    rows = np.array([[base, known, discovery]], dtype=float)
    assert normalign(rows) == pytest.approx(50.0)
    assert normalign(rows - 1) == pytest.approx(50.0)
    assert math.isnan(normalign(np.array([[2.1, 2.15, 3.3]])))
    assert normalign(np.array([[2.0, 2.1, 2.1]])) == pytest.approx(100.0)


def test_normalign_is_computed_from_means_and_not_per_record() -> None:
    rows = np.array([[1.0, 2.0, 2.0], [1.0, 5.0, 1.0]])
    assert normalign(rows) == pytest.approx(20.0), "the mean of the records' own would be 50"


def test_weights_always_sum_to_one() -> None:
    assert SHARE == {"Length": 0.5, "Tone": 0.3, "Order": 0.2}
    assert weights(CRITERIA, PREFERENCES, "rubric") == pytest.approx(
        {"Length": 1 / 6, "Tone": 1 / 6, "Order": 4 / 6}
    )
    assert weights(CRITERIA[:2], PREFERENCES, "importance") == pytest.approx(
        {"Length": 5 / 8, "Tone": 3 / 8}
    )
    unweighted = [Criterion(name, "", 0.0, {}) for name in NAMES]
    assert set(weights(unweighted, PREFERENCES, "rubric").values()) == {1 / 3}


def test_acceptance_6_judge_failures(tmp_path: Path) -> None:
    assert [read_grade(json.dumps({"score": bad})) for bad in (7, 0, "high", None, 3.5, True)] == [
        None
    ] * 6
    assert [read_grade(text) for text in ("", "3", '{"score": 4}', '{"score": "5"}')] == [
        None,
        None,
        4,
        5,
    ]
    assert (
        read_grade('{"score": ' + "[" * 6000) is None
        and read_grade('{"score": 1' + "0" * 400 + "}") is None
    )
    assert [
        read_grade('<think>{"score": 1}</think> {"score": 2}'),
        read_correct('{"correct": true}'),
    ] == [2, 1]
    assert aligned(4, 3, None) == pytest.approx((5 * 4 + 3 * 3) / 8), "weights renormalise"
    assert aligned(None, 3, 2) is None and aligned(4, None, 2) is None, "below 80 % of the weight"
    assert aligned(None, None, None) is None

    def failing(request: Request) -> str:
        text = request.messages[-1].content
        return graded()(request) if "Criterion: Order" not in text else json.dumps({"score": 7})

    data = written(tmp_path / "data", [row(0, "ann"), row(1, "ann", {**WANTS, "Order": ("x", 5)})])
    played = play(
        tmp_path / "results",
        data,
        lambda request: "It is B." + request.messages[0].content,
        judge=failing,
    )
    asked = Counter(
        (request.messages[-1].content, request.repeat)
        for request in played.roles["judge"].requests
        if "Criterion: Order" in request.messages[-1].content
    )
    assert set(asked.values()) == {1} and {repeat for _, repeat in asked} == {0, 1, 2, 3}
    assert played.summary["counters"]["unjudged"] == 1, "Order carries 5 of 13 in the second record"
    assert played.metrics["prefalign"] == pytest.approx(3), "nothing becomes 1"
    assert (played.summary["n"], played.summary["counters"]["criteria_missing"]) == (2, 4)


def test_acceptance_7_intersection(tmp_path: Path) -> None:
    """Four records; the simulated user fails on one, which then counts in no condition."""
    data = written(tmp_path / "data", [row(number, "ann") for number in range(4)])

    def answer(request: Request) -> str:
        told = request.messages[0]
        if not told.content.startswith("You help one"):
            return "fully told" if told.role == "system" else "untold"
        if "complete final answer" in request.messages[-1].content:
            return "found out"
        number = request.messages[1].content.partition("number ")[2][0]
        return f"Action: ask_question\nResponse: A question for {number}?"

    def simulator(request: Request) -> str:
        return "{" if "A question for 2?" in request.messages[-1].content else said("Short.")

    grades = {"found out": 3, "fully told": 5, "untold": 1}
    judge = graded(lambda text: grades[text.splitlines()[1]])
    played = play(tmp_path / "results", data, answer, simulator=simulator, judge=judge)
    assert (played.summary["n"], played.summary["owed"]) == (3, 1)
    assert played.summary["counters"]["request_errors"] == 1, "n_skipped"
    assert played.metrics["normalign"] == pytest.approx(50)


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("The answer is B.", True),
        ("I think **Answer: (b)**", True),
        ("The correct option is C because it is the third.", False),
        ("The answer is not A. So the answer: B", True),
        ("Answer: A\n\nNo: the right answer is B", True),
        (r"Thus \boxed{B}", True),
        ("B", True),
        ("(b).", True),
        ("second thing", True),
        ("The answer is a matter of taste.", None),
        ("It takes the second thing.", None),
        ("B comes before C.", None),
        ("Solution: B and C are both heavier.", None),
        ("The answer is A thing.", None),
    ],
)
def test_letters_are_read_where_they_are_announced(response: str, right: bool | None) -> None:
    problem = Problem("Which?", {"A": "first thing", "B": "second thing", "C": "third thing"}, "B")
    assert result_of(problem, response) is right


@pytest.mark.parametrize(
    ("gold", "response", "right"),
    [
        ("4.5", "The answer is 4.5 kilograms.", True),
        ("4.5", "4.50", True),
        ("4.5", "The answer is 4,500 grams.", None),
        ("4.5", r"so \boxed{4.6}", False),
        ("4.5", "4.6", False),
        ("3", "The result is 3 times 4, which is 12.", None),
        ("4.5", "The answer is 4.5 million.", None),
        ("1200", r"so \boxed{1{,}200}", True),
        ("1200", "The result is 1,200.", True),
        (r"\frac{1}{2}", r"\boxed{\dfrac{1}{2}}", True),
        (r"\frac{1}{2}", "The answer is 1/2.", True),
        (r"\frac{1}{2}", "The answer is 0.5", True),
        (r"x^2+1", r"\boxed{x^2+1}", True),
        (r"x^2+1", r"\boxed{1+x^2}", None),
        ("Lisbon", "lisbon.", True),
        ("Lisbon", "It is Porto.", None),
        ("7", "There are several ways, 7 of them good.", None),
    ],
)
def test_numbers_and_texts_are_compared_exactly(
    gold: str, response: str, right: bool | None
) -> None:
    assert result_of(Problem("How many?", {}, gold), response) is right


@pytest.mark.parametrize(
    ("mode", "reply", "asked"),
    [
        ("parser", "The answer is B.", 0),
        ("official", "The answer is B.", 3),
        ("parser", "Well.", 3),
    ],
)
def test_acceptance_9_correctness(tmp_path: Path, mode: str, reply: str, asked: int) -> None:
    data = written(tmp_path / "data", [row(0, "ann")])

    def answer(request: Request) -> str:
        return f"{reply}\n{len(request.messages)}"

    played = play(tmp_path / "results", data, answer, assignments=[f"task.correctness={mode}"])
    judged = [
        text
        for request in played.roles["judge"].requests
        if "Reference answer: B" in (text := request.messages[-1].content)
    ]
    assert len(judged) == asked and played.metrics["accuracy"] == 1.0
    (line,) = (played.outcomes[0].folder / "judgements").iterdir()
    decided = {
        told["decided"] for told in json.loads(line.read_text())["values"]["conditions"].values()
    }
    assert decided == {"judge" if asked else "parser"}


def test_a_correctness_nobody_can_read_is_missing_and_not_wrong(tmp_path: Path) -> None:
    data = written(tmp_path / "data", [row(0, "ann")])
    played = play(tmp_path / "results", data, lambda _: "Well.", judge=graded(correct="perhaps"))
    assert "accuracy" not in played.metrics and played.metrics["prefalign"] == 3.0
    assert played.summary["counters"]["correctness_unjudged"] == 3


def test_acceptance_10_judge_count(tmp_path: Path) -> None:
    data = written(tmp_path / "data", [row(0, "ann")])

    def answer(request: Request) -> str:
        return f"The answer is B.\n{request.messages[0].content[:20]}{len(request.messages)}"

    first = play(tmp_path / "results", data, answer)
    requests = first.roles["judge"].requests
    assert len(requests) == 9 and all(
        "Criterion:" in request.messages[-1].content for request in requests
    )
    assert not any(
        "problem number" in message.content for request in requests for message in request.messages
    )
    assert {request.temperature for request in requests} == {0.1}
    again = play(tmp_path / "results", data, answer)
    assert again.roles["judge"].requests == [] and again.model.requests == []
    other = play(
        tmp_path / "results", data, answer, judge_name="another", judge=graded(lambda _: 5)
    )
    assert len(other.roles["judge"].requests) == 9 and other.model.requests == []
    assert (first.metrics["prefalign"], other.metrics["prefalign"]) == (3.0, 5.0)
    assert other.metrics["normalign"] is None, "known is no better than none"


def test_fewer_criteria_are_the_same_in_all_conditions_and_change_no_answer(tmp_path: Path) -> None:
    criteria = [Criterion(f"c{number}", "", 0.1, {}) for number in range(10)]
    drawn = selected(criteria, "problem_0_ann", 4)
    assert drawn == selected(criteria, "problem_0_ann", 4) and len(drawn) == 4
    assert drawn == sorted(drawn, key=criteria.index)
    assert drawn != selected(criteria, "problem_1_ann", 4)
    assert (
        selected(criteria, "problem_0_ann", 0)
        == selected(criteria, "problem_0_ann", 99)
        == criteria
    )

    data = written(tmp_path / "data", [row(0, "ann")])
    play(tmp_path / "results", data, lambda request: f"The answer is B.\n{len(request.messages)}")
    fewer = play(
        tmp_path / "results",
        data,
        lambda request: f"The answer is B.\n{len(request.messages)}",
        assignments=["task.max_criteria=1"],
    )
    assert fewer.model.requests == [], "the judge's options are no part of the run"
    assert fewer.summary["task_changed"]["max_criteria"] == 1
    (name,) = {
        json.loads(text)["values"]["weights"].popitem()[0]
        for path in (fewer.outcomes[0].folder / "judgements").iterdir()
        if len(json.loads(text := path.read_text())["values"]["weights"]) == 1
    }
    assert name in WANTS


def test_acceptance_16_seen_and_unseen() -> None:
    grades = {"a": 5, "b": 1, "c": 3}
    share = {"a": 0.5, "b": 0.3, "c": 0.2}
    old, new, seen = parts(grades, share, {"a", "c"})
    assert (old, new, seen) == (pytest.approx(4.43, abs=0.005), 1, pytest.approx(0.7))
    assert parts(grades, share, set())[0] is None and parts(grades, share, set(grades))[1] is None


def test_the_interval_of_normalign_draws_problems() -> None:
    rng = np.random.default_rng(1)
    rows = np.column_stack([rng.normal(2, 0.1, 60), rng.normal(4, 0.1, 60), rng.normal(3, 0.1, 60)])
    found = by_problem(rows, [str(number % 12) for number in range(60)])
    assert found is not None and found[0] < 50 < found[1] and found[1] - found[0] < 6
    assert by_problem(rows, ["one"] * 60) is None
    assert {problem_of("problem_3_ann", "ann"), problem_of("problem_3_bo_b", "b")} == {"problem_3_"}
    assert {problem_of("quiz_a_1_ann", "ann"), problem_of("quiz_a_1_bob", "bob")} == {"quiz_a_1_"}
    assert by_problem(np.tile([2.0, 2.0, 3.0], (60, 1)), [str(at) for at in range(60)]) is None


def test_the_report_tells_a_runs_numbers_by_condition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = written(tmp_path / "data", [row(number, "ann") for number in range(3)])

    def answer(request: Request) -> str:
        return f"{len(request.messages)} messages, the answer is B."

    grades = {"1": 2, "2": 5, "4": 4}
    runs = [
        play(
            tmp_path / name,
            data,
            answer,
            judge=graded(lambda text: grades[text.splitlines()[1][0]]),
            limit=9,
        )
        for name in ("one", "two")
    ]
    folders = [str(played.outcomes[0].folder) for played in runs]
    assert main(folders) == 0
    told = capsys.readouterr().out
    for line in (
        "model tested, simulator simulated, judge judge",
        "scored 3, skipped 0, unjudged 0; criteria of a record: 3; options: default",
        "no preference         2.000     1.000 (n=3)",
        "known persona         5.000     1.000 (n=3)",
        "final                 4.000     1.000 (n=3)",
        "NormAlign, final: 66.7, 95 % interval over problems 66.7 to 66.7",
        "questions: mean 0.00, none in 100%",
        "correctness decided by: parser 9",
        "lift in PrefAlign: +0.000 (own over own history, n=3)",
    ):
        assert line in told, line
    assert main([str(tmp_path)]) == 2
    assert "not a finished run folder" in capsys.readouterr().err
