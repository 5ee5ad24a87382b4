"""The layout of requests: records as turns, as a list or in one message, the profile anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from personabench import (
    Layout,
    Message,
    Record,
    Rendered,
    Sample,
    Task,
    Tokens,
    UsageError,
    Vocabulary,
)
from personabench.api import registry
from personabench.api.layout import list_options
from personabench.api.params import fill_params
from personabench.models.tokens import EstimatedTokens
from personabench.testing import trial

BEST = Record(id="1", stimulus="Dune", response="Sand.")
WORSE = Record(id="2", stimulus="Emma", response="Tea.")


class Books(Task):
    words = Vocabulary(person="reader", stimulus="book", response="review")

    def load(self, split: str, data: Any) -> Any:
        history = [WORSE, BEST]
        yield Sample(user_id="u", input="Solaris", history=history, references=("Sea.",))


def word(task: Task, notes: str = "Likes space.") -> list[str]:
    sample = Sample(input="Solaris", stimulus="Solaris")
    rendered = task.render(sample, [BEST, WORSE], notes, EstimatedTokens())
    return [f"{message.role}: {message.content}" for message in rendered.messages]


def books(**options: str) -> Books:
    return Books(Books.Params(**options))  # type: ignore[arg-type]


def test_the_default_is_turns_with_the_best_record_last() -> None:
    turns = word(books())
    assert turns == [
        "system: About this reader:\nLikes space.",
        "user: Emma",
        "assistant: Tea.",
        "user: Dune",
        "assistant: Sand.",
        "user: Solaris",
    ]
    assert word(books(layout="turns", profile="before", order="best_last")) == turns


def test_all_of_a_request_fits_into_one_message() -> None:
    (request,) = word(books(layout="message", profile="after", order="best_first"))
    assert request == (
        "user: From this reader's history:\n\n"
        "Book: Dune\nReview: Sand.\n\n"
        "Book: Emma\nReview: Tea.\n\n"
        "About this reader:\nLikes space.\n\n"
        "Solaris\n\n"
        "Answer with the review and nothing else."
    )


def test_a_list_is_in_the_system_message() -> None:
    system, question = word(books(layout="list"))
    assert system.startswith("system: About this reader:\nLikes space.\n\nFrom this reader's")
    assert system.index("Emma") < system.index("Dune")
    assert question == "user: Solaris\n\nAnswer with the review and nothing else."


def test_after_turns_the_profile_is_part_of_the_question() -> None:
    *_, question = word(books(profile="after"))
    assert question == "user: About this reader:\nLikes space.\n\nSolaris"


def test_an_explicit_order_counts_more_than_dates() -> None:
    dated = [
        Record(id="1", response="late, best", time="2024-02-01"),
        Record(id="2", response="early", time="2024-01-01"),
    ]
    sample = Sample(input="Solaris")
    orders = {}
    for order in ("auto", "best_first"):
        rendered = books(order=order).render(sample, dated, "", EstimatedTokens())
        content = rendered.messages[0].content
        orders[order] = content.index("late") < content.index("early")
    assert orders == {"auto": False, "best_first": True}


def test_in_the_full_wording_goal_and_form_end_the_request() -> None:
    task = books()
    task.choose_wording("full")
    *_, question = word(task, notes="")
    assert question == (
        "user: Solaris\n\nAnswer as this reader would.\n\nAnswer with the review and nothing else."
    )

    bare = task.render(Sample(input="Solaris"), [], "", EstimatedTokens())
    assert [message.content for message in bare.messages] == [
        "Solaris\n\nAnswer with the review and nothing else."
    ]


def test_a_request_of_the_tasks_own_has_one_layout() -> None:
    class Own(Books):
        def render(
            self, sample: Sample, records: Sequence[Record], notes: str, tokens: Tokens
        ) -> Rendered:
            return Rendered((Message("user", sample.input),))

    Own()
    with pytest.raises(UsageError, match="one layout"):
        Own(Own.Params(layout="list"))


TEXT_TASKS = [
    name
    for name in registry.list_entries("task")
    if registry.load_class("task", name).kind == "text"
]


# Sessions and documents keep the order of time.
BY_TIME = ("locomo", "longmemeval", "personabench_qa")


@pytest.mark.parametrize("name", TEXT_TASKS)
def test_every_text_task_has_the_options(name: str) -> None:
    cls = registry.load_class("task", name)
    options = {"layout": "message", "profile": "after"}
    if name not in BY_TIME:
        options["order"] = "best_first"
    task = cls(fill_params(cls.Params, options, name))
    assert isinstance(task.params, Layout)

    sample = next(iter(task.open(task.default_split, None).samples())).view()
    records = sample.history[-2:]
    rendered = task.render(sample, records, "Likes space.", EstimatedTokens())
    question = next(message for message in rendered.messages if message.role == "user")
    positions = [question.content.index(record.response) for record in records]
    position = question.content.index("Likes space.")
    assert [*positions, position] == sorted([*positions, position])


def test_a_comparison_of_reviewers_runs_in_the_layout_of_its_paper() -> None:
    cls = registry.load_class("task", "reviews")
    task = cls(cls.Params(layout="message", profile="after", order="best_first"))
    result = trial("dpl", task, limit=1, wording="full")
    assert {prediction.error for prediction in result.predictions} == {None}

    system, request = result.requests[-1].messages
    assert system.content.startswith("You write the review")
    earlier = request.content.index("Earlier reviews by this reviewer:")
    profile = request.content.index("About this reviewer:")
    question = request.content.rindex("Write the review of this item.")
    assert earlier < profile < question


def test_records_that_answer_nothing_are_no_turns() -> None:
    for name in ("lamp1", "lamp7", "personamem", "prefdisco_warm", *BY_TIME):
        cls = registry.load_class("task", name)
        with pytest.raises((UsageError, ValueError), match="layout"):
            cls(fill_params(cls.Params, {"layout": "turns"}, name))
    for name in BY_TIME:
        cls = registry.load_class("task", name)
        with pytest.raises((UsageError, ValueError), match="order of time"):
            cls(fill_params(cls.Params, {"order": "best_first"}, name))


def test_the_tasks_own_layout_is_no_part_of_a_runs_identity() -> None:
    assert list_options(books().params) == {}
    assert list_options(books(layout="list").params) == {"layout": "list"}
    assert list_options(books(order="best_first").params) == {"order": "best_first"}
