"""RPM on questions with choices, and the notes of its predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rpm_fixtures import Headlines, ScriptedTask, pairs, question, reply, rpm, stage

from personabench import Record, Request, Sample
from personabench.api import registry
from personabench.testing.trials import trial

FORM = 'Reply with a JSON object: "reasoning", and "answer", which is '
LETTERS = {"enum": ["(a)", "(b)", "(c)", "(d)"]}


def answered(request: Request) -> str:
    """Reply with one preference per window of a chat."""
    if stage(request) == "X0" and request.schema:
        return json.dumps(
            {
                "items": [
                    {
                        "situation": "tea #tea",
                        "preference": "likes tea",
                        "message": 1,
                    }
                ]
            }
        )
    return reply(request)


@pytest.mark.parametrize(
    ("task", "form", "choices"),
    [
        (
            "lamp1",
            "one of these, in exactly this form: [1] or [2].",
            {"enum": ["[1]", "[2]"]},
        ),
        (
            "personamem",
            "one of these, in exactly this form: (a), (b), (c) or (d).",
            LETTERS,
        ),
        ("lamp2m", "one of the tags alone.", {}),
        ("lamp3", "1, 2, 3, 4 or 5 alone.", {}),
        ("lamp4", "the headline alone.", {}),
        ("prefdisco_warm", "the answer to the problem alone.", {}),
    ],
)
def test_the_request_states_the_form_that_the_task_parses(
    task: str, form: str, choices: Any
) -> None:
    result = trial(
        rpm(),
        task=task,
        limit=1,
        answer=answered,
    )
    final_requests = [
        request for request in result.requests if FORM in request.messages[-1].content
    ]
    assert final_requests
    for request in final_requests:
        assert request.messages[-1].content.split(FORM)[1] == form
        assert (request.schema or {})["properties"]["answer"] == {"type": "string", **choices}


async def test_choices_do_not_constrain_a_task_that_accepts_any_text(tmp_path: Path) -> None:
    sample = question(pairs("a", "b"), choices=("(a)", "(b)"))
    _, _, requests = await ScriptedTask(tmp_path, Headlines()).ask(rpm(), sample)
    assert "the headline alone" in requests[-1].messages[-1].content
    assert "enum" not in (requests[-1].schema or {})["properties"]["answer"]


CITATION = (
    'For an author who has written the paper with the title "Own work", which reference is '
    "related? Just answer with "
    '[1] or [2] without explanation. [1]: "First one" [2]: "Second one"'
)


@pytest.mark.parametrize(
    ("question_text", "query", "fallbacks"),
    [
        (CITATION, "Own work\nFirst one Second one", 0),
        (
            CITATION.replace("[2]: ", "or "),
            CITATION.replace("[2]: ", "or "),
            1,
        ),
    ],
)
async def test_a_citation_is_looked_up_by_its_titles(
    tmp_path: Path,
    question_text: str,
    query: str,
    fallbacks: int,
) -> None:
    history = tuple(
        Record(
            f"r{index}",
            None,
            f"Paper {index}\nAbout #war",
            fields={"title": f"Paper {index}", "abstract": "About #war"},
        )
        for index in range(2)
    )
    setup = ScriptedTask(tmp_path, registry.load_class("task", "lamp1")())
    _, flags, requests = await setup.ask(
        rpm(),
        Sample(
            "q",
            "ann",
            question_text,
            history=history,
            choices=("[1]", "[2]"),
        ),
    )
    (located,) = [request for request in requests if stage(request) == "X5"]
    assert located.messages[1].content == f"Research: {query}"
    assert flags.get("query_fallback", 0) == fallbacks


def test_the_notes_of_a_prediction_explain_it() -> None:
    result = trial(
        rpm(k=2),
        task="lamp2m",
        limit=2,
        answer=reply,
    )
    for line in result.predictions:
        record = line.interaction["method"]
        assert record["features"] == [
            {
                "name": "topic",
                "context": "about topic",
                "factor": "Ftopic",
            }
        ]
        assert len(record["examples"]) == 2
        assert record["reasoning"] == "as before"


@pytest.mark.parametrize("examples", [True, False])
async def test_missing_features_are_counted_with_and_without_examples(
    tmp_path: Path, examples: bool
) -> None:
    def featureless(request: Request) -> str:
        return '{"features": []}' if stage(request) in ("X1", "X5") else reply(request)

    setup = ScriptedTask(tmp_path, answer=featureless)
    _, flags, _ = await setup.ask(rpm(use_examples=examples), question(pairs("a", "b")))
    assert flags["query_without_features"] == 1
    assert flags["items_without_features"] == 2


def chat(*messages: str) -> tuple[Record, ...]:
    return tuple(
        Record(
            f"m{index}",
            None,
            message,
            fields={"role": "user"},
        )
        for index, message in enumerate(messages)
    )


@pytest.mark.parametrize(
    ("index", "unplaced"),
    [
        (1, 0),
        (1.0, 0),
        ("1", 0),
        ("message 1", 0),
        ([1], 0),
        ("1 or 3", 1),
        (9, 1),
        (None, 1),
        ("9" * 5000, 1),
    ],
)
async def test_positions_of_preferences_are_parsed_tolerantly(
    tmp_path: Path, index: Any, unplaced: int
) -> None:
    def stated(request: Request) -> str:
        rows = [("new", 1 if unplaced else 2), ("old", index)]
        items = [
            {
                "situation": "#tea",
                "preference": preference,
                "message": position,
            }
            for preference, position in rows
        ]
        return json.dumps({"items": items}) if stage(request) == "X0" else reply(request)

    setup = ScriptedTask(tmp_path, answer=stated)
    history = chat("I like #tea", "now I hate #tea", "weather")
    _, flags, requests = await setup.ask(rpm(), question(history, "Which #tea?"))
    notes = requests[-1].messages[0].content
    assert f"newest (message {0 if unplaced else 1}): new; earlier (message 0): old" in notes
    assert flags.get("preferences_unplaced", 0) == unplaced


async def test_of_two_preferences_in_one_message_the_later_stated_is_newer(tmp_path: Path) -> None:
    def stated(request: Request) -> str:
        items = [
            {"situation": "#tea", "preference": preference, "message": 1}
            for preference in ("zebra tea", "all tea")
        ]
        return json.dumps({"items": items}) if stage(request) == "X0" else reply(request)

    _, _, requests = await ScriptedTask(tmp_path, answer=stated).ask(
        rpm(), question(chat("#tea"), "Which #tea?")
    )
    assert (
        "newest (message 0): all tea; earlier (message 0): zebra tea"
        in requests[-1].messages[0].content
    )


@pytest.mark.parametrize("broken", ["X1", "X6"])
async def test_lone_surrogates_in_a_reply_do_not_stop_a_run(tmp_path: Path, broken: str) -> None:
    # Such text cannot be encoded, so writing it would fail at the end of the run.
    halves = {
        "X1": '{"features": [{"name": "smile \\ud83d", "context": "c"}]}',
        "X6": '{"answer": "nice \\ud83d"}',
    }

    def answer(request: Request) -> str:
        return halves[broken] if stage(request) == broken else reply(request)

    state, _ = await ScriptedTask(tmp_path, answer=answer).study(rpm(), question(pairs("a", "b")))
    output, _, _ = await ScriptedTask(tmp_path, answer=answer).ask(rpm(), question(pairs("a", "b")))
    assert msgspec.json.encode([state, output])
    assert output == ("nice \ufffd" if broken == "X6" else "The answer")


async def test_numbers_of_any_length_do_not_stop_a_run(tmp_path: Path) -> None:
    # Python refuses to convert integers of more than 4,300 digits.
    huge = "9" * 5000

    def answer(request: Request) -> str:
        match stage(request):
            case "X2":
                return json.dumps(
                    {
                        "factors": [
                            {
                                "factor": "F",
                                "description": "d",
                                "ids": [huge, "2", 1.0],
                            }
                        ]
                    }
                )
            case "X3":
                return json.dumps({"judgements": [{"id": huge}, {"id": "1.", "influential": True}]})
        return reply(request)

    setup = ScriptedTask(tmp_path, answer=answer)
    state, _ = await setup.study(rpm(), question(pairs("a")))
    features = state["items"][0]["features"]
    assert [feature["factor"] for feature in features] == [0, 0]
    assert [feature["influential"] for feature in features] == [True, None]
