"""`score` on files of one task, whole submissions and runs."""

from __future__ import annotations

import gzip
import json
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command

from personabench.metrics import meteor
from personabench.tasks.lamp import records

SAMPLES = Path(records.__file__).parent / "sample"
OFFICIAL = ("lamp1", "lamp2m", "lamp3", "lamp4", "lamp5", "lamp6", "lamp7")


def submission(folder: Path, seed: int, right: float) -> Path:
    """Predictions for all tasks; a share is right, the rest are the golds of other samples."""
    rng = random.Random(seed)
    folder.mkdir()
    for task in OFFICIAL:
        golds = json.loads((SAMPLES / task / "dev_outputs.json").read_text(encoding="utf-8"))
        outputs = [gold["output"] for gold in golds["golds"]]
        for gold in golds["golds"]:
            gold["output"] = gold["output"] if rng.random() < right else rng.choice(outputs)
        (folder / f"{task}.json").write_text(json.dumps(golds), encoding="utf-8")
    return folder


def packed(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"{folder.name}/{file.name}")
        archive.writestr("__MACOSX/._lamp1.json", "no data")
    return path


@pytest.fixture
def golds(tmp_path: Path) -> Path:
    return submission(tmp_path / "golds", 0, 1.0)


def test_a_whole_submission_is_scored_at_once(
    personabench: Command, tmp_path: Path, golds: Path
) -> None:
    answers = submission(tmp_path / "answers", 1, 0.5)
    zipped = personabench(
        *("score", "--predictions", packed(answers), "--references", packed(golds), "--json")
    )
    folders = personabench("score", "--predictions", answers, "--references", golds, "--json")
    assert zipped.code == 0 and zipped.json == folders.json
    assert set(zipped.json) == set(OFFICIAL)
    single = personabench(
        *("score", "-t", "lamp5", "--predictions", answers / "lamp5.json", "--json"),
        *("--references", SAMPLES / "lamp5" / "dev_outputs.json"),
    )
    assert single.json == zipped.json["lamp5"]
    chosen = personabench(
        *("score", "-t", "lamp3,lamp4", "--predictions", answers, "--references", golds, "--json")
    )
    assert chosen.json == {name: zipped.json[name] for name in ("lamp3", "lamp4")}


def test_the_two_datasets_named_lamp_2_are_told_apart(
    personabench: Command, tmp_path: Path, golds: Path
) -> None:
    news = SAMPLES / "lamp2n" / "dev_outputs.json"
    (golds / "lamp2m.json").write_bytes(news.read_bytes())
    ended = personabench("score", "--predictions", golds, "--references", golds, "--json")
    assert set(ended.json) == {*OFFICIAL, "lamp2n"} - {"lamp2m"}
    assert ended.json["lamp2n"]["accuracy"] == 1.0


def test_a_submission_that_does_not_fit_is_refused_by_name(
    refused: Callable[..., str], personabench: Command, tmp_path: Path, golds: Path
) -> None:
    answers = submission(tmp_path / "answers", 1, 0.5)
    (answers / "notes.json").write_text("{}")
    message = refused("score", "--predictions", answers, "--references", golds)
    assert "notes.json is of none of lamp1, lamp2m" in message
    (answers / "notes.json").write_bytes((answers / "lamp3.json").read_bytes())
    message = refused("score", "--predictions", answers, "--references", golds)
    assert "lamp3.json" in message and "notes.json are both predictions of lamp3" in message
    broken = tmp_path / "broken.zip"
    broken.write_bytes(packed(golds).read_bytes()[:500])
    assert "broken.zip cannot be unpacked" in refused(
        "score", "--predictions", broken, "--references", golds
    )
    assert "--references" in refused("score", "--predictions", answers)
    (answers / "notes.json").unlink()
    (answers / "lamp7.json").unlink()
    ended = personabench("score", "--predictions", answers, "--references", golds)
    assert ended.code == 0 and "no predictions for 1 (lamp7)" in ended.err


def test_compressed_files_and_json_lines_are_read(
    personabench: Command, tmp_path: Path, golds: Path
) -> None:
    answers = submission(tmp_path / "answers", 1, 0.5) / "lamp4.json"
    plain = personabench(
        *("score", "-t", "lamp4", "--predictions", answers),
        *("--references", golds / "lamp4.json", "--json"),
    ).json
    paths = []
    for number, path in enumerate((answers, golds / "lamp4.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        lines = "".join(f"{json.dumps(gold)}\n" for gold in content["golds"])
        paths += [tmp_path / f"{number}.json.gz", tmp_path / f"{number}.jsonl.gz"]
        paths[-2].write_bytes(gzip.compress(path.read_bytes()))
        paths[-1].write_bytes(gzip.compress(lines.encode()))
    for predictions, references in (paths[::2], paths[1::2]):
        ended = personabench(
            *("score", "-t", "lamp4", "--predictions", predictions),
            *("--references", references, "--json"),
        )
        assert ended.json == plain


def test_references_as_json_lines_name_users_and_are_checked(
    personabench: Command, refused: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "golds.jsonl"
    rows = [{"id": f"s{n}", "output": "comedy", "user_id": f"u{n % 3}"} for n in range(9)]
    path.write_text("\n".join(map(json.dumps, rows)))
    score = ("score", "-t", "lamp2m", "--predictions", path, "--references", path)
    ended = personabench(*score, "--json")
    assert (ended.json["n"], ended.json["users"], ended.json["accuracy"]) == (9, 3, 1.0)
    assert "3 users" in ended.json["intervals"]["accuracy"]["reason"]
    rows[2]["output"] = "western"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert "reference s2: references[0] is 'western', expected one of" in refused(*score)


def test_without_references_the_tasks_data_are_scored_over_their_users(
    personabench: Command, tmp_path: Path
) -> None:
    answers = submission(tmp_path / "answers", 1, 0.5) / "lamp4.json"
    out = tmp_path / "samples.jsonl"
    score = ("score", "-t", "lamp4", "--predictions", answers)
    ended = personabench(*score, "--json", "--per-sample", out)
    assert (ended.json["n"], ended.json["users"], ended.json["partial"]) == (60, 24, False)
    interval = ended.json["intervals"]["rouge-1"]
    assert interval["low"] < ended.json["rouge-1"] < interval["high"]
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    mean = sum(row["values"]["rouge-1"] for row in rows) / 60
    assert mean == pytest.approx(ended.json["rouge-1"])
    assert rows[0].keys() == {"task", "id", "user_id", "output", "parsed", "values"}
    assert len({row["user_id"] for row in rows}) == 24


def test_extras_are_marked_and_absent_answers_are_counted(
    personabench: Command, tmp_path: Path
) -> None:
    golds = json.loads((SAMPLES / "lamp3" / "dev_outputs.json").read_text())
    for index, gold in enumerate(golds["golds"]):
        gold["output"] = None if index == 0 else gold["output"] if index % 2 else "five stars"
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps(golds))
    score = ("score", "-t", "lamp3", "--predictions", answers)
    result = personabench(*score, "--json").json
    assert (result["null_outputs"], result["unparsed"]) == (1, 21)
    assert result["extras"] == {"accuracy": pytest.approx(21 / 42)}
    assert "accuracy" not in result
    assert "(not a metric of this benchmark)" in personabench(*score).out

    texts = SAMPLES / "lamp4" / "dev_outputs.json"
    result = personabench("score", "-t", "lamp4", "--predictions", texts, "--json").json
    extras = {"rouge-2": pytest.approx(1.0, abs=0.05), "bleu": pytest.approx(100.0)}
    if not meteor.describe_missing_data():
        extras["meteor"] = pytest.approx(1.0, abs=0.01)
    assert result["extras"] == extras


def test_two_files_are_tested_against_one_another(
    personabench: Command, refused: Callable[..., str], tmp_path: Path
) -> None:
    good = submission(tmp_path / "good", 1, 0.95)
    poor = submission(tmp_path / "poor", 2, 0.05)
    score = ("score", "-t", "lamp4", "--predictions", good / "lamp4.json")
    result = personabench(*score, "--against", poor / "lamp4.json", "--json").json["against"]
    metric = result["metrics"]["rouge-1"]
    assert (result["n"], result["users"]) == (60, 24)
    assert metric["gain"]["low"] > 0 and metric["corrected"] < 0.05
    shown = personabench(*score, "--against", poor / "lamp4.json").out
    assert "gain of" in shown and "A wins" in shown
    assert "the ids differ" in refused(*score, "--against", poor / "lamp5.json")

    golds = submission(tmp_path / "golds", 0, 1.0)
    whole = personabench(
        *("score", "--predictions", good, "--references", golds, "--against", poor, "--json")
    )
    assert all(result["against"]["metrics"] for result in whole.json.values())


def test_a_run_is_scored_like_its_file(personabench: Command, refused: Callable[..., str]) -> None:
    runs = ("run", "-b", "scripted", "-t", "lamp4", "-n", "4", "--json")
    (copied, plain) = personabench(*runs, "-m", "copy_nearest,none").json
    result = personabench(
        "score", "--predictions", copied["folder"], "--against", plain["folder"], "--json"
    )
    assert result.json["rouge-1"] == copied["metrics"]["official"]["rouge-1"]
    assert result.json["n"] == copied["n"] and result.json["partial"]
    assert result.json["against"]["n"] == copied["n"]
    message = refused("score", "-t", "prelude_summ", "--predictions", copied["folder"] + "/x")
    assert "no file" in message
    file = Path(copied["folder"]) / "predictions.json"
    assert "needs the interaction of a run" in refused(
        "score", "-t", "prelude_summ", "--predictions", file
    )


def test_divergence_of_answers_needs_users_who_share_an_input(
    personabench: Command, refused: Callable[..., str]
) -> None:
    def run(task: str) -> str:
        folder: str = personabench(
            "run", "-b", "scripted", "-t", task, "-m", "copy_nearest", "--json"
        ).json[0]["folder"]
        return folder

    shared = personabench("score", "--predictions", run("reviews"), "--divergence")
    assert shared.code == 0, shared.err
    assert re.search(r"stimuli shared by users, \d+ answers: EGISES 0\.\d+ ", shared.out)
    message = refused("score", "--predictions", run("lamp4"), "--divergence")
    assert "no two users of these answers respond to the same stimulus" in message
    message = refused("score", "--predictions", run("lamp3"), "--divergence")
    assert "lamp3 has no free text, but ordinal" in message


def test_files_of_an_own_task_are_scored(personabench: Command, tmp_path: Path) -> None:
    assert personabench("new", "task", "mine").code == 0
    data = tmp_path / "own.jsonl"
    rows = [{"id": f"q{n}", "output": str(n % 5 + 1)} for n in range(8)]
    data.write_text("\n".join(map(json.dumps, rows)))
    ended = personabench(
        *("score", "-t", "./mine.py", "--predictions", data, "--references", data, "--json")
    )
    assert (ended.code, ended.json["n"], ended.json["unparsed"]) == (0, 8, 0), ended.err
