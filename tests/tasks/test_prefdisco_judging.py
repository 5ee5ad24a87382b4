"""PrefDisco's metrics: grades, PrefAlign, NormAlign, correctness, and failures of a judge."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from prefdisco_files import WANTS, make_judge, make_row, play, word_reply, write_set

from personabench import Request
from personabench.tasks.prefdisco.__main__ import find_problem, main
from personabench.tasks.prefdisco.files import Criterion, Preference
from personabench.tasks.prefdisco.grading import (
    compare_result,
    compute_prefalign,
    normalize_weights,
    parse_grade,
    parse_verdict,
    select_criteria,
)
from personabench.tasks.prefdisco.scoring import (
    bootstrap_normalign,
    compute_normalign,
    split_prefalign,
)
from personabench.tasks.prefdisco.sources import Problem

NAMES = tuple(WANTS)
PREFERENCES = {name: Preference(value, importance) for name, (value, importance) in WANTS.items()}
CRITERIA = [
    Criterion(name, "", weight, {}) for name, weight in zip(NAMES, (0.2, 0.2, 0.8), strict=True)
]
SHARE = normalize_weights(CRITERIA, PREFERENCES, "importance")


def align(*grades: int | None) -> float | None:
    return compute_prefalign(dict(zip(NAMES, grades, strict=True)), SHARE)


def test_acceptance_1_formulas() -> None:
    base = align(2, 3, 1)
    discovery = align(4, 3, 2)
    informed = align(5, 4, 4)
    assert (base, discovery, informed) == (
        pytest.approx(2.1),
        pytest.approx(3.3),
        pytest.approx(4.5),
    )
    rows = np.array([[base, informed, discovery]], dtype=float)
    assert compute_normalign(rows) == pytest.approx(50.0)
    assert compute_normalign(rows - 1) == pytest.approx(50.0)
    assert math.isnan(compute_normalign(np.array([[2.1, 2.15, 3.3]])))
    assert compute_normalign(np.array([[2.0, 2.1, 2.1]])) == pytest.approx(100.0)


def test_normalign_is_computed_from_means_and_not_per_record() -> None:
    rows = np.array([[1.0, 2.0, 2.0], [1.0, 5.0, 1.0]])
    assert compute_normalign(rows) == pytest.approx(20.0), (
        "the mean of the records' own would be 50"
    )


def test_weights_always_sum_to_one() -> None:
    assert SHARE == {"Length": 0.5, "Tone": 0.3, "Order": 0.2}
    assert normalize_weights(CRITERIA, PREFERENCES, "rubric") == pytest.approx(
        {"Length": 1 / 6, "Tone": 1 / 6, "Order": 4 / 6}
    )
    assert normalize_weights(CRITERIA[:2], PREFERENCES, "importance") == pytest.approx(
        {"Length": 5 / 8, "Tone": 3 / 8}
    )
    unweighted = [Criterion(name, "", 0.0, {}) for name in NAMES]
    assert set(normalize_weights(unweighted, PREFERENCES, "rubric").values()) == {1 / 3}


def test_acceptance_6_judge_failures(tmp_path: Path) -> None:
    assert [parse_grade(json.dumps({"score": bad})) for bad in (7, 0, "high", None, 3.5, True)] == [
        None
    ] * 6
    assert [parse_grade(text) for text in ("", "3", '{"score": 4}', '{"score": "5"}')] == [
        None,
        None,
        4,
        5,
    ]
    assert parse_grade('{"score": ' + "[" * 6000) is None
    assert parse_grade('{"score": 1' + "0" * 400 + "}") is None
    assert [
        parse_grade('<think>{"score": 1}</think> {"score": 2}'),
        parse_verdict('{"correct": true}'),
    ] == [2, 1]
    assert align(4, 3, None) == pytest.approx((5 * 4 + 3 * 3) / 8), "weights renormalise"
    assert align(None, 3, 2) is None and align(4, None, 2) is None, "below 80 % of the weight"
    assert align(None, None, None) is None

    def failing(request: Request) -> str:
        text = request.messages[-1].content
        return make_judge()(request) if "Criterion: Order" not in text else json.dumps({"score": 7})

    data = write_set(
        tmp_path / "data", [make_row(0, "ann"), make_row(1, "ann", {**WANTS, "Order": ("x", 5)})]
    )
    run = play(
        tmp_path / "results",
        data,
        lambda request: "It is B." + request.messages[0].content,
        judge=failing,
    )
    requests = Counter(
        (request.messages[-1].content, request.repeat)
        for request in run.roles["judge"].requests
        if "Criterion: Order" in request.messages[-1].content
    )
    assert set(requests.values()) == {1}
    assert {repeat for _, repeat in requests} == {0, 1, 2, 3}
    assert run.summary.counters["unjudged"] == 1, "Order carries 5 of 13 in the second record"
    assert run.metrics["prefalign"] == pytest.approx(3), "nothing becomes 1"
    assert (run.summary.n, run.summary.counters["criteria_missing"]) == (2, 4)


def test_acceptance_7_intersection(tmp_path: Path) -> None:
    """Four records; the simulated user fails on one, which then counts in no condition."""
    data = write_set(tmp_path / "data", [make_row(number, "ann") for number in range(4)])

    def answer(request: Request) -> str:
        first = request.messages[0]
        if not first.content.startswith("You help one"):
            return "fully told" if first.role == "system" else "untold"
        if "complete final answer" in request.messages[-1].content:
            return "found out"
        number = request.messages[1].content.partition("number ")[2][0]
        return f"Action: ask_question\nResponse: A question for {number}?"

    def simulator(request: Request) -> str:
        return "{" if "A question for 2?" in request.messages[-1].content else word_reply("Short.")

    grades = {"found out": 3, "fully told": 5, "untold": 1}
    judge = make_judge(lambda text: grades[text.splitlines()[2]])
    run = play(tmp_path / "results", data, answer, simulator=simulator, judge=judge)
    assert (run.summary.n, run.summary.owed) == (3, 1)
    assert run.summary.counters["request_errors"] == 1, "n_skipped"
    assert run.metrics["normalign"] == pytest.approx(50)


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
    assert compare_result(problem, response) is right


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
    assert compare_result(Problem("How many?", {}, gold), response) is right


@pytest.mark.parametrize(
    ("mode", "reply", "calls"),
    [
        ("parser", "The answer is B.", 0),
        ("official", "The answer is B.", 3),
        ("parser", "Well.", 3),
    ],
)
def test_acceptance_9_correctness(tmp_path: Path, mode: str, reply: str, calls: int) -> None:
    data = write_set(tmp_path / "data", [make_row(0, "ann")])

    def answer(request: Request) -> str:
        return f"{reply}\n{len(request.messages)}"

    run = play(tmp_path / "results", data, answer, assignments=[f"task.correctness={mode}"])
    judged = [
        text
        for request in run.roles["judge"].requests
        if "\nB\n" in (text := request.messages[-1].content)
    ]
    assert len(judged) == calls
    assert run.metrics["accuracy"] == 1.0
    (line,) = (run.outcomes[0].folder / "judgements").iterdir()
    decided = {
        condition["decided"]
        for condition in json.loads(line.read_text())["values"]["conditions"].values()
    }
    assert decided == {"judge" if calls else "parser"}


def test_an_unparsed_verdict_is_missing_and_not_wrong(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", [make_row(0, "ann")])
    run = play(tmp_path / "results", data, lambda _: "Well.", judge=make_judge(correct="perhaps"))
    assert "accuracy" not in run.metrics
    assert run.metrics["prefalign"] == 3.0
    assert run.summary.counters["correctness_unjudged"] == 3


def test_acceptance_10_judge_count(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", [make_row(0, "ann")])

    def answer(request: Request) -> str:
        return f"The answer is B.\n{request.messages[0].content[:20]}{len(request.messages)}"

    first = play(tmp_path / "results", data, answer)
    requests = first.roles["judge"].requests
    assert len(requests) == 9
    assert all("Criterion:" in request.messages[-1].content for request in requests)
    assert not any(
        "problem number" in message.content for request in requests for message in request.messages
    )
    assert {request.temperature for request in requests} == {0.1}
    again = play(tmp_path / "results", data, answer)
    assert again.roles["judge"].requests == []
    assert again.model.requests == []
    rejudged = play(
        tmp_path / "results", data, answer, judge_name="another", judge=make_judge(lambda _: 5)
    )
    assert len(rejudged.roles["judge"].requests) == 9
    assert rejudged.model.requests == []
    assert (first.metrics["prefalign"], rejudged.metrics["prefalign"]) == (3.0, 5.0)
    assert rejudged.metrics["normalign"] is None, "known is no better than none"


def test_fewer_criteria_are_the_same_in_all_conditions_and_change_no_answer(tmp_path: Path) -> None:
    criteria = [Criterion(f"c{number}", "", 0.1, {}) for number in range(10)]
    selected = select_criteria(criteria, "problem_0_ann", 4)
    assert selected == select_criteria(criteria, "problem_0_ann", 4)
    assert len(selected) == 4
    assert selected == sorted(selected, key=criteria.index)
    assert selected != select_criteria(criteria, "problem_1_ann", 4)
    assert (
        select_criteria(criteria, "problem_0_ann", 0)
        == select_criteria(criteria, "problem_0_ann", 99)
        == criteria
    )

    data = write_set(tmp_path / "data", [make_row(0, "ann")])
    play(tmp_path / "results", data, lambda request: f"The answer is B.\n{len(request.messages)}")
    fewer = play(
        tmp_path / "results",
        data,
        lambda request: f"The answer is B.\n{len(request.messages)}",
        assignments=["task.max_criteria=1"],
    )
    assert fewer.model.requests == [], "the judge's options are no part of the run"
    assert fewer.summary.task_changed["max_criteria"] == 1
    (name,) = {
        json.loads(text)["values"]["weights"].popitem()[0]
        for path in (fewer.outcomes[0].folder / "judgements").iterdir()
        if len(json.loads(text := path.read_text())["values"]["weights"]) == 1
    }
    assert name in WANTS


def test_acceptance_16_seen_and_unseen() -> None:
    grades = {"a": 5, "b": 1, "c": 3}
    share = {"a": 0.5, "b": 0.3, "c": 0.2}
    old, new, seen_share = split_prefalign(grades, share, {"a", "c"})
    assert (old, new, seen_share) == (pytest.approx(4.43, abs=0.005), 1, pytest.approx(0.7))
    assert split_prefalign(grades, share, set())[0] is None
    assert split_prefalign(grades, share, set(grades))[1] is None


def test_the_interval_of_normalign_draws_problems() -> None:
    rng = np.random.default_rng(1)
    rows = np.column_stack([rng.normal(2, 0.1, 60), rng.normal(4, 0.1, 60), rng.normal(3, 0.1, 60)])
    interval = bootstrap_normalign(rows, [str(number % 12) for number in range(60)])
    assert interval is not None
    assert interval[0] < 50 < interval[1]
    assert interval[1] - interval[0] < 6
    assert bootstrap_normalign(rows, ["one"] * 60) is None
    assert {find_problem("problem_3_ann", "ann"), find_problem("problem_3_bo_b", "b")} == {
        "problem_3_"
    }
    assert {find_problem("quiz_a_1_ann", "ann"), find_problem("quiz_a_1_bob", "bob")} == {
        "quiz_a_1_"
    }
    assert (
        bootstrap_normalign(
            np.tile([2.0, 2.0, 3.0], (60, 1)), [str(number) for number in range(60)]
        )
        is None
    )


def test_the_report_shows_a_runs_metrics_by_condition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_set(tmp_path / "data", [make_row(number, "ann") for number in range(3)])

    def answer(request: Request) -> str:
        return f"{len(request.messages)} messages, the answer is B."

    grades = {"1": 2, "2": 5, "4": 4}
    runs = [
        play(
            tmp_path / name,
            data,
            answer,
            judge=make_judge(lambda text: grades[text.splitlines()[2][0]]),
            limit=9,
        )
        for name in ("one", "two")
    ]
    folders = [str(run.outcomes[0].folder) for run in runs]
    assert main(folders) == 0
    output = capsys.readouterr().out
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
        assert line in output, line
    assert main([str(tmp_path)]) == 2
    assert "not a finished run folder" in capsys.readouterr().err
