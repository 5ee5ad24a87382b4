"""rag_select: the way to retrieve that answers the user's past questions best."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from personabench import Request, UsageError
from personabench.api import registry
from personabench.api.users import open_split
from personabench.methods.rag_select import RagSelect
from personabench.testing import trial
from personabench.testing.trials import Trial


def ask(answer: Callable[[Request], str], task: str = "lamp4", **params: Any) -> Trial:
    method = RagSelect(RagSelect.Params(**params))
    return trial(method, task, limit=1, answer=answer, concurrency=1)


def user_of(result: Trial, task: str = "lamp4") -> Any:
    """The first sample of a trial."""
    opened = registry.load_class("task", task)()
    dataset = open_split(opened, opened.default_split, None)
    sample_id = result.predictions[0].sample_id
    return next(sample for sample in dataset.samples() if sample.id == sample_id)


def knowing(shown: int) -> Callable[[Request], str]:
    """A model that answers as the user did, if this number of records is shown."""
    task = registry.load_class("task", "lamp4")()
    samples = list(open_split(task, task.default_split, None).samples())
    answers = {record.stimulus: record.response for one in samples for record in one.history}

    def answer(request: Request) -> str:
        count = sum(message.role == "assistant" for message in request.messages)
        question = request.messages[-1].content
        known = [text for stimulus, text in answers.items() if stimulus and stimulus in question]
        return known[0] if known and count == shown else "Something else entirely"

    return answer


@pytest.mark.parametrize(("shown", "option"), [(0, "none"), (1, "bm25:1"), (3, "bm25:3")])
def test_the_option_with_the_best_answers_is_chosen(shown: int, option: str) -> None:
    result = ask(knowing(shown), options="bm25:1,none,bm25:3")
    (line, *_) = result.predictions
    notes = line.interaction["method"]
    assert notes["option"] == option
    assert notes["validation"][option] == max(notes["validation"].values()) > 0.5
    final = result.requests[-1]
    assert sum(message.role == "assistant" for message in final.messages) == shown
    assert line.flags.get("history_unused", 0) == (shown == 0)


def test_of_equal_options_the_first_is_chosen() -> None:
    (line, *_) = ask(lambda request: "", options="bm25:2,none,dense:2").predictions
    notes = line.interaction["method"]
    assert notes["option"] == "bm25:2"
    assert set(notes["validation"].values()) == {0.0}


def test_a_past_question_sees_earlier_records_only_and_its_own_answer_never() -> None:
    result = ask(lambda request: "x", options="bm25:50", validate=3)
    sample = user_of(result)
    newest = sample.history[-3:]
    for position, record in enumerate(newest):
        later = newest[position:]
        (request,) = [
            one
            for one in result.requests
            if record.stimulus in one.messages[-1].content and sample.input not in str(one.messages)
        ]
        text = "\n".join(message.content for message in request.messages)
        assert not any(one.response in text for one in later)


def test_calls_are_options_times_questions_and_one_answer() -> None:
    result = ask(lambda request: "x", options="bm25:1,none,bm25:2", validate=2)
    samples = len(result.predictions)
    assert len(result.requests) == 3 * 2 + samples


def test_unreadable_answers_are_counted() -> None:
    (line, *_) = ask(lambda request: "no tag", "lamp2m", options="bm25:1,none").predictions
    assert line.flags["past_answer_unreadable"] == 2 * 4


def test_users_without_a_past_question_get_the_first_option() -> None:
    method = RagSelect(RagSelect.Params(options="bm25:2,none"))
    (line, *_) = trial(method, "lamp4", limit=1, history="none").predictions
    assert line.error is None and line.flags["not_validated"] == 1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"options": "bm25"}, "write none, or a retriever with a number"),
        ({"options": "bm25:0"}, "write none, or a retriever with a number"),
        ({"options": "best:2"}, "unknown retriever 'best'"),
        ({"validate": 0}, "at least 1"),
    ],
)
def test_wrong_options_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        RagSelect(RagSelect.Params(**params))


def test_recency_needs_dates() -> None:
    assert "dates" in RagSelect(RagSelect.Params(options="recency:2")).requirements()
    assert "dates" not in RagSelect().requirements()


@pytest.mark.parametrize("task", ["lamp3", "reviews", "lamp2m"])
def test_it_runs_on_other_kinds_of_answers(task: str) -> None:
    assert all(line.error is None for line in trial("rag_select", task, limit=1).predictions)
