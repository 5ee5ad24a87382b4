"""Records that a model saw: those a task rendered, and those that other texts quote."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from personabench import Context, Message, Method, Record, Sample
from personabench.api import registry
from personabench.api.shown import Sent, find_quoted, list_shown
from personabench.errors import BackendError
from personabench.testing import trial
from personabench.types import Prediction

TURNS = (
    Record("t1", None, "We moved to Lisbon last spring and the flat has a view of the river."),
    Record("t2", None, "We moved to Lisbon last spring and the flat is far too small for two."),
    Record("t3", None, "Wow!"),
    Record("t4", None, "My sister Ana teaches the violin\nin Porto, twice a week."),
    Record("t5", None, "我喜欢黑猫和白狗"),
)
MOVIES = (
    Record("m1", "A lighthouse keeper finds a letter in a bottle.", "drama"),
    Record("m2", "Two thieves plan a last robbery before the snow.", "crime"),
    Record("m3", "Alien", "sci-fi"),
)


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        ("- We moved to Lisbon last spring and the flat has a view of the river.", ["t1"]),
        # The first 60 characters alone, which t1 and t2 do not share.
        ("My sister Ana teaches the violin in Porto, twice a w", []),
        ("My sister Ana teaches   the violin in Porto, twice a week.", ["t4"]),
        ("> My sister Ana teaches\n> the violin", []),
        ("User: Wow!\nUser: Nice", ["t3"]),
        ("* Wow!", ["t3"]),
        ("Wow! That is a lot.", []),
        ("“我喜欢黑猫和白狗”", ["t5"]),
        (
            json.dumps([record.response for record in TURNS], ensure_ascii=False),
            ["t1", "t2", "t4", "t5"],
        ),
        (
            "\n\n".join(record.response for record in reversed(TURNS)),
            ["t1", "t2", "t3", "t4", "t5"],
        ),
        ("", []),
    ],
)
def test_records_quoted_in_a_prompt(prompt: str, ids: list[str]) -> None:
    assert find_quoted(TURNS, [prompt]) == ids


def test_a_truncated_record_counts_by_its_beginning() -> None:
    long = Record("long", None, "The kettle sings before the water boils, " * 10)
    assert find_quoted([long], [long.response[:80] + " …"]) == ["long"]
    assert find_quoted([long], [long.response[:40]]) == []


def test_a_label_counts_with_its_stimulus_alone() -> None:
    described = "Movie: Two thieves plan a last robbery before the snow.\nTag: crime"
    assert find_quoted(MOVIES, [described]) == ["m2"]
    assert find_quoted(MOVIES, ["The tags are drama, crime and sci-fi."]) == []
    asked = "Which tag has this movie? A lighthouse keeper finds a letter in a bottle."
    assert find_quoted(MOVIES, [asked]) == []
    assert find_quoted(MOVIES, ["Alien: sci-fi"]) == ["m3"]


def test_the_question_shows_no_record_although_it_repeats_one() -> None:
    text = TURNS[0].response
    assert find_quoted(TURNS, [f"Answer this.\n{text}"], [text]) == []
    assert find_quoted(TURNS, [f"Earlier: {text}\nAnswer this.\n{text}"], [text]) == ["t1"]
    asked = Sample("s", "u", text, history=TURNS)
    assert list_shown(TURNS, [Sent((), (text,))], asked) == ()


def test_rendered_records_count_without_a_search_and_only_the_users_own() -> None:
    shortened = Record("t1", None, "We moved to Lisbon")
    of_a_peer = Record("t2", None, "The same id in another history.")
    requests = [
        Sent((TURNS[3],), ()),
        Sent((shortened, of_a_peer, Record("elsewhere", None, "x")), ()),
        Sent((TURNS[3],), (f"notes\n{TURNS[4].response}",)),
    ]
    assert list_shown(TURNS, requests) == ("t4", "t1", "t5")
    assert list_shown((), requests) == ()


def test_a_long_history_is_searched_in_a_moment() -> None:
    history = [
        Record(str(number), None, f"Turn {number} speaks of {number * 7} boats and {number} birds.")
        for number in range(4000)
    ]
    prompt = "\n".join(record.response for record in reversed(history))
    start = time.perf_counter()
    assert len(find_quoted(history, [prompt])) == 4000
    assert time.perf_counter() - start < 2


class Listing(Method):
    """A prompt of its own, with the oldest two records as JSON."""

    name = "listing"

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        listed = json.dumps([ctx.task.describe(record) for record in sample.history[:2]])
        message = Message("user", f"{listed}\n\n{sample.input}")
        return (await ctx.complete([message], max_tokens=8)).text


class Noting(Method):
    """One record rendered, another in the notes, and the profile made of all of them."""

    name = "noting"

    async def profile(self, user: Any, ctx: Context) -> str:
        listed = "\n".join(map(ctx.task.describe, user.history))
        return (await ctx.complete([Message("user", listed)], max_tokens=8)).text

    async def predict(self, sample: Sample, state: str, ctx: Context) -> str:
        *_, last = sample.history
        notes = f"{state}\n{ctx.task.describe(sample.history[0])}"
        return await ctx.answer(sample, [last], notes=notes)


class Fitting(Method):
    """Everything through `fit`, into a window that takes a part of it."""

    name = "fitting"

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        def build(records: Sequence[Record]) -> list[Message]:
            ctx.notes["fitted"] = [record.id for record in records]
            return [Message("user", "\n".join(map(ctx.task.describe, records)) + sample.input)]

        messages = ctx.fit(build, sample.history, 64)
        return (await ctx.complete(messages, max_tokens=8)).text


class Refused(Method):
    """A request with all records fails, and the method answers without any."""

    name = "failing"

    async def predict(self, sample: Sample, state: None, ctx: Context) -> str:
        try:
            await ctx.complete([Message("user", sample.history[0].response)], max_tokens=8)
        except BackendError:
            return await ctx.answer(sample)
        return ""


def run(method: Method, **options: Any) -> tuple[Prediction, Sample]:
    result = trial(method, "lamp4", limit=1, **options)
    task = registry.load_class("task", "lamp4")()
    dataset = task.open("user/dev", None)
    samples = {one.id: one for one in dataset.samples()}
    prediction = result.predictions[0]
    assert prediction.error is None
    return prediction, samples[prediction.sample_id]


def test_a_prompt_of_the_methods_own_shows_the_records_in_it() -> None:
    prediction, asked = run(Listing())
    assert prediction.shown == tuple(record.id for record in asked.history[:2])


def test_notes_show_records_and_profiles_do_not() -> None:
    prediction, asked = run(Noting(), answer=lambda request: "A text.")
    assert prediction.shown == (asked.history[-1].id, asked.history[0].id)


def test_a_profile_keeps_the_records_that_it_was_made_from() -> None:
    method = registry.load_class("method", "summary")
    result = trial(method(method.Params(summary_budget_tokens=60)), "lamp4", limit=1)
    dataset = registry.load_class("task", "lamp4")().open("user/dev", None)
    history = next(
        one for one in dataset.samples() if one.id == result.predictions[0].sample_id
    ).history
    profile = next(one for one in result.profiles if one.key == result.predictions[0].profile)
    assert profile.shown is not None and 0 < len(profile.shown) < len(history)
    # The newest ones, which fit the budget.
    assert set(profile.shown) == {record.id for record in history[-len(profile.shown) :]}


def test_records_that_did_not_fit_were_not_shown() -> None:
    prediction, asked = run(Fitting(), window=700)
    assert prediction.shown == tuple(prediction.interaction["method"]["fitted"])
    assert 0 < len(prediction.shown) < len(asked.history)


def test_a_request_without_a_response_shows_nothing() -> None:
    def answer(request: Any) -> str:
        if not request.messages[-1].content.startswith("Generate"):
            raise BackendError("too long")
        return "A headline"

    prediction, _ = run(Refused(), answer=answer)
    assert prediction.shown == ()


@pytest.mark.parametrize("name", ["rag", "recency", "full"])
@pytest.mark.parametrize("task", ["lamp1", "lamp2m", "lamp4", "lamp7", "personamem", "reviews"])
def test_methods_show_their_records(name: str, task: str) -> None:
    method = registry.load_class("method", name)()
    if name == "recency" and task == "personamem":
        pytest.skip("its records have no dates")
    for prediction in trial(method, task, limit=1).predictions:
        task_class = registry.load_class("task", task)
        dataset = task_class().open(task_class.default_split, None)
        history = next(one.history for one in dataset.samples() if one.id == prediction.sample_id)
        k = len(history) if name == "full" else min(8, len(history))
        assert len(prediction.shown or ()) == k


def test_requests_that_the_task_renders_are_never_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> list[str]:
        raise AssertionError("searched")

    monkeypatch.setattr("personabench.api.shown.find_quoted", refuse)
    prediction, _ = run(registry.load_class("method", "rag")())
    assert len(prediction.shown or ()) == 8


def test_only_an_oracle_sees_evidence_marks() -> None:
    marked = Sample("s", "u", "?", history=TURNS, evidence=("t1",), hidden={"wish": "x"})
    assert marked.view().evidence == ()
    assert "t1" not in repr(marked.view()).replace(repr(TURNS), "")
    assert marked.view(privileged=True).evidence == ("t1",)
