"""Defaults of a task by kind: requests, readings and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from personabench import Record, Sample, Task, Vocabulary
from personabench.errors import UsageError
from personabench.models.tokens import EstimatedTokens

LABELS = ("comedy", "dark comedy", "drama")
CHOICES = ("Go home", "Stay here", "Take a train")


class Text(Task):
    name = "text"
    words = Vocabulary(person="reader", stimulus="book", response="review")


class Label(Text):
    name = "label"
    kind = "category"
    labels = LABELS


class Choice(Text):
    name = "choice"
    kind = "category"


class Rating(Text):
    name = "rating"
    kind = "ordinal"
    labels = ("1", "2", "3", "4", "5")


def word(task: Task, sample: Sample, records: Sequence[Record] = (), notes: str = "") -> list[str]:
    rendered = task.render(sample, records, notes, EstimatedTokens())
    assert rendered.records == tuple(records)
    return [f"{message.role}: {message.content}" for message in rendered.messages]


# Requests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "instruction"),
    [
        (Text(), "Answer with the review and nothing else."),
        (Label(), "Answer with one of the following and nothing else: comedy, dark comedy, drama."),
        (Choice(), "Answer with the letter of one option and nothing else."),
        (Rating(), "Answer with a number from 1 to 5 and nothing else."),
    ],
)
def test_the_instruction_follows_from_the_kind(task: Task, instruction: str) -> None:
    assert word(task, Sample(input="Well?")) == [f"user: Well?\n\n{instruction}"]
    assert task.words.profile_question == "What is characteristic of this reader's reviews?"
    assert len(task.words.axes) == 3


def test_declared_words_are_not_replaced() -> None:
    class Own(Text):
        words = Vocabulary("a", "b", "c", "Who?", (("x", "y"),), "Say it.", "Be it.", "it")

    assert Own().words is Own.words


def test_records_with_a_stimulus_are_turns_and_the_best_is_last() -> None:
    best, worse = Record(stimulus="Dune", response="5"), Record(stimulus="Emma", response="2")
    sample = Sample(input="Stars for Solaris?", stimulus="Solaris")
    assert word(Rating(), sample, [best, worse], notes="Likes space.") == [
        "system: About this reader:\nLikes space.",
        "user: Stars for Emma?\n\nAnswer with a number from 1 to 5 and nothing else.",
        "assistant: 2",
        "user: Stars for Dune?",
        "assistant: 5",
        "user: Stars for Solaris?",
    ]


def test_records_without_a_stimulus_are_a_list_in_the_order_of_time() -> None:
    late = Record(response="Ann: I moved.", time="2024-10-01")
    early = Record(response="Bob: Hello.", time="2024-9-02")
    system, question = word(Text(), Sample(input="Where is Ann?"), [late, early])
    assert system == (
        "system: From this reader's history:\n\n[2024-9-02] Bob: Hello.\n[2024-10-01] Ann: I moved."
    )
    assert question.startswith("user: Where is Ann?\n\n")


def test_the_format_of_the_history_can_be_declared() -> None:
    class Listed(Rating):
        history_format = "list"

    record = Record(stimulus="Dune", response="5")
    system, _ = word(Listed(), Sample(input="Stars?"), [record])
    assert system.endswith("Book: Dune\nReview: 5")


def test_options_are_listed_by_letter_and_records_beside_them_as_a_list() -> None:
    record = Record(stimulus="It rains.", response="I read.")
    system, question = word(Choice(), Sample(input="Now?", choices=CHOICES), [record])
    assert "It rains." in system
    assert question.startswith("user: Now?\n\n(A) Go home\n(B) Stay here\n(C) Take a train\n\n")


# Readings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "output", "official", "lenient"),
    [
        (Text(), " fine \n", "fine", "fine"),
        (Text(), "**Review:** fine", "**Review:** fine", "Review: fine"),
        (Text(), "  ", None, None),
        (Label(), "dark comedy\n", "dark comedy", "dark comedy"),
        (Label(), "A Dark Comedy.", None, "dark comedy"),
        (Label(), "comedy or drama", None, None),
        (Rating(), "4", "4", "4"),
        (Rating(), "4.0", "4", "4"),
        (Rating(), "I'd say 4 out of 5", None, "4"),
        (Rating(), "9", None, None),
        (Rating(), "nan", None, None),
        (Choice(), "B", "Stay here", "Stay here"),
        (Choice(), "(b)", "Stay here", "Stay here"),
        (Choice(), "Stay here", "Stay here", "Stay here"),
        (Choice(), "B. Stay here", None, "Stay here"),
        (Choice(), "The answer is (C), of course", None, "Take a train"),
        (Choice(), "I think option C", None, "Take a train"),
        (Choice(), "They would stay here.", None, "Stay here"),
        (Choice(), "A user would take a train", None, "Take a train"),
        (Choice(), "(A) or (B)", None, None),
        (Choice(), "D", None, None),
        (Choice(), "none", None, None),
    ],
)
def test_answers_are_read(
    task: Task, output: str, official: str | None, lenient: str | None
) -> None:
    sample = Sample(input="x", choices=CHOICES)
    assert task.parse(output, sample, "official") == official
    assert task.parse(output, sample, "lenient") == lenient


def test_an_unknown_scorer_is_refused() -> None:
    with pytest.raises(
        UsageError, match="rating has no scorer 'strict'; it has: official, lenient"
    ):
        Rating().parse("4", Sample(), "strict")


# Scores -----------------------------------------------------------------------------------------


def score(task: Task, *pairs: tuple[str | None, Sequence[str]]) -> dict[str, float]:
    """The task's metrics of parsed answers with their references."""
    values = []
    for parsed, golds in pairs:
        values.append(task.measure(parsed, Sample(input="x", references=tuple(golds))))

    scores = {}
    for metric in task.metrics:
        column = [value[metric.name] for value in values]
        scores[metric.name] = metric.aggregate(np.array(column, dtype=float))
    return scores


def test_labels_have_accuracy_and_macro_f1() -> None:
    right, wrong = ("drama", ["drama"]), ("comedy", ["drama"])
    assert score(Label(), right, wrong, (None, ["comedy"])) == {
        "accuracy": pytest.approx(1 / 3),
        # drama has F1 2/3, the other two labels 0.
        "f1": pytest.approx(2 / 9),
    }


def test_options_have_accuracy() -> None:
    assert score(Choice(), ("Go home", ["Go home"]), ("Stay here", ["Go home"])) == {
        "accuracy": 0.5
    }


def test_ratings_have_errors_and_an_unparsed_one_the_largest() -> None:
    assert score(Rating(), ("4", ["2"]), (None, ["4"])) == {
        "MAE": 2.5,
        "RMSE": pytest.approx(((4 + 9) / 2) ** 0.5),
    }


def test_texts_have_rouge_of_the_best_reference() -> None:
    scores = score(Text(), ("a grey cat", ["a dog", "grey cat"]))
    assert scores["rouge-1"] == pytest.approx(0.8)
    assert score(Text(), (None, ["x"]))["rouge-L"] == 0


def test_a_sample_without_references_has_no_values() -> None:
    assert all(task.measure("1", Sample(input="x")) == {} for task in (Text(), Label(), Rating()))


def test_metrics_follow_the_kind_of_the_subclass_until_one_is_declared() -> None:
    from personabench import Metric

    class Own(Rating):
        metrics = (Metric("own"),)

    class Heir(Own):
        kind = "text"
        labels = ()

    def names(task: type[Task]) -> list[str]:
        return [metric.name for metric in task.metrics]

    assert names(Rating) == ["MAE", "RMSE"]
    assert names(Label) == ["accuracy", "f1"]
    assert names(Own) == names(Heir) == ["own"]


def test_a_gold_answer_is_read_as_itself() -> None:
    cases: list[tuple[Task, Any]] = [(Label(), LABELS), (Choice(), CHOICES), (Rating(), "12345")]
    for task, golds in cases:
        for gold in golds:
            sample = Sample(input="x", choices=CHOICES, references=(gold,))
            assert {task.parse(gold, sample, scorer) for scorer in task.scorers} == {gold}
