"""Written answers: judged against the preferred response in both orders, or scored by rewards."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from personabench.errors import DataError
from personabench.tasks.prefpair import PersonaFeedbackGen, PersonalLLMGen
from personabench.tasks.prefpair.generation import control_length, measure_wins, read_better
from personabench.testing import trial
from personabench.types import Request


def text_of(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


def metrics_of(result: Any) -> Mapping[str, float]:
    metrics: Mapping[str, float] = result.summary.metrics["official"]
    return metrics


def answers_of(question: str) -> Sequence[str]:
    """The two answers in a request to the judge, in their order."""
    return re.findall(r"Answer [12]:\n<<<\w+\n(.*?)\n\w+>>>", question, re.DOTALL)


def is_judged(request: Request) -> bool:
    return "Answer 2:" in text_of(request)


def run(reply: Any, method: str = "none", task: Any = None) -> Any:
    """A run in which the model writes "mine" and judges with `reply(the two answers)`."""

    def answer(request: Request) -> str:
        if is_judged(request):
            return str(reply(answers_of(text_of(request))))
        return "mine"

    return trial(method, task or PersonaFeedbackGen(), answer=answer)


def test_a_judge_of_content_gives_the_same_verdict_in_both_orders() -> None:
    won = run(lambda pair: f"It fits.\nBetter: {1 + pair.index('mine')}")
    assert (metrics_of(won)["win"], metrics_of(won)["conflict"]) == (1.0, 0.0)
    lost = run(lambda pair: f"Better: {2 - pair.index('mine')}")
    assert (metrics_of(lost)["win"], metrics_of(lost)["conflict"]) == (0.0, 0.0)


def test_a_judge_of_places_wins_half_and_conflicts_always() -> None:
    metrics = metrics_of(run(lambda pair: "Better: 1"))
    assert (metrics["win"], metrics["conflict"]) == (0.5, 1.0)
    assert metrics["win-equal-length"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("reply", ["", "Both.", "Better: 3", "Better: 1\nBetter: 2"])
def test_a_verdict_that_cannot_be_read_leaves_the_answer_unjudged(reply: str) -> None:
    result = run(lambda pair: reply)
    assert result.summary.counters["unjudged"] == 72
    assert read_better(reply) is None


def test_the_judge_sees_the_persona_and_the_method_what_the_setting_shows() -> None:
    task = PersonaFeedbackGen(PersonaFeedbackGen.Params(setting="none"))
    result = run(lambda pair: "Better: 1", "full", task)
    judged = [text_of(request) for request in result.requests if is_judged(request)]
    written = [text_of(request) for request in result.requests if not is_judged(request)]
    assert all("Name: " in text for text in judged)
    assert not any("Name: " in text or "Preference: " in text for text in written)
    shown = PersonaFeedbackGen(PersonaFeedbackGen.Params(setting="persona"))
    result = run(lambda pair: "Better: 1", "none", shown)
    assert all("Name: " in text_of(r) for r in result.requests)


def test_neither_the_preferred_nor_the_other_response_is_in_a_request_to_write() -> None:
    task = PersonaFeedbackGen()
    samples = list(task.open("all", None).samples())
    assert not any(sample.choices for sample in samples)
    result = run(lambda pair: "Better: 1", "full")
    written = "\n".join(text_of(r) for r in result.requests if not is_judged(r))
    assert written
    assert not any(sample.references[0] in written for sample in samples)


def test_the_win_rate_at_equal_length_takes_out_what_length_alone_wins() -> None:
    rng = np.random.default_rng(0)
    excess = rng.uniform(-1, 1, 400)
    longer_wins = np.column_stack([(excess > 0).astype(float), excess + 0.0])
    # Most are longer, and only the longer ones win.
    biased = longer_wins[longer_wins[:, 1] > -0.5]
    assert biased[:, 0].mean() > 0.6
    assert control_length(biased) == pytest.approx(0.5, abs=0.08)
    assert control_length(np.array([[1.0, 0.0]] * 20)) > 0.9


def test_a_conflict_is_half_a_win() -> None:
    assert measure_wins([1, 0], "abcd", "ab") == {
        **{"win": 0.5, "win-equal-length": [0.5, 0.5], "conflict": 1.0}
    }


def test_options_that_belong_to_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="orders is an option of choices"):
        PersonaFeedbackGen.Params(orders=1)


# Rewards ----------------------------------------------------------------------------------------


def write_rewards(path: Path, rows: Sequence[Mapping[str, Any]]) -> PersonalLLMGen:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PersonalLLMGen(PersonalLLMGen.Params(rewards=str(path)))


def test_rewards_of_a_known_response_give_its_normalized_score(tmp_path: Path) -> None:
    sample = next(iter(PersonalLLMGen().open("all", None).samples()))
    table = [
        json.loads(line)
        for line in (Path(__file__).parents[2] / "tasks/prefpair/sample/personalllm/test.jsonl")
        .read_text()
        .splitlines()
    ]
    (row,) = [row for row in table if row["prompt"] == sample.stimulus]
    numbers = [name for name in row if re.fullmatch(r"response_\d", name)]
    rows = [
        {
            "prompt": row["prompt"],
            "response": f"  {row[name]}\n",
            "rewards": {
                field.removeprefix(f"{name}_"): value
                for field, value in row.items()
                if field.startswith(f"{name}_") and not field.endswith("_model")
            },
        }
        for name in numbers
    ]
    task = write_rewards(tmp_path / "rewards.jsonl", rows)
    task.open("all", None)
    scores = {row[name]: task.measure(row[name], sample)["normalized-score"] for name in numbers}
    assert scores[sample.references[0]] == pytest.approx(1.0)
    assert sum(scores.values()) == pytest.approx(0.0, abs=1e-9)  # type: ignore[arg-type]
    unknown = task.measure("something else", sample)
    assert "normalized-score" not in unknown and unknown["rewarded"] == 0.0
    assert "rewarded" not in PersonalLLMGen().measure("something else", sample)


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ({"order": 1, "warmth": 1, "care": 1}, "expected a number for each of: .*directness"),
        ({"order": 1, "warmth": "x", "care": 1, "directness": 1}, "expected a number"),
        ("none", "expected a number"),
    ],
)
def test_rewards_that_are_incomplete_are_named_before_any_call(
    tmp_path: Path, rewards: Any, message: str
) -> None:
    row = {"prompt": "p", "response": "r", "rewards": rewards}
    task = write_rewards(tmp_path / "rewards.jsonl", [row])
    with pytest.raises(DataError, match=rf"rewards.jsonl, line 1: rewards is .*{message}"):
        task.open("all", None)


def test_weights_and_scores_of_the_user_reach_no_request() -> None:
    result = trial("full", PersonalLLMGen(), answer=lambda request: "mine")
    text = "\n".join(map(text_of, result.requests))
    assert text and "weights" not in text and "directness" not in text
