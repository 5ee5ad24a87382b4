"""Asking for attributes: the form that dialogue tasks and methods have in common."""

from __future__ import annotations

import msgspec

from personabench.api.inquiry import (
    allow_inquiries,
    list_askable,
    read_answers,
    read_inquiry,
    record_answer,
    write_inquiry,
)
from personabench.types import Message, Sample

SAMPLE = Sample("s", "u", "May I?", attributes={"domain": "life"})


def test_what_may_be_asked_for_is_an_attribute_that_goes_again() -> None:
    asking = allow_inquiries(SAMPLE, ("age", "mental health"))
    assert list_askable(asking) == ("age", "mental health")
    assert list_askable(SAMPLE) == ()
    assert allow_inquiries(asking, ()) == SAMPLE


def test_a_question_is_read_as_it_was_written() -> None:
    assert read_inquiry(write_inquiry("mental health")) == "mental health"


def test_answers_are_read_from_the_dialogue_with_colons_and_lines_of_their_own() -> None:
    dialogue = (
        *record_answer("age", "41-50"),
        *record_answer("health", "asthma: mild,\nsince youth"),
        *(Message("assistant", "Hm."), Message("user", "Go on.")),
    )
    sample = msgspec.structs.replace(SAMPLE, dialogue=dialogue)
    assert read_answers(sample) == {"age": "41-50", "health": "asthma: mild,\nsince youth"}
