"""PrefDisco's conversation: parsing of actions, end of the loop, and visibility."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prefdisco_files import WANTS, make_judge, make_row, play, word_reply, write_set

from personabench import Request
from personabench.tasks.prefdisco.conversation import parse_reply, remove_labels
from personabench.tasks.prefdisco.wording import DISCOVERY, FINAL, NOTHING_MORE, STOP

ASK = "Action: ask_question\nResponse: How long should it be?"
ANSWER = "Action: final_answer\nResponse: The early answer."


def model(turns: list[str]) -> Callable[[Request], str]:
    """Play the given turns, then the final answer; other texts in the other conditions."""

    def answer(request: Request) -> str:
        if not request.messages[0].content.startswith("You help one particular user"):
            return "known" if request.messages[0].role == "system" else "base"
        if request.messages[-1].content.endswith(FINAL):
            return "Response: The last answer."
        return turns[sum(message.role == "assistant" for message in request.messages)]

    return answer


def count_calls(
    tmp_path: Path, turns: list[str], replies: list[str] | None = None, **settings: str
) -> tuple[int, int, float]:
    """(model calls, simulator calls, answered questions) of the discovery of one record."""
    spoken = iter(replies or ["Short, please."] * 20)
    data = write_set(tmp_path / "data", [make_row(0, "ann")])
    assignments = [f"task.{name}={value}" for name, value in settings.items()]
    run = play(
        tmp_path / "results",
        data,
        model(turns),
        simulator=lambda _: word_reply(next(spoken)),
        assignments=assignments,
    )
    requests = [
        request
        for request in run.model.requests
        if request.messages[0].content.startswith("You help one part")
    ]
    return len(requests), len(run.roles["simulator"].requests), run.metrics["questions"]


@pytest.mark.parametrize(
    ("turns", "settings", "replies", "counts"),
    [
        ([ANSWER], {}, None, (2, 0, 0)),
        ([ASK, f"{ASK} 2", ANSWER], {}, None, (4, 2, 2)),
        ([f"{ASK} {number}" for number in range(9)], {}, None, (6, 5, 5)),
        (
            [f"{ASK} {number}" for number in range(9)],
            {"simulator": "passive"},
            ["a", "b", STOP],
            (4, 3, 2),
        ),
        ([f"Question {number}?" for number in range(9)], {"fixed_questions": "4"}, None, (5, 4, 4)),
        (
            [ANSWER, *[f"Question {number}?" for number in range(9)]],
            {"fixed_questions": "4"},
            None,
            (5, 4, 4),
        ),
        ([ASK] * 4, {"fixed_questions": "2", "simulator": "passive"}, [STOP, STOP], (3, 2, 2)),
    ],
)
def test_acceptance_2_the_loop(
    tmp_path: Path,
    turns: list[str],
    settings: dict[str, str],
    replies: list[str] | None,
    counts: tuple[int, int, int],
) -> None:
    assert count_calls(tmp_path, turns, replies, **settings) == counts


@pytest.mark.parametrize(
    ("reply", "action", "text"),
    [
        ("Action: ask_question\nResponse: Why?", "ask", "Why?"),
        ('"Action": "final_answer"\n"Response": "It is B."', "final", "It is B."),
        ("Action: [final_answer]\nResponse: [It is B.]", "final", "It is B."),
        ("ACTION: FINAL_ANSWER\nRESPONSE: It is B.", "final", "It is B."),
        ("###ACTION###: ['ask_question']\n###RESPONSE###: Why [so]?", "ask", "Why [so]?"),
        ("**Action:** final answer\n**Response:** It is **B**.", "final", "It is **B**."),
        ('{"action": "final_answer", "response": "It is B."}', "final", "It is B."),
        ("Action: ask_question\nWhich is the answer?", "ask", "Which is the answer?"),
        ("Action: final_answer\nResponse: Is the answer B?", "final", "Is the answer B?"),
        ("The answer is B, is it not?", "ask", "The answer is B, is it not?"),
        ("In conclusion, the answer is B.", "final", "In conclusion, the answer is B."),
        (
            "The answer is B. Would you like to know more.",
            "ask",
            "The answer is B. Would you like to know more.",
        ),
        ("Tell me about yourself.", "ask", "Tell me about yourself."),
        ("", "ask", ""),
    ],
)
def test_acceptance_3_actions(reply: str, action: str, text: str) -> None:
    assert parse_reply(reply) == (action, text)


def test_a_reply_without_labels_is_left_as_it_is() -> None:
    text = 'First:\n\n"Nothing" is labelled here, and an (aside) stays.'
    assert remove_labels(text) == text


def test_acceptance_4_visibility(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", [make_row(0, "ann")])
    run = play(
        tmp_path / "results",
        data,
        model([ASK, ANSWER]),
        simulator=lambda _: word_reply("I read on a small screen."),
    )
    base, informed, *talk = (request.messages for request in run.model.requests)
    persona = (
        "Pat",
        "summary of ann",
        "backstory",
        "Ulm",
        "baker",
        *WANTS,
        "because",
        "answer first",
    )
    assert [message.role for message in base] == ["user"]
    assert not [word for word in persona if word in base[0].content]
    assert all(word in informed[0].content for word in persona)
    assert informed[1:] == base
    assert len(talk) == 3
    assert all(messages[0].content == DISCOVERY for messages in talk)
    visible = "\n".join(
        message.content for messages in talk for message in messages if message.role == "user"
    )
    assert "I read on a small screen." in visible
    assert not [word for word in (*persona, "what is asked?") if word in visible]
    (simulated,) = run.roles["simulator"].requests
    contents = [message.content for message in simulated.messages]
    assert "because Length" in contents[0]
    assert contents[1:] == ["How long should it be?"]
    assert not any("problem number 0" in text for text in contents)
    assert (simulated.temperature, simulated.messages[1].role) == (0.4, "user")


def test_acceptance_5_the_final_reply(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", [make_row(0, "ann")])
    run = play(
        tmp_path / "results",
        data,
        model([ASK, ASK]),
        simulator=lambda request: word_reply(
            f"Very short. {STOP}" if len(request.messages) > 2 else "Short."
        ),
        judge=make_judge(),
        assignments=["task.simulator=passive"],
    )
    judged = [request.messages[-1].content for request in run.roles["judge"].requests]
    final = [text for text in judged if "The last answer." in text]
    assert final
    assert not [text for text in judged if STOP in text or "Response:" in text or "Action:" in text]
    assert not any(
        STOP in message.content for request in run.model.requests for message in request.messages
    )
    condition = run.lines["problem_0_ann"].interaction["conditions"]["final"]
    assert (condition["raw"], condition["output"]) == (
        "Response: The last answer.",
        "The last answer.",
    )
    assert (condition["ended"], condition["questions"], condition["turns"][1]["answer"]) == (
        "stop",
        2,
        "Very short.",
    )


def test_the_final_request_joins_the_users_last_message(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", [make_row(0, "ann")])
    messages = play(tmp_path / "asked", data, model([ASK, ANSWER])).model.requests[-1].messages
    assert [message.role for message in messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert messages[-1].content == FINAL
    stopped = (
        play(tmp_path / "five", data, model([f"{ASK} {number}" for number in range(5)]))
        .model.requests[-1]
        .messages
    )
    assert stopped[-1].content == f"Short, please.\n\n{FINAL}"


def test_fixed_questions_are_numbered_from_one(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", [make_row(0, "ann")])
    run = play(
        tmp_path / "results",
        data,
        model(["One?", "Two?"]),
        assignments=["task.fixed_questions=2"],
        simulator=lambda request: (
            word_reply(STOP) if len(request.messages) > 2 else word_reply("Short.")
        ),
    )
    first, second, last = (request.messages for request in run.model.requests[2:])
    assert "you ask 2 short questions" in first[0].content
    assert "Action" not in first[0].content
    assert first[1].content.endswith("third thing\n\n(Question 1 of 2.)")
    assert second[-1].content == "Short.\n\n(Question 2 of 2.)"
    assert last[-1].content == f"{NOTHING_MORE}\n\n{FINAL}"


def test_a_simulator_without_json_is_accepted_in_the_end(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", [make_row(0, "ann")])
    run = play(
        tmp_path / "plain", data, model([ASK, ANSWER]), simulator=lambda _: "Short, if you can."
    )
    assert len(run.roles["simulator"].requests) == 4
    assert run.summary.counters["simulator_plain"] == 1
    assert run.model.requests[-1].messages[3].content == "Short, if you can."


def test_a_broken_form_fails_the_record_and_is_taken_up_again(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", [make_row(0, "ann")])
    broken = '{"thought": "I want it short", "response": '
    run = play(tmp_path / "results", data, model([ASK, ANSWER]), simulator=lambda _: broken)
    (line,) = run.lines.values()
    assert line.error
    assert "could be parsed in 4 attempts" in line.error
    assert line.output is None
    assert run.summary.owed == 1
    again = play(tmp_path / "results", data, model([ASK, ANSWER]))
    assert again.summary.owed == 0
    assert again.metrics["questions"] == 1
    assert not [
        request for request in again.model.requests if request.messages[0].role == "user"
    ], "base was paid twice"
