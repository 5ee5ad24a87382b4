"""Drafts of past reviews are requested under their own rating and title."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from personabench.api import registry
from personabench.testing.trials import trial
from personabench.types import Record, Request, Sample

FAMILY = ["cipher", "icl_edit", "cot_edit", "continual", "e_then_e"]
DRAFTING = [*((name, {}) for name in FAMILY), *((name, {"mode": "replay"}) for name in FAMILY)]
DRAFTING += [("cicl", {"negatives": "draft"})]


def first() -> Sample:
    return registry.load_class("task", "reviews")().open("test", None).load(0)


def requests(method: str, params: dict[str, str]) -> tuple[Sample, Sequence[Request]]:
    """Return the first sample and its requests."""
    cls = registry.load_class("method", method)
    result = trial(cls(cls.Params(**params)), "reviews", limit=1)
    data = registry.load_class("task", "reviews")().open("test", None)
    (line,) = result.predictions
    return next(sample for sample in data.samples() if sample.id == line.sample_id), result.requests


@pytest.mark.parametrize(("method", "params"), DRAFTING)
def test_drafts_are_asked_for_under_their_own_title(method: str, params: dict[str, str]) -> None:
    sample, sent = requests(method, params)
    by_item = {record.stimulus: record for record in sample.history}
    drafts = 0
    for request in sent:
        last = request.messages[-1].content
        if not last.startswith("Write the review of this item."):
            continue
        title = last.partition("Review title: ")[2].partition("\n")[0]
        item = last.partition("Item: ")[2].partition("\n\n")[0]
        if item == sample.stimulus:
            assert title == sample.attributes["review_title"]
            continue
        drafts += 1
        assert title == by_item[item].fields["review_title"]
        assert f"Rating: {by_item[item].fields['rating']} of 5" in last
    assert drafts


def test_drafts_are_the_same_calls_for_every_question() -> None:
    task, sample = registry.load_class("task", "reviews")(), first()
    different = next(
        candidate
        for candidate in task.open("test", None).samples()
        if candidate.attributes != sample.attributes
    )
    record = sample.history[0]
    assert task.question(record, sample).input == task.question(record, different).input
    assert sample.attributes["review_title"] not in task.question(record, sample).input


def test_a_record_asked_is_worded_as_it_is_shown() -> None:
    task, sample = registry.load_class("task", "reviews")(), first()
    record = sample.history[0]
    content = task.render(sample, [record], "", None).messages[1].content
    assert task.question(record, sample).input == content


def test_other_tasks_put_the_stimulus_of_the_record_in_place_of_the_questions() -> None:
    task = registry.load_class("task", "lamp4")()
    sample = task.open("user/dev", None).load(0)
    record = sample.history[0]
    question = task.question(record, sample)
    assert question.input == sample.input.replace(sample.stimulus, record.stimulus)
    assert (question.id, question.stimulus, question.references, question.history) == (
        record.id,
        record.stimulus,
        (),
        (),
    )
    bare = Sample("s", "u", "What now?")
    assert task.question(Record("r", None, "a tweet"), bare).input == "a tweet"
    assert task.facts(record.fields) == ""


def test_rpm_sees_the_rating_and_the_title_of_what_it_studies() -> None:
    sample, sent = requests("rpm", {})
    prompts = "\n".join(message.content for request in sent for message in request.messages)
    for record in sample.history:
        assert f"{record.stimulus}\nRating: {record.fields['rating']} of 5" in prompts
    assert f"{sample.stimulus}\nRating: {sample.attributes['rating']} of 5" in prompts
