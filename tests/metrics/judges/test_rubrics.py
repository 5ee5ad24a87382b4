"""Boolean rubrics: relevance once for all methods, weights, and answers that are missing."""

from __future__ import annotations

import asyncio

import pytest
from judge_scripts import JudgeCall, Scripted

from personabench.errors import BackendError
from personabench.metrics.judges.rubrics import (
    Criterion,
    Rubric,
    RubricAnswers,
    RubricScore,
    Selection,
    read_answers,
)

RUBRIC = [
    Criterion(
        f"r{number}",
        f"Question {number}?",
        2.0 if number == 3 else 1.0,
        "tone" if number < 3 else "facts",
    )
    for number in range(1, 6)
]
ALL_IDS = ("r1", "r2", "r3", "r4", "r5")


def score(answers: dict[str, str], ids: tuple[str, ...] = ALL_IDS) -> RubricScore:
    return Rubric(RUBRIC).score(ids, RubricAnswers(answers, (), 1))  # type: ignore[arg-type]


def test_section_3a_weights() -> None:
    scored = score({"r1": "yes", "r2": "no", "r3": "yes", "r4": "na", "r5": "yes"})
    assert scored.score == pytest.approx(0.8) and (
        scored.relevant,
        scored.na,
        scored.unanswered,
    ) == (
        5,
        1,
        0,
    )
    assert scored.categories == {"tone": 0.5, "facts": 1.0}


def test_section_3b_only_what_is_relevant_counts() -> None:
    assert score({"r1": "yes", "r2": "no", "r3": "yes"}, ("r1", "r2")).score == 0.5


def test_section_3c_nothing_that_applies_is_unjudged() -> None:
    assert score(dict.fromkeys(ALL_IDS, "na")).score is None


def test_section_3d_two_methods_face_one_selection() -> None:
    judge = Scripted(lambda call: "Price matters.\nRelevant: r2, r5")
    rubric = Rubric(RUBRIC)

    async def both() -> list[Selection | None]:
        replies = await asyncio.gather(
            *(rubric.select_criteria(judge, background="k", request="Q?") for _ in range(2))
        )
        return [reply.value for reply in replies]

    assert asyncio.run(both()) == [Selection(("r2", "r5"), 0)] * 2 and len(judge.calls) == 1
    assert "Question 2?" in judge.calls[0].user and "k" in judge.calls[0].user


def test_section_3e_an_unknown_id_is_ignored_and_counted() -> None:
    judge = Scripted(lambda call: "**Relevant:** r5, r9, r1.")
    reply = asyncio.run(Rubric(RUBRIC).select_criteria(judge, background="", request="Q?"))
    assert reply.value == Selection(("r1", "r5"), 1)
    none = asyncio.run(
        Rubric(RUBRIC).select_criteria(
            Scripted(lambda call: "Relevant: none"), background="", request="Q?"
        )
    )
    assert none.value == Selection((), 0)


def test_a_failed_selection_is_repeated() -> None:
    def answer(call: JudgeCall) -> str:
        if len(judge.calls) == 1:
            raise BackendError("gone")
        return "Relevant: r1"

    judge, rubric = Scripted(answer), Rubric(RUBRIC)

    async def twice() -> Selection | None:
        with pytest.raises(BackendError):
            await rubric.select_criteria(judge, background="", request="Q?")
        return (await rubric.select_criteria(judge, background="", request="Q?")).value

    assert asyncio.run(twice()) == Selection(("r1",), 0)


def test_batches_of_twenty_and_a_missing_answer_alone() -> None:
    many = [Criterion(f"q{number}", f"Is it {number}?") for number in range(25)]
    rubric = Rubric(many)

    def answer(call: JudgeCall) -> str:
        listed = [
            line.split(":")[0] for line in call.user.partition("Questions:\n")[2].splitlines()
        ]
        answers = [f"{name}: Yes, it is" for name in listed if name != "q7" or len(listed) == 1]
        return "\n".join(answers)

    judge = Scripted(answer)
    checked = asyncio.run(
        rubric.answer_questions(
            judge, list(rubric.criteria), background="", request="Q?", response="R"
        )
    )
    assert len(checked.answers) == 25 and checked.unanswered == () and checked.attempts == 3
    assert [call.user.count("Is it") for call in judge.calls] == [20, 5, 1]


def test_a_question_that_is_never_answered_leaves_the_score_and_is_counted() -> None:
    judge = Scripted(lambda call: "r1: yes" if "r1" in call.user else "well")
    rubric = Rubric(RUBRIC)
    checked = asyncio.run(
        rubric.answer_questions(judge, ["r1", "r2"], background="", request="Q?", response="R")
    )
    assert checked.unanswered == ("r2",) and checked.attempts == 1 + 4
    scored = rubric.score(["r1", "r2"], checked)
    assert scored.score == 1.0 and scored.unanswered == 1


@pytest.mark.parametrize(
    "reply",
    [
        "r1: YES, it is\nr2 : no\nr3: N/A?",
        '{"r1": "yes", "r2": "no", "r9": "yes"}',
        "- **r1**: yes\n- **r2**: No.",
    ],
)
def test_answers_are_the_first_word_after_each_id(reply: str) -> None:
    assert read_answers(reply, ["r1", "r2", "r3"]) == {"r1": "yes", "r2": "no"}
