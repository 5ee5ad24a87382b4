"""PRELUDE's simulated user: parsing of a model's replies, and rules applied to a draft."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from personabench.errors import BackendError
from personabench.metrics.text import strip_reasoning
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.models.client import Client
from personabench.models.roles import Role
from personabench.tasks.prelude import PreludeSumm, user
from personabench.tasks.prelude.rules import (
    BASE,
    list_broken,
    make_disliked,
    parse_rules,
    satisfy,
    word_preference,
)
from personabench.types import Request, Sample

PHRASES = [
    "all lower case",
    "bullet points",
    "ends with a question",
    "uses an emoji",
    "opens with a greeting",
]


# Words


@pytest.mark.parametrize(
    ("reply", "decision"),
    [
        ("Yes.", "accepted"),
        ("**YES**, thank you", "accepted"),
        ("No, but yes if shorter", "rewritten"),
        ("I would say no.", "rewritten"),
        ("yesterday", "undecided"),
        ("not good", "undecided"),
        ("", "undecided"),
        ("<think>yes, or no?</think> No", "rewritten"),
        ("<think>yes yes", "undecided"),
        ("nothing; yes", "accepted"),
        ("__yes__", "accepted"),
        ("_Yes_, as it stands", "accepted"),
        ("yes and no, or no</think> No", "rewritten"),
    ],
)
def test_acceptance_2_the_first_whole_word_decides(reply: str, decision: str) -> None:
    assert user.parse_decision(reply) == decision


@pytest.mark.parametrize(
    ("raw", "final"),
    [
        ("A plain text.", "A plain text."),
        ("Here is the revised summary:\n\nA text.", "A text."),
        ("**Revised version:**\nA text.", "A text."),
        ("Sure, here you go:\n```text\n- one\n- two\n```", "- one\n- two"),
        ('"A text."', "A text."),
        ("“A text.”", "A text."),
        ('"One" and "two"', '"One" and "two"'),
        ("<think>Hm: shorter</think>\nUpdated email:\n'A text.'", "A text."),
        ("Dear team:\nwe met.", "Dear team:\nwe met."),
        ("Three things:\n- one", "Three things:\n- one"),
        (
            "Here is the revised summary: all on one line",
            "Here is the revised summary: all on one line",
        ),
        (
            "Here is the new text:\nHere is the other text:\nA text.",
            "Here is the other text:\nA text.",
        ),
        ("<think>never ends", ""),
        ("", ""),
    ],
)
def test_a_rewrite_is_cleaned_of_chatter_once(raw: str, final: str) -> None:
    assert user.clean_rewrite(raw) == final


def make_simulator(*replies: str) -> tuple[Role, list[Request]]:
    """A user who gives these replies in turn, and the requests."""
    remaining = list(replies)
    backend = Scripted(BackendOptions(), answer=lambda request: remaining.pop(0))
    return Role("simulator", Client(backend, None), "u", 0), backend.requests


async def react(*replies: str) -> tuple[user.Reaction, Role, list[Request]]:
    role, requests = make_simulator(*replies)
    return (
        await user.react(
            role,
            PreludeSumm().texts,
            PreludeSumm.words,
            "THE DOCUMENT",
            "a draft",
            "short, dry",
            99,
        ),
        role,
        requests,
    )


ANNOUNCED = """Here is the revised summary:
**Revised version:**
### Revised Summary:
Sure! Here's the updated email:
Certainly. Here is my rewrite:
Okay, here’s a short, playful and cheerful version for small children:
Here is the summary you asked for:
Here is a revised version of your summary:
Here is the text, changed to suit you:
Revised:
**Revision:**
Rewritten:
Edited:
Updated:
The revised version:
My edited text (shorter):
Improved summary for you:""".splitlines()
SAID = """I am here to email you three questions:
The council changed its draft plan:
What the updated version of the law says:
The updated version of the law:
Updated draft plan:
Improved air quality:
Here is the text of the law:
Here is what the updated version of the law says:
Here is how the team wants to edit the text:
Here's the good news:
Here are three questions:
Revision of the plan:
Summary:""".splitlines()


@pytest.mark.parametrize("line", ANNOUNCED)
def test_a_line_that_announces_the_rewrite_is_removed(line: str) -> None:
    assert user.clean_rewrite(f"{line}\n\nA text.") == "A text."
    assert user.clean_rewrite(f"{line} a text.") == f"{line} a text."


@pytest.mark.parametrize("line", SAID)
def test_a_line_that_says_something_stays(line: str) -> None:
    assert user.clean_rewrite(f"{line}\n- one") == f"{line}\n- one"


@pytest.mark.parametrize(
    "draft", ['"A text."', "Revised summary:\nA text.", "```\nA text.\n```", "‘Here is a text:’"]
)
@pytest.mark.parametrize("raw", ["{}", " {}\n", "<think>fine</think>{}", "Here is the text:\n{}"])
async def test_the_draft_returned_as_it_was_costs_nothing(draft: str, raw: str) -> None:
    role, _ = make_simulator("no", raw.format(draft))
    reaction = await user.react(
        role, PreludeSumm().texts, PreludeSumm.words, "THE DOCUMENT", draft, "short, dry", 99
    )
    assert reaction.final == draft
    assert role.flags["unchanged_rewrite"] == 1
    cleaned = strip_reasoning(raw.format(draft)).strip() != draft
    assert ("cleaned_rewrite" in role.flags) == cleaned


async def test_the_rewrite_sees_draft_and_preference_but_no_document() -> None:
    reaction, role, requests = await react("No.", "Revised text:\nA draft")
    assert reaction == user.Reaction("rewritten", "No.", "Revised text:\nA draft", "A draft")
    first, second = (
        "\n".join(message.content for message in request.messages) for request in requests
    )
    assert "THE DOCUMENT" in first
    assert "THE DOCUMENT" not in second
    assert all(text in prompt for text in ("a draft", "short, dry") for prompt in (first, second))
    assert [(request.temperature, request.top_p) for request in requests] == [(0.0, 0.95)] * 2
    assert requests[1].max_tokens == 99
    assert role.flags == {"cleaned_rewrite": 1}
    assert [call.phase for call in role.calls] == ["simulate"] * 2


async def test_an_accepted_draft_is_final_and_an_undecided_user_rewrites() -> None:
    reaction, role, requests = await react("yes")
    assert (reaction.decision, reaction.final, len(requests), role.flags) == (
        "accepted",
        "a draft",
        1,
        {},
    )
    reaction, role, requests = await react("Perhaps.", "a draft")
    assert (reaction.decision, reaction.final) == ("undecided", "a draft")
    assert role.flags == {"undecided": 1, "unchanged_rewrite": 1}


async def test_an_empty_rewrite_is_asked_for_once_more_and_then_stops_the_trajectory() -> None:
    reaction, role, requests = await react("no", " \n", "A draft")
    assert reaction.final == "A draft"
    assert role.flags["empty_rewrite"] == 1
    assert [request.repeat for request in requests] == [0, 0, 1]
    with pytest.raises(BackendError, match="empty twice"):
        await react("no", "", "<think>hm")


@pytest.mark.parametrize(
    "thought",
    ["<think>hm</think>", "<reasoning>hm</reasoning>", "hm</think>", "<think>a</think>b</think>"],
)
def test_reasoning_ends_where_its_mark_says(thought: str) -> None:
    assert strip_reasoning(f"{thought} A text. ") == "A text. "
    assert strip_reasoning(f"{thought}A text on <think>.") == "A text on <think>."


# Rules


def test_rules_are_checked_and_fixed_in_the_tables_order() -> None:
    for phrase, cost_free in zip(
        PHRASES, ("all lower", "- one", "right?", "☀", "Dear all"), strict=True
    ):
        (rule,) = parse_rules([phrase])
        assert rule.holds(cost_free)
        assert not rule.holds(BASE)
        assert rule.holds(rule.fix(BASE))
    rules = parse_rules(["at most 3 words", "bullet points", "all lower case"])
    assert word_preference(rules) == "all lower case; bullet points; at most 3 words"
    assert satisfy(BASE, rules) == "- the team"
    assert satisfy(BASE, parse_rules(["at most 3 words"])) == "The team met"
    assert (
        satisfy("- one\ntwo\n\n three", parse_rules(["bullet points"]))
        == "- one\n- two\n\n-  three"
    )
    assert satisfy("already low", parse_rules(["all lower case"])) == "already low"


@pytest.mark.parametrize(
    ("phrases", "message"),
    [
        (["sings"], "unknown rule 'sings'"),
        (["at most 3 words", "at most 4 words"], "one kind twice"),
        (["at most 4 words", "ends with a question"], "cannot all be kept"),
        (["uses an emoji", "at most 3 words"], "cannot all be kept"),
        (["all lower case", "opens with a greeting"], "cannot all be kept"),
        (["bullet points", "opens with a greeting"], "cannot all be kept"),
    ],
)
def test_rules_that_cannot_be_kept_together_are_refused(phrases: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_rules(phrases)


@pytest.mark.parametrize("limit", [0, 1, 3, 10])
def test_every_set_of_rules_that_is_taken_can_be_kept_by_any_text(limit: int) -> None:
    """Short lines and lone marks above all: "- a" and "-" must not come of a cut between them."""
    rng = random.Random(limit)
    pieces = ["a", "Hi", " ", "\n", "\n\n", "-", "- ", "?", "🙂", "\u2028", "\t"]
    texts = [
        "a\n\nb c d",
        "- a\n\n-",
        *("".join(rng.choices(pieces, k=rng.randrange(12))) for _ in range(400)),
    ]
    accepted = 0
    for size in (1, 2, 3):
        for phrases in combinations([*PHRASES, f"at most {limit} words"], size):
            try:
                rules = parse_rules(phrases)
            except ValueError:
                continue
            accepted += 1
            for text in texts:
                assert list_broken(satisfy(text, rules), rules) == [], (phrases, text)
                assert list_broken(text, rules) or satisfy(text, rules) == text
            assert list_broken(f"… word {make_disliked(rules)}", rules) == list(
                word_preference(rules).split("; ")
            )
    assert accepted == 13


async def test_a_draft_is_accepted_when_all_rules_hold_and_not_when_their_fixes_cancel_out() -> (
    None
):
    task = PreludeSumm(PreludeSumm.Params(user="rule"))
    hidden = {
        "preference": "bullet points; at most 3 words",
        "t": "0",
        "rounds": "1",
        "doc_id": "d",
        "source": "s",
    }
    for draft, decision, final in (
        ("- a\n\n-", "rewritten", "- a"),
        ("- a\n\n", "accepted", "- a"),
    ):
        _, interaction = await task.react(
            Sample("r", "u", "", hidden=hidden), draft, make_simulator()[0]
        )
        assert (interaction["decision"], interaction["final"]) == (decision, final)
        assert (interaction["cost"] > 0) == (decision == "rewritten")
