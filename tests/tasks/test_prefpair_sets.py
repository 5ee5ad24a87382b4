"""The sets of preference pairs: histories, labels and broken files of each source."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prefpair_files import EXAMPLE, edit, metrics_of, psoups_row, text_of

from personabench import rejected_responses
from personabench.errors import DataError
from personabench.tasks.prefpair import CommunityAlignment, PersonalLLM, Prism, Psoups, scoring
from personabench.testing import trial
from personabench.types import Request

# P-Soups ----------------------------------------------------------------------------------------


def test_users_are_personas_and_their_own_prompt_leaves_the_history(tmp_path: Path) -> None:
    rows = [psoups_row("What now?", 0), psoups_row("One?", 1), psoups_row("Long? 🦉 ¿Qué?", 1)]
    rows[2]["chosen"] = "word " * 4_000
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    dataset = Psoups().open("all", path)
    samples = list(dataset.samples())
    assert [len(sample.history) for sample in samples] == [4, 4, 3, 3, 4, 4]
    assert len({sample.user_id for sample in samples}) == 2
    assert dataset.warnings[0].startswith("1 records were left out")
    assert samples[4].stimulus == "Long? 🦉 ¿Qué?"
    assert len(samples[4].references[0]) == 20_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rejected": "A long reply to Q? with many words."}, "two responses are the same text"),
        ({"chosen": " "}, "chosen is ' ', expected text"),
        ({"Pair-wise Comparative Feedback": "x"}, "is not a list"),
        ({"Pair-wise Comparative Feedback": ["x"]}, "expected a comparison"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([psoups_row("P?"), {**psoups_row("Q?"), **change}]))
    with pytest.raises(DataError, match=message) as caught:
        Psoups().open("all", path)
    assert "rows.json, entry 2" in str(caught.value)


def test_a_folder_without_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no JSON files"):
        Psoups().open("all", tmp_path)


def test_long_texts_in_any_script_reach_the_request_whole(tmp_path: Path) -> None:
    row = psoups_row("何を食べる？ 🍜")
    row["chosen"] = "ラーメン 🍜 " + "long " * 4_000 + "END"
    row["rejected"] = "Eat soup 🥣 instead."
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row], ensure_ascii=False))
    task = Psoups()
    dataset = task.open("all", path)
    result = trial("none", task, dataset=dataset, answer=choose_by_text)
    assert len(row["chosen"]) > 20_000
    for request in result.requests:
        assert row["chosen"] in text_of(request) and row["prompt"] in text_of(request)
    assert {line.parsed for line in result.predictions} == {row["chosen"]}
    assert metrics_of(result)["accuracy"] == 1.0


def choose_by_text(request: Request) -> str:
    text = text_of(request)
    return "A" if text.index("ラーメン") < text.index("Eat soup") else "B"


# PRISM ------------------------------------------------------------------------------------------


def test_a_history_has_earlier_conversations_only() -> None:
    samples = list(Prism().open("all", None).samples())
    for sample in samples:
        assert all((record.time or "") < (sample.time or "") for record in sample.history)
    cold = [sample for sample in samples if sample.user_id == "user13"]
    assert len(cold) == 2
    assert not any(sample.history for sample in cold)
    # The second turn of a conversation sees nothing of its first one in the history.
    later = [sample for sample in samples if sample.id.startswith("int3-1")]
    assert later
    assert {record.id for record in later[0].history} == {"int1-0", "int2-0"}
    assert "The conversation so far" in later[0].input


def test_conversations_of_one_moment_are_not_earlier(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "prism", tmp_path / "prism")
    edit(
        tmp_path / "prism" / "conversations.jsonl",
        lambda row: row.update(generated_datetime="2023-11-20 10:00:00"),
    )
    assert not any(sample.history for sample in Prism().open("all", tmp_path).samples())


def test_a_tie_is_dropped_and_counted() -> None:
    dataset = Prism().open("all", None)
    assert not any(sample_id.startswith("int17-0") for sample_id, _ in dataset.index())
    assert dataset.warnings[-1].startswith("1 of 51 interactions were left out")
    wide = Prism(Prism.Params(gap=0)).open("all", None)
    assert len(wide.index()) == len(dataset.index()) + 2


def test_four_responses_make_one_pair_or_three() -> None:
    def ids(pairs: Any) -> list[str]:
        task = Prism(Prism.Params(pairs=pairs, orders=1))
        return [sample_id for sample_id, _ in task.open("all", None).index()]

    assert [i for i in ids("one") if i.startswith("int1-0")] == ["int1-0-1"]
    assert [i for i in ids("extreme") if i.startswith("int1-0")] == ["int1-0-1"]
    assert [i for i in ids("all") if i.startswith("int1-0")] == [
        "int1-0.0-1",
        "int1-0.1-1",
        "int1-0.2-1",
    ]


def test_the_majority_by_model_sees_the_other_users_only(tmp_path: Path) -> None:
    write_prism(tmp_path, {"u1": "m", "u2": "m", "u3": "m", "u4": "n"})
    task = Prism()
    result = trial("population_majority", task, dataset=task.open("all", tmp_path))
    right = {line.user_id: line.parsed == f"{line.user_id} best" for line in result.predictions}
    assert right == {"u1": True, "u2": True, "u3": True, "u4": False}
    # With nobody else there is no majority, and both orders make half.
    write_prism(tmp_path, {"u4": "n"})
    result = trial("population_majority", task, dataset=task.open("all", tmp_path))
    assert metrics_of(result)["accuracy"] == 0.5
    assert all(line.flags["no_majority"] for line in result.predictions)


def write_prism(folder: Path, users: Mapping[str, str]) -> None:
    """Write one conversation for each user, who prefers the response of a model, m or n."""
    tables: dict[str, list[dict[str, Any]]] = {"survey": [], "conversations": [], "utterances": []}
    for user, best in users.items():
        tables["survey"].append({"user_id": user})
        conversation = {"conversation_id": f"c-{user}", "user_id": user}
        tables["conversations"].append(
            {**conversation, "conversation_type": "unguided", "generated_datetime": "2023-11-20"}
        )
        for model in ("m", "n"):
            is_best = model == best
            rated = {
                "interaction_id": f"i-{user}",
                "turn": 0,
                "user_prompt": "Hello?",
                "model_response": f"{user} {'best' if is_best else 'other'}",
                "model_name": model,
                "score": 90 if is_best else 20,
                "if_chosen": is_best,
            }
            tables["utterances"].append({**conversation, **rated})
    for name, rows in tables.items():
        lines = [json.dumps(row) + "\n" for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines))


def test_a_missing_file_and_a_wrong_score_are_named(tmp_path: Path) -> None:
    write_prism(tmp_path, {"u1": "m"})
    edit(tmp_path / "utterances.jsonl", lambda row: row.update(score="high"))
    with pytest.raises(DataError, match=r"utterances.jsonl, line 1: score is 'high'"):
        Prism().open("all", tmp_path)
    (tmp_path / "survey.jsonl").unlink()
    with pytest.raises(DataError, match=r"has no survey.jsonl"):
        Prism().open("all", tmp_path)


# Community Alignment ----------------------------------------------------------------------------


def test_histories_are_earlier_rows_of_other_prompts_with_reasons() -> None:
    dataset = CommunityAlignment().open("all", None)
    samples = list(dataset.samples())
    assert dataset.warnings[-1].startswith("1 of 98 conversations were left out")
    assert all(len(sample.choices) == 4 for sample in samples)
    for sample in samples:
        assert sample.stimulus not in [record.stimulus for record in sample.history]
    last = [sample for sample in samples if sample.user_id == "a1"][-1]
    assert [len(rejected_responses(record)) for record in last.history] == [3] * 6
    assert any("reason" in record.fields for sample in samples for record in sample.history)


def test_disagreement_needs_five_other_users() -> None:
    samples = list(CommunityAlignment().open("all", None).samples())
    prompts = Counter(sample.stimulus for sample in samples)
    for sample in samples:
        # Two orders of six users or more.
        assert ("disagreement" in sample.hidden) == (prompts[sample.stimulus] >= 12)


@pytest.mark.parametrize(
    "method", ["population_majority", "longest_option", "shortest_option", "first_option"]
)
def test_no_rule_for_all_users_beats_half_where_they_disagree(method: str) -> None:
    metrics = metrics_of(trial(method, CommunityAlignment()))
    assert metrics["accuracy-disagreement"] <= 0.5
    if method == "population_majority":
        assert metrics["accuracy-minority"] == 0.0


def test_sides_of_a_disagreement_weigh_the_same() -> None:
    # Nine users on one side and one on the other: the majority is right on half.
    rows = [[1.0, 7.0, 1.0]] * 9 + [[0.0, 7.0, 2.0], [1.0, scoring.OUTSIDE, scoring.OUTSIDE]]
    assert scoring.disagreement_accuracy(np.array(rows)) == 0.5
    assert scoring.count_disagreement(np.array(rows)) == 10
    # In a resample without the other side nobody disagrees.
    assert np.isnan(scoring.disagreement_accuracy(np.array(rows[:9])))


def test_a_wrong_preference_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    shutil.copy(EXAMPLE / "community_alignment" / "community_alignment.jsonl", path)
    edit(path, lambda row: row.update(first_turn_preferred_response="response_e"))
    with pytest.raises(DataError, match=r"table.jsonl, line 1: first_turn_preferred_response is"):
        CommunityAlignment().open("all", path)


# PersonalLLM ------------------------------------------------------------------------------------


def write_personalllm(folder: Path) -> None:
    """Write a training and a test prompt with three responses and rewards r, s and t."""
    rewards = {
        "train": [(0, 0, 2), (2, 1, 0), (4, 5, 1)],
        "test": [(0, 5, 1), (4, 0, 2), (2, 1, 1)],
    }
    for split, by_response in rewards.items():
        row: dict[str, Any] = {"prompt": f"{split}?", "prompt_id": split, "subset": "x"}
        for number, values in enumerate(by_response, start=1):
            row[f"response_{number}"] = f"{split} {number}"
            row[f"response_{number}_model"] = "SENTINEL"
            for name, value in zip("rst", values, strict=True):
                row[f"response_{number}_{name}"] = value
        (folder / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    users = [
        {"user_id": "u1", "weights": {"r": 1, "s": 0, "t": 0}},
        {"user_id": "u2", "weights": {"r": 0.1, "s": 0.9}},
    ]
    (folder / "users.jsonl").write_text("".join(json.dumps(user) + "\n" for user in users))


def test_labels_are_the_weighted_arg_max_by_hand(tmp_path: Path) -> None:
    write_personalllm(tmp_path)
    task = PersonalLLM()
    first, _, second, _ = task.open("all", tmp_path).samples()
    # r has mean 2 and deviation sqrt(8 / 3), s mean 2 and deviation sqrt(14 / 3).
    assert (first.references, second.references) == (("test 2",), ("test 1",))
    assert [record.response for record in first.history] == ["train 3"]
    scores = json.loads(second.hidden["scores"])
    expected = 0.1 * (0 - 2) / (8 / 3) ** 0.5 + 0.9 * (5 - 2) / (14 / 3) ** 0.5
    assert scores["test 1"] == pytest.approx(expected)
    # u1: standardised 0, 4 and 2 of r; the third is the mean.
    picks = {text: task.measure(text, first)["normalized-score"] for text in first.choices}
    assert picks == {"test 2": 1.0, "test 3": pytest.approx(0.0), "test 1": pytest.approx(-1.0)}
    assert task.measure(None, first)["normalized-score"] == pytest.approx(-1.0)


def test_drawn_users_follow_few_models_and_do_not_depend_on_their_number(tmp_path: Path) -> None:
    write_personalllm(tmp_path)
    (tmp_path / "users.jsonl").unlink()
    some, more = (
        {s.id: s.references for s in PersonalLLM(p).open("all", tmp_path).samples()}
        for p in (PersonalLLM.Params(users=3), PersonalLLM.Params(users=6))
    )
    assert len(some) == 6
    assert some.items() <= more.items()


def test_rewards_and_names_of_models_are_in_no_request(tmp_path: Path) -> None:
    write_personalllm(tmp_path)
    task = PersonalLLM()
    result = trial("full", task, dataset=task.open("all", tmp_path), answer=lambda request: "A")
    assert not any("SENTINEL" in text_of(request) for request in result.requests)
    assert not any("scores" in text_of(request) for request in result.requests)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"response_2_r": "high"}, "response_2_r is 'high', expected a number"),
        ({"response_2_v": 1}, "no rewards of the same models"),
        ({"response_2": ""}, "response_2 is '', expected text"),
    ],
)
def test_a_broken_table_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_personalllm(tmp_path)
    edit(tmp_path / "test.jsonl", lambda row: row.update(change))
    with pytest.raises(DataError, match=message) as caught:
        PersonalLLM().open("all", tmp_path)
    assert "test.jsonl, line 1" in str(caught.value)
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(DataError, match="has no table test"):
        PersonalLLM().open("all", tmp_path)
