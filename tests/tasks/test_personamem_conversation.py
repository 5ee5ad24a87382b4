"""PersonaMem's histories: as records, and as conversations that chat models accept."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from personamem_files import row, talk, write

from personabench.models.tokens import EstimatedTokens
from personabench.tasks.personamem import PersonaMem, conversation
from personabench.tasks.personamem.files import Turn
from personabench.types import Sample

TALK = talk("SUUASU")
TURNS = [Turn(message["role"], message["content"]) for message in TALK]
TEXTS = [turn.content for turn in TURNS if turn.role == "user"]


def sample_of(
    folder: Path, messages: list[dict[str, str]], end: int, **params: Any
) -> tuple[PersonaMem, Sample]:
    task = PersonaMem(PersonaMem.Params(**params))
    return task, task.open("32k", write(folder, [row("q1", messages, end)], [messages])).load(
        0
    ).view()


def test_acceptance_4_merge_alternates_and_keeps_everything() -> None:
    messages, flags = conversation.make_messages(TURNS, "QUERY", "merge")
    assert [message.role for message in messages] == ["user", "assistant", "user"] and not flags
    assert messages[0].content == "[System]: Current user persona: S0\nUser: U1\nUser: U2"
    assert messages[2].content == "[System]: Current user persona: S4\nUser: U5\nQUERY"


@pytest.mark.parametrize("roles", ["merge", "raw", "hoist", "transcript"])
def test_acceptance_4_every_mode_keeps_all_user_text_and_ends_with_the_question(
    roles: conversation.Roles,
) -> None:
    messages, _ = conversation.make_messages(TURNS, "QUERY", roles)
    text = "\n".join(message.content for message in messages)
    assert (
        all(user_text in text for user_text in TEXTS)
        and messages[-1].role == "user"
        and messages[-1].content.endswith("QUERY")
    )
    if roles != "raw":
        spoken = [message.role for message in messages if message.role != "system"]
        assert all(a != b for a, b in itertools.pairwise(spoken))


def test_acceptance_4_hoist_gathers_distinct_system_texts_and_marks_blocks() -> None:
    same = [turn._replace(content="P") if turn.role == "system" else turn for turn in TURNS]
    messages, _ = conversation.make_messages(same, "QUERY", "hoist")
    assert messages[0].role == "system" and messages[0].content == "P"
    assert "\n".join(message.content for message in messages).count(conversation.BLOCK) == 2
    assert (
        conversation.make_messages(TURNS, "Q", "hoist")[0][0].content.count("Current user persona")
        == 2
    )


def test_an_assistant_who_would_speak_first_is_answered_to_and_counted(tmp_path: Path) -> None:
    messages, flags = conversation.make_messages(
        [Turn("assistant", "Assistant: hi"), Turn("user", "User: yo")], "Q", "merge"
    )
    assert [message.role for message in messages] == ["user", "assistant", "user"]
    assert messages[0].content == conversation.NEUTRAL and flags == {"neutral_turns": 1}


@pytest.mark.parametrize("unit", ["user", "message", "exchange", "block"])
@pytest.mark.parametrize("roles", ["SUUASU", "UA", "SAUAUUASAU", "SUAS", "USAUAA", "AUA"])
def test_records_of_every_kind_make_up_the_conversation(
    unit: conversation.Unit, roles: str
) -> None:
    turns = [Turn(message["role"], message["content"]) for message in talk(roles)]
    cuts = conversation.ConversationRecords(turns, unit)
    for end in range(len(turns) + 1):
        assert cuts.before(end) == conversation.make_records(turns[:end], unit), (
            "a cut equals a fresh build"
        )
        assert conversation.restore_turns(cuts.before(end)) == (
            turns[:end] if cuts.before(end) else []
        )
    history_records = conversation.make_records(turns, unit)
    assert len({record.id for record in history_records}) == len(history_records)
    assert not any("persona" in record.response for record in history_records), (
        "system messages are no records"
    )


def test_records_of_each_kind() -> None:
    def texts(unit: conversation.Unit) -> list[str]:
        return [record.response for record in conversation.make_records(TURNS, unit)]

    assert texts("user") == ["U1", "U2", "U5"]
    assert texts("message") == ["U1", "U2", "A3", "U5"]
    assert texts("exchange") == ["User: U1\nUser: U2\nAssistant: A3", "User: U5"]
    assert texts("block") == ["User: U1\nUser: U2\nAssistant: A3", "User: U5"]


def test_prefixes_are_dropped_once_and_only_at_the_front() -> None:
    assert conversation.strip_speaker("User: User: x") == "User: x"
    assert conversation.strip_speaker("Tell the User: hello") == "Tell the User: hello"


def test_persona_is_kept_by_default_and_can_be_switched_off(tmp_path: Path) -> None:
    task, sample = sample_of(tmp_path, TALK, 6)
    assert "persona: S0" in task.chat(sample, sample.history).messages[0].content
    assert task.persona(sample) == "Current user persona: S0"
    off = PersonaMem(PersonaMem.Params(persona=False))
    assert "persona" not in repr(off.chat(sample, sample.history).messages)


def test_a_part_of_a_history_still_opens_with_the_persona(tmp_path: Path) -> None:
    task, sample = sample_of(tmp_path, TALK, 6)
    partial_messages = task.chat(sample, sample.history[1:2]).messages
    assert partial_messages[0].content.startswith("[System]: Current user persona: S0\nUser: U2")
    assert "U5" not in repr(partial_messages)


def test_acceptance_10_the_bare_request_holds_no_history_and_no_persona(tmp_path: Path) -> None:
    task, sample = sample_of(tmp_path, TALK, 6)
    (message,) = task.render(sample, (), "", EstimatedTokens()).messages
    assert message.content == sample.input and message.role == "user"
    for hidden in ("U1", "A3", "persona"):
        assert hidden not in message.content


def test_extracts_and_notes_stand_before_an_unchanged_question(tmp_path: Path) -> None:
    task, sample = sample_of(tmp_path, TALK, 6)
    head, question = task.render(
        sample, sample.history[::-1], "Likes tea.", EstimatedTokens()
    ).messages
    assert question.content == sample.input
    assert head.content == (
        "What is known about the user:\nLikes tea.\n\n"
        "From earlier conversations with the user:\n\nUser: U5\n\nUser: U2\n\nUser: U1"
    )


def test_a_reply_to_anything_but_the_tasks_question_is_text() -> None:
    sample = Sample("x", "u", "Write something.", choices=("(a)", "(b)"))
    assert PersonaMem().parse(" I like (a) tea. ", sample, "lenient") == "I like (a) tea."
