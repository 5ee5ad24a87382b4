"""PersonaFeedback and Personalized RewardBench: files, settings, cells and hidden facts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from personabench.api.users import open_split
from personabench.errors import DataError
from personabench.models.tokens import EstimatedTokens
from personabench.tasks import prefpair
from personabench.tasks.prefpair import PersonaFeedback, PersonalizedRewardBench
from personabench.tasks.prefpair.personafeedback import CELLS, name_cell, word_persona
from personabench.testing import trial
from personabench.types import Request, Sample

EXAMPLE = Path(prefpair.__file__).parent / "sample"


def text_of(request: Request) -> str:
    return "\n".join(message.content for message in request.messages)


def metrics_of(result: Any) -> Mapping[str, float]:
    metrics: Mapping[str, float] = result.summary.metrics["official"]
    return metrics


def with_setting(setting: Any, orders: Any = 2) -> PersonaFeedback:
    return PersonaFeedback(PersonaFeedback.Params(setting=setting, orders=orders))


def samples_of(task: Any, data: Path | None = None) -> list[Sample]:
    return list(task.open("all", data).samples())


# PersonaFeedback --------------------------------------------------------------------------------


def test_section_4c_user_1_is_the_first_line_of_the_personas() -> None:
    first, second = (
        json.loads(line)
        for line in (EXAMPLE / "personafeedback" / "personas.jsonl").read_text().splitlines()[:2]
    )
    by_user = {sample.user_id: sample.input for sample in samples_of(with_setting("persona"))}
    assert f"Name: {first['Name']}" in by_user["1"]
    assert f"Name: {second['Name']}" in by_user["2"]


def test_section_4b_an_answer_by_place_has_half_right_and_nothing_strict() -> None:
    metrics = metrics_of(trial("none", PersonaFeedback(), answer=lambda request: "A"))
    assert (metrics["accuracy"], metrics["strict"], metrics["flip"]) == (0.5, 0.0, 1.0)
    assert metrics["first-share"] == 1.0


@pytest.mark.parametrize(
    ("output", "place"),
    [
        ("A", 0),
        ("(B)", 1),
        ("Both have their points.\nAnswer: B", 1),
        ("Answer: A. On second thought, answer: B", 1),
        ("A and B", None),
        ("Answer: A or B", None),
        ("", None),
    ],
)
def test_the_last_stated_letter_counts_and_two_are_unparsed(output: str, place: int | None) -> None:
    task = PersonaFeedback()
    sample = Sample(choices=("tea", "coffee"), references=("tea",))
    expected = None if place is None else sample.choices[place]
    assert task.parse(output, sample, "official") == expected


def test_settings_show_nothing_a_persona_or_memories() -> None:
    nothing, persona, memory = map(samples_of, map(with_setting, ("none", "persona", "memory")))
    assert [sample.id for sample in nothing] == [sample.id for sample in memory]
    assert not any(sample.history or "Personality" in sample.input for sample in nothing)
    assert all("Name: " in sample.input and not sample.history for sample in persona)
    assert all(len(sample.history) == 12 and "Name: " not in sample.input for sample in memory)


def test_accuracy_is_reported_by_track_and_tier_and_as_their_plain_mean() -> None:
    # With the persona, no two users have the same request.
    task = with_setting("persona")
    wrong_in = "general-hard"

    def answer(request: Request) -> str:
        sample = by_text[text_of(request)]
        is_first = sample.choices[0] == sample.references[0]
        return "A" if is_first != (sample.hidden["cell"] == wrong_in) else "B"

    by_text = {
        "\n".join(message.content for message in rendered.messages): sample
        for sample in samples_of(task)
        for rendered in [task.render(sample, (), "", EstimatedTokens())]
    }
    metrics = metrics_of(trial("none", task, answer=answer))
    assert {name: metrics[f"accuracy-{name}"] for name in CELLS} == {
        name: float(name != wrong_in) for name in CELLS
    }
    assert metrics["accuracy-mean"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("path", "cell"),
    [
        ("general/easy.jsonl", "general-easy"),
        ("spedific/test_hard.jsonl", "specific-hard"),
        ("data/Specific-Medium.json", "specific-medium"),
        ("personas.jsonl", None),
        ("general/all.jsonl", None),
        ("general/easy_and_hard.jsonl", None),
    ],
)
def test_track_and_tier_are_told_by_the_path_in_either_spelling(
    path: str, cell: str | None
) -> None:
    assert name_cell(Path(path)) == cell


def test_nested_parts_of_a_persona_are_written_out() -> None:
    persona = {"Name": "Ada", "Demographics": {"Age": 30, "Langs": ["en", "fr"]}, "Bias": ""}
    assert word_persona(persona) == "Name: Ada\nDemographics: Age: 30; Langs: en, fr"


def test_one_order_says_so() -> None:
    dataset = with_setting("none", orders=1).open("all", None)
    assert any("in one order only" in warning for warning in dataset.warnings)
    assert len(dataset.index()) == 72


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("personas.jsonl", "must have one file of personas"),
        ("memory/3.jsonl", "user 3 has no memories"),
        ("general", ""),
        ("general specific", "has no items"),
    ],
)
def test_a_missing_part_is_named(tmp_path: Path, remove: str, message: str) -> None:
    folder = tmp_path / "personafeedback"
    shutil.copytree(EXAMPLE / "personafeedback", folder)
    for name in remove.split():
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not message:
        assert len(samples_of(PersonaFeedback(), tmp_path)) == 72
        return
    with pytest.raises(DataError, match=message):
        PersonaFeedback().open("all", tmp_path)


def test_a_wrong_user_and_an_empty_memory_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "personafeedback"
    shutil.copytree(EXAMPLE / "personafeedback", folder)
    (folder / "memory" / "1.jsonl").write_text('{"memory": " "}\n')
    with pytest.raises(DataError, match=r"1.jsonl, line 1: no text of a memory"):
        PersonaFeedback().open("all", tmp_path)
    path = folder / "general" / "easy.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(json.dumps({**rows[0], "user_id": "Ines"}) + "\n")
    with pytest.raises(DataError, match="user_id is 'Ines', expected the number of a line"):
        PersonaFeedback().open("all", tmp_path)
    path.write_text(json.dumps({**rows[0], "user_id": 99}) + "\n")
    with pytest.raises(DataError, match="has no line 99"):
        with_setting("persona").open("all", tmp_path)


# Personalized RewardBench -----------------------------------------------------------------------


def test_questions_are_joined_into_users_by_their_earlier_questions() -> None:
    dataset = open_split(PersonalizedRewardBench(), "all", None)
    samples = list(dataset.samples())
    assert len(samples) == 48
    assert len({user for _, user in dataset.index()}) == 12
    assert all(len(sample.history) == 5 for sample in samples)


@pytest.mark.parametrize("method", ["none", "full", "rag", "summary"])
def test_rubric_and_narrative_reach_no_request(tmp_path: Path, method: str) -> None:
    folder = tmp_path / "personalized_rewardbench"
    shutil.copytree(EXAMPLE / "personalized_rewardbench", folder)
    for path in folder.rglob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["narrative"] = "SENTINEL"
            row["rubric_aspects"] = [{"aspect": "SENTINEL", "evidence": "SENTINEL"}]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = PersonalizedRewardBench()
    dataset = open_split(task, "all", tmp_path)
    result = trial(method, task, dataset=dataset, answer=lambda request: "A")
    assert result.requests
    assert not any("SENTINEL" in text_of(request) for request in result.requests)


def test_the_own_question_is_left_out_of_the_earlier_ones(tmp_path: Path) -> None:
    row = {
        **{"id": "q1", "question": "Why do we clap?", "category": "Art & Entertainment"},
        **{"chosen": "Because.", "rejected": "No idea."},
        "profile": [
            {"id": "a", "category": "x", "text": "why do we  clap?"},
            {"id": "b", "category": "x", "text": "Who paints?"},
        ],
    }
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(row) + "\n")
    dataset = PersonalizedRewardBench().open("all", path)
    assert [record.id for record in dataset.load(0).history] == ["b"]
    assert dataset.warnings[-1].startswith("1 records were left out")
    columns = {"id": ["a", "b"], "category": ["x", "x"], "text": ["Why not?", "Who paints?"]}
    path.write_text(json.dumps({**row, "profile": columns}) + "\n")
    records = PersonalizedRewardBench().open("all", path).load(0).history
    assert [(r.id, r.response) for r in records] == [("a", "Why not?"), ("b", "Who paints?")]
    path.write_text(json.dumps({**row, "category": "Sport"}) + "\n")
    with pytest.raises(DataError, match="category is 'Sport', expected a name that begins with"):
        PersonalizedRewardBench().open("all", path)
    path.write_text(json.dumps({**row, "profile": "x"}) + "\n")
    with pytest.raises(DataError, match="profile is no list"):
        PersonalizedRewardBench().open("all", path)


def test_a_folder_without_a_test_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="has no table of the test split"):
        PersonalizedRewardBench().open("all", tmp_path)
