"""Prompts of LaMP: the official template with its length budget, and the chat template."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from lamp_files import CITATION, Whitespace, record, sample, words_of

from personabench.api.params import fill_params
from personabench.api.task import Task
from personabench.errors import UsageError
from personabench.tasks import lamp
from personabench.tasks.lamp.forms import FORMS

TASKS: dict[str, type[Task]] = {
    cls.name: cls for cls in (getattr(lamp, name) for name in lamp.__all__)
}
TOKENS = Whitespace()


def official(task: str, length: int | None = None) -> Task:
    cls = TASKS[task]
    return cls(cls.Params(template="lamp-official", length=length))  # type: ignore[call-arg]


def prompt(rendered: Any) -> str:
    (message,) = rendered.messages
    assert message.role == "user"
    return str(message.content)


def test_acceptance_8_quotes_in_titles() -> None:
    text = CITATION.format(title='On "A" and "B"', one='The "First" One', two='Second, "Quoted"')
    target = sample("lamp1", text=text)
    assert lamp.Lamp1().query_text(target) == 'The "First" One Second, "Quoted"'
    records = [record("lamp1", 0, title="t1"), record("lamp1", 1, title="t2")]
    rendered = official("lamp1").render(target, records, "", TOKENS)
    assert prompt(rendered).startswith(
        "For an author who has written the paper with the title, "
        'and "t1", and "t2" "On "A" and "B"", which reference'
    )


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("lamp2m", 'the tag for the movie: "A baker inherits a circus." is "comedy" . {input}'),
        (
            "lamp2n",
            'the category for the article: "The cup final was sold out." is "sports" . {input}',
        ),
        ("lamp3", '4 is the score for "Solid kettle, loud lid." . {input}'),
        (
            "lamp4",
            '"Bridge Shut Again" is the title for "The old bridge is closed for repairs." '
            ". {input}",
        ),
        (
            "lamp5",
            '"On Ferns" is a title for "We count ferns." . Following the given patterns {input}',
        ),
        (
            "lamp6",
            '"Lunch on Friday" is the title for "Shall we meet for lunch on Friday?" . {input}',
        ),
        (
            "lamp7",
            '"rain again lol"  are written by a person. Following the given patterns {input}',
        ),
    ],
)
def test_official_prompts(task: str, expected: str) -> None:
    rendered = official(task).render(sample(task), [record(task)], "", TOKENS)
    assert prompt(rendered) == expected.format(input=words_of(task))


def test_official_entries_are_joined_best_first() -> None:
    records = [record("lamp7", 0, text="first"), record("lamp7", 1, text="second")]
    assert prompt(official("lamp7").render(sample("lamp7"), records, "", TOKENS)).startswith(
        '"first" , and "second"  are'
    )


def test_braces_in_texts_are_text() -> None:
    entry_record = record("lamp3", text="{score} {0} }{")
    assert '"{score} {0} }{"' in prompt(
        official("lamp3").render(sample("lamp3"), [entry_record], "", TOKENS)
    )


def review(words: int) -> str:
    return " ".join(f"w{number}" for number in range(words))


def cut_words(rendered: Any) -> list[int]:
    """How many review words each shown entry kept."""
    return [len(part.split('"')[1].split()) for part in prompt(rendered).split(", and ")]


def test_acceptance_9_unused_tokens_are_carried_to_the_next_entry() -> None:
    target = sample("lamp3", text=f"review: {review(11)}")
    task = official("lamp3", length=40)
    records = [record("lamp3", 0, text=review(2)), record("lamp3", 1, text=review(30))]
    rendered = task.render(target, records, "", TOKENS)
    assert cut_words(rendered) == [2, 8]
    assert rendered.flags == {"tokens_dropped": 22}
    assert cut_words(task.render(target, records[1:], "", TOKENS)) == [20]


@pytest.mark.parametrize(
    ("task", "words"),
    [
        # The benchmark's script charges `"On Ferns" is a title " "`, 7 words, and 4 of the bridge.
        ("lamp5", 60 - 12 - 1 - 4 - 7),
        # It charges `""`, and "are written by user. Following the given patterns".
        ("lamp7", 60 - 12 - 1 - 8 - 1),
    ],
)
def test_the_budget_charges_the_words_that_the_benchmark_charges(task: str, words: int) -> None:
    target = sample(task, text=review(12))
    entry_record = record(task, **{FORMS[task].long_field: review(99)})
    rendered = official(task, length=60).render(target, [entry_record], "", TOKENS)
    assert f"w{words - 1}" in prompt(rendered) and f"w{words}" not in prompt(rendered)
    assert rendered.flags["tokens_dropped"] == 99 - words


def test_acceptance_9_without_room_the_input_stays_bare() -> None:
    target = sample("lamp3", text=f"review: {review(19)}")
    records = [record("lamp3", number, text=review(9)) for number in range(4)]
    rendered = official("lamp3", length=10).render(target, records, "", TOKENS)
    assert prompt(rendered) == f"review: {review(9)}"
    assert rendered.records == ()
    assert rendered.flags == {"bare_fallback": 1, "input_truncated": 1}


def test_a_long_input_loses_its_tail_without_records_too() -> None:
    rendered = official("lamp7", length=5).render(sample("lamp7"), [], "", TOKENS)
    assert prompt(rendered) == "Paraphrase the following tweet without"
    assert rendered.flags == {"input_truncated": 1}


@pytest.mark.parametrize("task", sorted(FORMS))
@pytest.mark.parametrize("length", [8, 40, 90, 256])
def test_official_prompts_keep_their_budget(task: str, length: int) -> None:
    long = FORMS[task].long_field
    records = [record(task, number, **{long: review(60)}) for number in range(4)]
    rendered = official(task, length).render(sample(task), records, "", TOKENS)
    assert TOKENS.count(prompt(rendered)) <= length
    assert rendered.flags.get("bare_fallback", 0) == (not rendered.records)


def test_short_fields_are_never_cut() -> None:
    entry_record = record("lamp4", title="A Title of Six Whole Words", text=review(99))
    assert '"A Title of Six Whole Words"' in prompt(
        official("lamp4", 60).render(sample("lamp4"), [entry_record], "", TOKENS)
    )


def test_chat_puts_the_best_record_next_to_the_question() -> None:
    records = [
        record("lamp4", 0, text="Best.", title="B"),
        record("lamp4", 1, text="Worse.", title="W"),
    ]
    rendered = lamp.Lamp4().render(sample("lamp4"), records, "", TOKENS)
    assert [(message.role, message.content) for message in rendered.messages] == [
        ("user", "Generate a headline for the following article: Worse."),
        ("assistant", "W"),
        ("user", "Generate a headline for the following article: Best."),
        ("assistant", "B"),
        ("user", words_of("lamp4")),
    ]


@pytest.mark.parametrize("task", sorted(set(FORMS) - {"lamp1", "lamp7"}))
def test_chat_states_the_contract_beside_shown_answers_for_labels_only(task: str) -> None:
    rendered = TASKS[task]().render(sample(task), [record(task)], "", TOKENS)
    stated = [TASKS[task].words.instruction in message.content for message in rendered.messages]
    assert stated == [bool(FORMS[task].labels), False, False]


@pytest.mark.parametrize("task", ["lamp1", "lamp7"])
def test_chat_lists_records_that_have_no_stimulus(task: str) -> None:
    records = [record(task, 0), record(task, 1)]
    rendered = TASKS[task]().render(sample(task), records, "", TOKENS)
    assert [message.role for message in rendered.messages] == ["system", "user"]
    assert rendered.messages[0].content.count(records[0].response) == 2


@pytest.mark.parametrize("task", sorted(FORMS))
def test_chat_without_records_and_notes_is_the_input_and_the_contract(task: str) -> None:
    rendered = TASKS[task]().render(sample(task), [], "", TOKENS)
    assert prompt(rendered) == f"{words_of(task)}\n\n{TASKS[task].words.instruction}"
    assert rendered.flags == {}


@pytest.mark.parametrize("template", ["chat", "lamp-official"])
def test_notes_are_introduced(template: Any) -> None:
    task = lamp.Lamp4(lamp.Lamp4.Params(template=template))
    messages = task.render(sample("lamp4"), [], "Writes in questions.", TOKENS).messages
    assert "About this author:\nWrites in questions." in messages[0].content


def test_labels_keep_the_order_of_the_input_shown() -> None:
    target = sample(
        "lamp2m", text="Which tag? tags: [action, comedy] description: A lighthouse keeper sings."
    )
    rendered = lamp.Lamp2M().render(target, [record("lamp2m")], "", TOKENS)
    entry_record = "Which tag? tags: [action, comedy] description: A baker inherits a circus."
    assert rendered.messages[0].content.startswith(entry_record)


def test_a_missing_marker_is_flagged_and_the_whole_input_searched() -> None:
    target = sample("lamp2m", text="A lighthouse keeper sings.")
    for task in (lamp.Lamp2M(), official("lamp2m")):
        rendered = task.render(target, [record("lamp2m")], "", TOKENS)
        assert rendered.flags == {"query_fallback": 1}
        assert task.query_text(target) == "A lighthouse keeper sings."


@pytest.mark.parametrize(
    ("task", "query", "document"),
    [
        ("lamp1", "Ferns in Town Roofs of Lead", "Ferns on Roofs Ferns grow on old roofs."),
        ("lamp2m", "Seven words of text for a question", "A baker inherits a circus."),
        ("lamp2n", "Seven words of text for a question", "Cup Final The cup final was sold out."),
        ("lamp3", "Seven words of text for a question", "Solid kettle, loud lid."),
        (
            "lamp4",
            "Seven words of text for a question",
            "Bridge Shut Again The old bridge is closed for repairs.",
        ),
        ("lamp5", "Seven words of text for a question", "On Ferns We count ferns."),
        ("lamp6", "Seven words of text for a question", "Shall we meet for lunch on Friday?"),
        ("lamp7", "Seven words of text for a question", "rain again lol"),
    ],
)
def test_retrieval_texts(task: str, query: str, document: str) -> None:
    assert TASKS[task]().query_text(sample(task)) == query
    assert TASKS[task]().document_text(record(task)) == document


def test_dates_join_the_document_only_when_asked() -> None:
    dated = msgspec.structs.replace(record("lamp7"), time="2020-01-02")
    assert lamp.Lamp7().document_text(dated) == "rain again lol"
    assert (
        lamp.Lamp7(lamp.Lamp7.Params(dates=True)).document_text(dated)
        == "rain again lol date: 2020-01-02"
    )


def test_length_needs_the_official_template() -> None:
    assert (
        fill_params(
            lamp.Lamp4.Params, {"template": "lamp-official", "length": "256"}, "lamp4"
        ).length
        == 256
    )
    for options in (
        {"length": "256"},
        {"template": "lamp-official", "length": "0"},
        {"template": "other"},
    ):
        with pytest.raises(UsageError, match="lamp4"):
            fill_params(lamp.Lamp4.Params, options, "lamp4")


# The wording for larger models


def in_full(task: str, records: int = 0, notes: str = "") -> list[str]:
    """The messages of a request in the wording `full`."""
    worded = TASKS[task]()
    worded.choose_wording("full")
    shown = [record(task, number) for number in range(records)]
    rendered = worded.render(sample(task), shown, notes, TOKENS)
    return [message.content for message in rendered.messages]


@pytest.mark.parametrize(
    ("task", "ending"),
    [
        (
            "lamp4",
            "Write the headline in this author's own style.\n\nReply with the headline only.",
        ),
        ("lamp5", "Write the title in this author's own style.\n\nReply with the title only."),
        ("lamp3", "Score the review as this reviewer would."),
        ("lamp7", "Write the tweet in this person's own style."),
    ],
)
def test_the_full_wording_asks_for_the_users_own_style(task: str, ending: str) -> None:
    for shown in (in_full(task, records=1), in_full(task, notes="Short.")):
        assert shown[-1] == f"{words_of(task)}\n\n{ending}"
        assert not any("Reply with" in text for text in shown[:-1])


def test_the_full_wording_without_a_history_is_the_input_and_the_form() -> None:
    assert in_full("lamp4") == [f"{words_of('lamp4')}\n\nReply with the headline only."]
    # The benchmark's input states the form itself.
    assert in_full("lamp2m") == [words_of("lamp2m")]
    assert in_full("lamp7") == [words_of("lamp7")]


def test_the_content_of_an_input_leaves_its_form_out() -> None:
    for task in ("lamp1", "lamp2m", "lamp2n", "lamp3", "lamp7"):
        form = FORMS[task]
        text = words_of(task) if task != "lamp1" else CITATION.format(title="T", one="A", two="B")
        target = sample(task, text=text)
        content = TASKS[task]().render_content(target, [], "", TOKENS)
        assert content is not None
        assert form.answer_rule in text
        assert content.messages[-1].content == text.replace(form.answer_rule, "")


def test_profiles_of_authors_are_not_asked_for_citations_in_the_full_wording() -> None:
    task = lamp.Lamp1()
    assert "cite" in task.words.profile_question
    task.choose_wording("full")
    assert "cite" not in task.words.profile_question
    task.choose_wording("compact")
    assert "cite" in task.words.profile_question
