"""ALOE: the conversation, what each part sees, the judge's scores and the alignment curve."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from personabench.errors import DataError, UsageError
from personabench.tasks import aloe
from personabench.tasks.aloe import Aloe, judging, scoring
from personabench.tasks.aloe.wording import clean_message
from personabench.testing import trial
from personabench.types import Request

EXAMPLE = Path(aloe.__file__).parent / "sample"
SHORT = Aloe.Params(turns=3, profiles=2, personalities=1)


def text_of(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


def speak(request: Request) -> str:
    return f"*waves*  I am at   turn {len(request.messages) // 2}."


def score(request: Request) -> str:
    return "It suits.\nScore: 4"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Score: 4", 4),
        ("It is good.\n**Score: 4**", 4),
        ("4", 4),
        ("Score: 4/5", 4),
        ("7", None),
        ("Score: 7", None),
        ("4 or 5", None),
        ("Score: 4 or 5", None),
        ("Score: 4\nScore: 5", None),
        ("Score: 0", None),
        ("45", None),
        ("", None),
    ],
)
def test_acceptance_scores_of_the_judge(reply: str, expected: int | None) -> None:
    assert judging.read_score(reply) == expected


def rows(curve: list[float]) -> np.ndarray:
    return np.array([[*curve, *[1.0] * len(curve)]])


def test_acceptance_slope_and_fit_of_a_line() -> None:
    slope, r_squared = scoring.fit_line(rows([1 + 0.1 * k for k in range(1, 11)]))
    assert slope == pytest.approx(0.1) and r_squared == pytest.approx(1.0)
    assert scoring.compute_alignment(rows([1 + 0.1 * k for k in range(1, 11)])) == pytest.approx(
        1.55
    )


def test_a_flat_curve_a_noisy_one_and_missing_turns() -> None:
    assert scoring.fit_line(rows([3.0] * 10)) == (0.0, 0.0)
    slope, r_squared = scoring.fit_line(rows([1.0, 3.0, 2.0]))
    assert (slope, r_squared) == (pytest.approx(0.5), pytest.approx(0.25))
    # Turn 2 of the first case is unjudged, and the second case ended before turn 3.
    first = scoring.make_values([2, None, 4], 3)["alignment"]
    second = scoring.make_values([4, 5], 3)["alignment"]
    turns, means = scoring.compute_curve(np.array([first, second]))
    assert turns.tolist() == [1, 2, 3] and means.tolist() == [3, 5, 4]
    metrics = {metric.name: metric for metric in scoring.METRICS}
    assert [metrics[f"al-{k}"].size(np.array([first, second])) for k in (1, 2, 3, 4)] == [
        2,
        1,
        1,
        0,
    ]
    assert scoring.make_values([None, None], 2) == {}


def test_messages_lose_stage_directions_and_white_space() -> None:
    assert clean_message("*sighs* Well,\n\n  it is  *points* late.") == "Well, it is late."
    assert clean_message("*smiles*") == "" and clean_message("2 * 3") == "2 * 3"


def test_a_conversation_is_seen_by_the_model_and_facts_by_user_and_judge() -> None:
    simulated: list[Request] = []
    judged: list[Request] = []

    def simulator(request: Request) -> str:
        simulated.append(request)
        return speak(request)

    def judge(request: Request) -> str:
        judged.append(request)
        return score(request)

    task = Aloe(SHORT)
    roles = {"simulator": simulator, "judge": judge}
    result = trial("none", task, answer=lambda _: "How nice.", roles=roles, limit=1)
    assert [len(requests) for requests in (simulated, result.requests, judged)] == [3, 3, 3]
    samples = {sample.id: sample for sample in task.open("all", None).samples()}
    hidden = samples[result.predictions[0].sample_id].hidden
    facts = [hidden["profile"], hidden["personality"]]

    assert [m.content for m in result.requests[1].messages] == [
        "I am at turn 1.",
        "How nice.",
        "I am at turn 2.",
    ]
    for request in result.requests:
        assert not any(fact in text_of(request) for fact in facts)
    for request in simulated:
        assert all(fact in text_of(request) for fact in facts)
        assert request.max_tokens == 300 and request.temperature == 1.0
    for number, request in enumerate(judged, start=1):
        assert all(fact in text_of(request) for fact in facts)
        assert request.temperature == 0.0
        # One message and one reply, and no earlier turn.
        mentions = [k for k in range(1, 4) if f"turn {k}." in text_of(request)]
        assert mentions == [number]
    interaction = result.predictions[0].interaction
    assert interaction["simulator_temperature"] == 1.0 and len(interaction["turns"]) == 3


def test_three_calls_for_each_turn_of_each_case() -> None:
    counts = {"simulator": 0, "judge": 0}

    def simulator(request: Request) -> str:
        counts["simulator"] += 1
        return speak(request)

    def judge(request: Request) -> str:
        counts["judge"] += 1
        return score(request)

    task = Aloe()
    assert len(task.open("all", None).index()) == 15
    result = trial(
        "none", task, answer=lambda _: "Oh.", roles={"simulator": simulator, "judge": judge}
    )
    assert result.summary is not None and result.summary.n == 15
    calls = [call for prediction in result.predictions for call in prediction.calls]
    assert len(calls) == 15 * 10 * 2
    assert result.summary.usage["judge"].calls == 15 * 10
    metrics = result.summary.metrics["official"]
    assert metrics["alignment"] == metrics["al-10"] == 4.0 and metrics["improvement-rate"] == 0.0


def test_a_summary_is_made_anew_from_the_conversation_of_each_turn() -> None:
    result = trial(
        "summary",
        Aloe(SHORT),
        answer=lambda request: (
            "Keeps bees." if "\nAssistant: " in text_of(request) else "How nice."
        ),
        roles={"simulator": speak, "judge": score},
        limit=1,
    )
    answers = [r for r in result.requests if r.messages[-1].content.startswith("I am at turn")]
    profiles = [r for r in result.requests if r not in answers]
    assert [text_of(r).count("\nAssistant: ") for r in profiles] == [1, 2]
    assert ["Keeps bees." in text_of(r) for r in answers] == [False, True, True]


def test_a_message_of_asterisks_is_requested_once_more() -> None:
    tries: list[Request] = []

    def reluctant(request: Request) -> str:
        tries.append(request)
        return "*nods*" if len(tries) == 1 else speak(request)

    result = trial(
        "none",
        Aloe(SHORT),
        answer=lambda _: "Oh.",
        roles={"simulator": reluctant, "judge": score},
        limit=1,
    )
    assert len(tries) == 4 and [request.repeat for request in tries[:2]] == [0, 1]
    assert len(result.predictions[0].interaction["turns"]) == 3

    def silent(request: Request) -> str:
        return speak(request) if len(request.messages) == 2 else "*nods*"

    result = trial(
        "none",
        Aloe(SHORT),
        answer=lambda _: "Oh.",
        roles={"simulator": silent, "judge": score},
        limit=1,
    )
    assert len(result.predictions[0].interaction["turns"]) == 1
    assert result.summary is not None and result.summary.counters["simulator_empty"] == 1
    assert result.summary.metrics["official"]["al-1"] == 4.0


def test_an_unread_turn_is_excluded_and_counted() -> None:
    def judge(request: Request) -> str:
        return "Score: 4 or 5" if "turn 2." in text_of(request) else "Score: 2"

    result = trial(
        "none",
        Aloe(SHORT),
        answer=lambda _: "Oh.",
        roles={"simulator": speak, "judge": judge},
        limit=1,
    )
    assert result.summary is not None
    metrics = result.summary.metrics["official"]
    assert metrics["alignment"] == 2.0 and result.summary.counters["turns_unjudged"] == 1
    assert metrics["al-2"] is None and metrics["al-3"] == 2.0


def test_own_files_and_broken_ones(tmp_path: Path) -> None:
    (tmp_path / "profiles.jsonl").write_text('{"profile": ["You sail.", "You bake."]}\n')
    (tmp_path / "personalities.json").write_text('["Calm.", {"text": "Loud."}]')
    dataset = Aloe().open("all", tmp_path)
    assert [name for name, _ in dataset.index()] == ["profile-00-0", "profile-00-1"]
    assert dataset.load(0).hidden == {"profile": "You sail.\nYou bake.", "personality": "Calm."}
    (tmp_path / "personalities.json").write_text(json.dumps(["Calm.", 3]))
    with pytest.raises(DataError, match=r"personalities\.json, entry 2: expected a text"):
        Aloe().open("all", tmp_path)
    (tmp_path / "personalities.json").unlink()
    with pytest.raises(DataError, match=r"no personalities\.json"):
        Aloe().open("all", tmp_path)


def test_options_out_of_range() -> None:
    for params in ({"turns": 11}, {"turns": 1}, {"profiles": 0}, {"simulator_temperature": 3.0}):
        with pytest.raises((ValueError, UsageError)):
            Aloe.Params(**params)
