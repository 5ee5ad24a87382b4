"""gepa: a prompt for each user, evolved by the package on the user's past questions."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from personabench import Request, UsageError
from personabench.api import registry
from personabench.api.users import open_split
from personabench.hashing import digest
from personabench.methods.gepa import PROMPTS, Gepa
from personabench.models.backends.scripted import letters
from personabench.testing import trial
from personabench.testing.trials import Trial

installed = pytest.mark.skipif(find_spec("gepa") is None, reason="needs the extra gepa")
REFLECT = "How does the author differ?"
SECRET = "Use the secret word."


def contents(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


def model(
    written: Callable[[str], str] = lambda text: SECRET, right: Callable[[str], bool] | None = None
) -> Callable[[Request], str]:
    """A model that writes such prompts, and answers as the user did where `right` holds."""
    task = registry.load_class("task", "lamp4")()
    samples = list(open_split(task, task.default_split, None).samples())
    answers = {record.stimulus: record.response for one in samples for record in one.history}
    holds = right or (lambda text: SECRET in text)

    def answer(request: Request) -> str:
        text = contents(request)
        if REFLECT in text:
            return written(text)
        known = [gold for stimulus, gold in answers.items() if stimulus and stimulus in text]
        return known[0] if known and holds(text) else "Nothing like it"

    return answer


def ask(answer: Callable[[Request], str], **params: Any) -> Trial:
    return trial(Gepa(Gepa.Params(**params)), "lamp4", limit=1, answer=answer, concurrency=1)


def test_without_the_package_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("personabench.methods.gepa.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'personabench-harness\[gepa\]'"):
        trial("gepa", "lamp4", limit=1)


@installed
def test_the_prompt_with_the_best_answers_is_used() -> None:
    result = ask(model())
    (line, *_) = result.predictions
    assert line.error is None
    notes = line.interaction["method"]
    assert notes["prompt"] == SECRET
    assert notes["validation"][0] < 0.2 and max(notes["validation"]) == 1.0
    assert SECRET in contents(result.requests[-1])
    assert line.flags["prompts_tried"] == len(notes["validation"]) >= 2


@installed
def test_a_prompt_that_is_no_better_is_not_used() -> None:
    (line, *_) = ask(model(lambda text: f"Try {letters(digest(text))}.")).predictions
    assert line.interaction["method"]["prompt"] == "Answer as this author would."


@installed
def test_the_search_keeps_its_budget() -> None:
    for evaluations in (8, 24):
        written = model(lambda text: f"Try {letters(digest(text))}.")
        result = ask(written, evaluations=evaluations, batch=2)
        past = [
            one
            for one in result.requests
            if REFLECT not in contents(one) and one is not result.requests[-1]
        ]
        # The package finishes the step that it has begun: two batches and a validation.
        assert len(past) <= evaluations + 2 * 2 + 6
        assert sum(REFLECT in contents(one) for one in result.requests) <= evaluations // 2


@installed
def test_feedback_and_selection_use_different_records() -> None:
    result = ask(model(lambda text: f"Try {letters(digest(text))}."), records=6)
    reflections = [contents(one) for one in result.requests if REFLECT in contents(one)]
    shown = {text for one in reflections for text in re.findall("The author: (.*)", one)}
    task = registry.load_class("task", "lamp4")()
    samples = open_split(task, task.default_split, None).samples()
    sample = next(one for one in samples if one.id == result.predictions[0].sample_id)
    *_, first, second, third = [record.response for record in sample.history]
    assert shown and not shown & {first, second, third}


@installed
@pytest.mark.parametrize(
    ("written", "flag"), [("", "empty_prompt"), (None, "prompt_quotes_answer")]
)
def test_a_reply_of_no_use_keeps_the_parent(written: str | None, flag: str) -> None:
    def write(text: str) -> str:
        quoted = re.findall("The author: (.*)", text)[0]
        return f"Always write {quoted} and so on" if written is None else written

    (line, *_) = ask(model(write)).predictions
    assert line.flags[flag] >= 1
    assert line.interaction["method"]["prompt"] == "Answer as this author would."


@installed
def test_the_same_run_evolves_the_same_prompt() -> None:
    answer = model(lambda text: f"Try {letters(digest(text))}.", lambda text: "Try g" in text)
    first, second = (
        trial("gepa", "lamp4", limit=4, answer=answer, concurrency=concurrency)
        for concurrency in (1, 8)
    )
    assert [line.output for line in first.predictions] == [
        line.output for line in second.predictions
    ]
    assert [line.interaction for line in first.predictions] == [
        line.interaction for line in second.predictions
    ]


@installed
def test_more_searches_than_threads_end() -> None:
    written = model(lambda text: f"Try {letters(digest(text))}.")
    result = trial(
        Gepa(Gepa.Params(evaluations=8)), "lamp4", answer=written, concurrency=64, latency=0.01
    )
    assert len(result.predictions) > 32
    assert all(line.error is None for line in result.predictions)


@installed
def test_few_records_are_a_plain_request() -> None:
    (line, *_) = trial("gepa", "lamp4", limit=1, history="size=3").predictions
    assert line.flags["too_few_records"] == 1


@installed
@pytest.mark.parametrize("task", ["lamp3", "reviews", "lamp2m"])
def test_it_runs_on_other_kinds_of_answers(task: str) -> None:
    assert all(line.error is None for line in trial("gepa", task, limit=1).predictions)


@installed
def test_a_failed_call_ends_the_sample_alone() -> None:
    def answer(request: Request) -> str:
        if REFLECT in contents(request):
            raise ValueError("broken")
        return "x"

    (line, *_) = ask(answer).predictions
    assert line.error is not None and "broken" in line.error


def test_the_texts_are_those_of_the_runs() -> None:
    assert PROMPTS.owner == "gepa" and set(PROMPTS.stages) == {
        "seed",
        "notes",
        "example",
        "reflect",
    }
