"""`import`: answers of a system that runs elsewhere as a row of the leaderboard."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Command

from personabench.tasks.lamp import Lamp2M

CARD = {"method": "oppu", "model": "m", "trained_on": "history", "paper": "arXiv:2402.04401"}


def write_card(**fields: Any) -> Path:
    path = Path("card.yaml")
    path.write_text(json.dumps(CARD | fields), encoding="utf-8")
    return path


def write_lines(name: str, lines: Sequence[dict[str, Any]]) -> Path:
    path = Path(name)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def answers_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    predictions = [json.loads(line) for line in lines]
    return [{"sample_id": line["sample_id"], "prediction": line["output"]} for line in predictions]


def run_none(personabench: Command, task: str = "lamp4") -> dict[str, Any]:
    ended = personabench(
        *("run", "-m", "none", "-t", task, "-b", "scripted", "--model", "m", "--json")
    )
    assert ended.code == 0, ended.err
    summary: dict[str, Any] = ended.json[0]
    return summary


@pytest.mark.parametrize("form", ["lines", "folder"])
def test_the_answers_of_a_run_score_as_the_run_does(personabench: Command, form: str) -> None:
    own = run_none(personabench)
    folder = Path(own["folder"])
    path = folder if form == "folder" else write_lines("answers.jsonl", answers_of(folder))
    ended = personabench(
        *("import", "-t", "lamp4", "--predictions", path, "--card", write_card(), "--json")
    )
    assert ended.code == 0, ended.err
    (imported,) = ended.json
    assert imported["metrics"] == own["metrics"]
    assert imported["method"] == "imported:oppu"
    assert imported["provenance"]["card"] == CARD
    scores = (Path(imported["folder"]) / "scores.jsonl").read_bytes()
    assert scores == (folder / "scores.jsonl").read_bytes()

    board = personabench("leaderboard", "--format", "json").json
    rows = {row["method"]: row for row in board}
    none, row = rows["none"], rows["imported:oppu"]
    interval = ("rouge-1", "rouge-1/low", "rouge-1/high", "rouge-L/low", "setting")
    assert [row[name] for name in interval] == [none[name] for name in interval]
    assert row["gain"] == 0.0 and row["leader"] == none["leader"]
    assert "Imported, answers made elsewhere: imported:oppu" in personabench("leaderboard").out


def test_samples_without_an_answer_have_failed(personabench: Command) -> None:
    lines = answers_of(Path(run_none(personabench)["folder"]))
    path = write_lines("answers.jsonl", lines[1:])
    words = ("import", "-t", "lamp4", "--predictions", path, "--card", write_card())
    ended = personabench(*words)
    assert ended.code == 1
    assert "1 samples failed" in ended.err
    assert f"has no answer to sample '{lines[0]['sample_id']}'" in ended.err


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: [*lines, lines[0]], "occur more than once"),
        (lambda lines: [*lines, {"id": "nowhere", "output": "x"}], "such as 'nowhere'"),
        (lambda lines: [{**lines[0], "user_id": "somebody"}], "not of 'somebody'"),
        (lambda lines: [{"id": lines[0]["sample_id"]}], "no id or no output"),
    ],
)
def test_answers_that_do_not_fit_are_refused(
    personabench: Command,
    refused: Callable[..., str],
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    problem: str,
) -> None:
    lines = answers_of(Path(run_none(personabench)["folder"]))
    path = write_lines("answers.jsonl", change(lines))
    message = refused(
        "import", "-t", "lamp4", "--predictions", path, "--card", write_card(), "--json"
    )
    assert problem in message
    assert not list(Path("results/runs/lamp4").glob("imported*/*/*/predictions.jsonl"))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"trainedon": "train"}, "unknown field 'trainedon'; did you mean trained_on?"),
        ({"trained_on": "everything"}, "trained_on"),
        ({"model": " "}, "model is empty"),
        ({"gpu_hours": "many"}, "gpu_hours"),
    ],
)
def test_a_card_says_all_it_must(
    personabench: Command, refused: Callable[..., str], fields: dict[str, Any], problem: str
) -> None:
    path = write_lines("answers.jsonl", [{"id": "310", "output": "x"}])
    card = write_card(**fields)
    assert problem in refused("import", "-t", "lamp4", "--predictions", path, "--card", card)


def test_what_a_system_has_read_must_be_visible_to_its_samples(
    personabench: Command, refused: Callable[..., str]
) -> None:
    own = run_none(personabench)
    folder = Path(own["folder"])
    first = json.loads((folder / "predictions.jsonl").read_text().splitlines()[0])
    user = first["user_id"]
    card = write_card(seen={user: ["a-record-of-the-future"]})
    message = refused("import", "-t", "lamp4", "--predictions", folder, "--card", card)
    assert "'a-record-of-the-future'" in message and f"'{user}'" in message


def test_each_seed_of_a_file_is_a_run(personabench: Command) -> None:
    lines = answers_of(Path(run_none(personabench)["folder"]))
    both = [{**line, "seed": seed} for seed in (1, 2) for line in lines]
    path = write_lines("answers.jsonl", both)
    ended = personabench(
        *("import", "-t", "lamp4", "--predictions", path, "--card", write_card(), "--json")
    )
    assert [summary["seed"] for summary in ended.json] == [1, 2]


def test_scores_of_choices_name_the_highest(personabench: Command) -> None:
    own = run_none(personabench, "lamp2m")
    lines = answers_of(Path(own["folder"]))
    labels = list(Lamp2M.labels)
    scored = [
        {"id": line["sample_id"], "scores": [float(label == labels[3]) for label in labels]}
        for line in lines
    ]
    path = write_lines("scores.jsonl", scored)
    ended = personabench(
        *("import", "-t", "lamp2m", "--predictions", path, "--card", write_card(), "--json")
    )
    assert ended.code == 0, ended.err
    outputs = answers_of(Path(ended.json[0]["folder"]))
    assert {line["prediction"] for line in outputs} == {labels[3]}

    short = [{**line, "scores": [1.0]} for line in scored]
    path = write_lines("short.jsonl", short)
    ended = personabench("import", "-t", "lamp2m", "--predictions", path, "--card", write_card())
    assert ended.code == 1 and "choices and 1 scores" in ended.err


def test_an_interaction_cannot_be_imported(
    personabench: Command, refused: Callable[..., str]
) -> None:
    path = write_lines("answers.jsonl", [{"id": "1", "output": "x"}])
    card = write_card()
    message = refused("import", "-t", "prelude_summ", "--predictions", path, "--card", card)
    assert "needs the interaction of a run" in message
