"""`personabench judge` and `judge-report`: two runs before a judge, what is kept, and what is
refused."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from conftest import Command

from personabench.models import backends
from personabench.models.backends.base import BackendOptions
from personabench.models.backends.scripted import Scripted
from personabench.run import pairwise_judging
from personabench.run.verdict_file import read_verdicts
from personabench.tasks.personamem.files import SAMPLES
from personabench.types import Request


@pytest.fixture
def runs(personabench: Command) -> tuple[str, str]:
    """Two runs of eight samples whose answers differ."""
    folders = []
    for method in ("none", "rag"):
        (summary,) = personabench(
            "run", "-b", "scripted", "-t", "lamp4", "-m", method, "-n", "8", "--json"
        ).json
        folders.append(summary["folder"])
    return folders[0], folders[1]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[Scripted]:
    """The judges that commands made; each says that the first reply is better unless told
    otherwise."""
    return judging(monkeypatch, lambda request: "Hm.\nScore of reply 1: 8\nScore of reply 2: 5")


def judging(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Request], str]) -> list[Scripted]:
    made: list[Scripted] = []

    def create(name: str, options: BackendOptions) -> Scripted:
        made.append(Scripted(options, answer))
        return made[-1]

    monkeypatch.setattr(backends, "create", create)
    return made


WORDS = ("--judge-backend", "scripted", "--judge-model", "oracle-9")


def test_a_judge_that_likes_what_stands_first_is_found_out(
    personabench: Command, runs: tuple[str, str], said: list[Scripted]
) -> None:
    found = personabench("judge", *runs, *WORDS, "--json").json
    assert (
        found["reliability"]["conflict"] == {"value": 1.0, "n": found["n"]}
        and found["reliability"]["first"]["value"] == 1.0
    )
    assert found["shares"] == {"a": 0.0, "b": 0.0, "tie": 1.0} and found["gain"]["value"] == 0.0
    assert (
        found["reliability"]["calls"] == 6 * found["n"] == len(said[0].requests)
        and found["failed"] == 0
    )
    assert (
        found["config"]["judge"]["name"] == "oracle-9"
        and found["a"]["label"] == "none"
        and not found["warnings"]
    )
    shown = said[0].requests[0].messages[-1].content
    assert "What is known of the person:" in shown and "Reply 1:" in shown
    printed = personabench("judge", *runs, *WORDS).out
    assert "conflict 100.0%" in printed and "first 100.0%" in printed and "ties 100.0%" in printed


def test_the_same_command_makes_no_call_and_another_config_judges_again(
    personabench: Command, runs: tuple[str, str], said: list[Scripted]
) -> None:
    first = personabench("judge", *runs, *WORDS, "--json", "--limit", "3").json
    assert first["n"] == 3 and len(said[0].requests) == 18
    again = personabench("judge", *runs, *WORDS, "--json", "--limit", "3", "--cache", "off").json
    assert again == first and not said[1].requests
    more = personabench("judge", *runs, *WORDS, "--json", "--cache", "off").json
    assert more["n"] > 3 and len(said[2].requests) == 6 * (more["n"] - 3)
    other = personabench("judge", *runs, *WORDS, "--votes", "1", "--limit", "3", "--json").json
    assert other["file"] != first["file"] and len(said[3].requests) == 0, (
        "the first samples are in the cache"
    )
    path = Path(first["file"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    personabench("judge", *runs, *WORDS, "--json", "--cache", "off")
    assert len(said[4].requests) == 6, "a torn last line is owed again"
    assert len(path.read_bytes().splitlines()) == len(whole.splitlines())


def test_wins_have_an_interval_over_users_and_people_overrule(
    personabench: Command, runs: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def rag_is_better(request: Request) -> str:
        text = request.messages[-1].content
        first = "\n".join(
            text.partition("Reply 1:\n")[2].partition("\n\nReply 2:")[0].splitlines()[1:-1]
        )
        better = first in answers
        return (
            f"Hm.\nScore of reply 1: {8 if better else 4}\nScore of reply 2: {4 if better else 8}"
        )

    answers = [
        json.loads(line)["output"]
        for line in (Path(runs[1]) / "predictions.jsonl").read_text().splitlines()
    ]
    judging(monkeypatch, rag_is_better)
    out = tmp_path / "people.jsonl"
    found = personabench("judge", *runs, *WORDS, "--json", "--export", out).json
    assert (
        found["shares"]["b"] == 1.0
        and found["gain"]["value"] == -1.0
        and found["reliability"]["conflict"]["value"] == 0
    )
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert (
        len(lines) == round(found["n"] / 5)
        and lines[0]["judge"] == "b"
        and lines[0]["label"] is None
    )
    lines[0]["label"] = "a"
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ruled = personabench("judge", *runs, *WORDS, "--json", "--labels", out).json
    assert ruled["hitl"] and ruled["shares"]["a"] == pytest.approx(1 / found["n"])
    assert ruled["reliability"]["agreement"] == {"accuracy": 0.0, "kappa": 0.0, "n": 1}
    report = personabench("judge-report", found["file"], "--labels", out)
    assert "accuracy 0.0% against human labels, kappa 0.000, n=1" in report.out
    assert (
        personabench("judge-report", found["file"], "--json").json[found["file"]]["agreement"]
        is None
    )


def test_a_choice_in_the_persons_place(
    personabench: Command, runs: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = judging(monkeypatch, lambda request: "[[A]] [[90]]")
    found = personabench("judge", *runs, *WORDS, "--protocol", "verbal-certainty", "--json").json
    assert (
        found["reliability"]["calls"] == found["n"] == len(made[0].requests)
        and found["reliability"]["first"]["value"] == 1.0
    )
    assert found["shares"]["a"] + found["shares"]["b"] == 1.0 and 0 < found["shares"]["a"] < 1
    assert found["config"]["protocol"] == "verbal-certainty"
    printed = personabench("judge", *runs, *WORDS, "--protocol", "verbal-certainty").out
    assert "judge oracle-9: a choice with a certainty" in printed
    # Verdicts are stored for each protocol.
    scored = personabench("judge", *runs, *WORDS, "--json").json
    assert scored["config"]["protocol"] == "faireval" and scored["file"] != found["file"]
    ended = personabench("judge", *runs, *WORDS, "--protocol", "certainty")
    assert ended.code == 2 and "verbal-certainty" in ended.err


def test_replies_that_cannot_be_read_leave_items_unjudged(
    personabench: Command, runs: tuple[str, str]
) -> None:
    found = personabench("judge", *runs, "--judge-backend", "scripted", "--json", "--limit", "2")
    assert (
        found.json["n"] == 0
        and found.json["reliability"]["unjudged"] == 2
        and found.json["reliability"]["unparsed"] == 24
    )
    assert "the judge is scripted itself" in found.err
    printed = personabench("judge", *runs, "--judge-backend", "scripted", "--limit", "2").out
    assert "unjudged 2 (100.0%)" in printed


def test_what_cannot_be_judged_is_refused(
    personabench: Command, refused: Callable[..., str], runs: tuple[str, str], tmp_path: Path
) -> None:
    assert "against itself" in refused("judge", runs[0], runs[0], "--judge-backend", "scripted")
    (other,) = personabench(
        "run", "-b", "scripted", "-t", "lamp3", "-m", "none", "-n", "2", "--json"
    ).json
    assert "task is lamp4 and lamp3" in refused(
        "judge", runs[0], other["folder"], "--judge-backend", "scripted"
    )
    again = ("run", "-b", "scripted", "-t", "lamp4", "-m", "none", "-n", "8", "--json")
    (other,) = personabench(*again, "--set", "task.dates=true").json
    said = refused("judge", runs[0], other["folder"], "--judge-backend", "scripted")
    assert "task.dates is False and True" in said
    (warm,) = personabench(*again, "--temperature", "0.5").json
    ended = personabench(
        "judge", runs[0], warm["folder"], "--judge-backend", "scripted", "--limit", "1", "--json"
    )
    assert "differ in decoding" in ended.err and any(
        "decoding" in line for line in ended.json["warnings"]
    )
    bad = tmp_path / "labels.jsonl"
    bad.write_text('{"id": "1", "label": "c"}\n')
    assert "labels.jsonl, line 1" in refused(
        "judge", *runs, "--judge-backend", "scripted", "--labels", bad
    )
    assert "is not a verdict or judgement" in refused("judge-report", bad)


def test_files_that_cannot_be_read_or_written_are_named(
    personabench: Command,
    refused: Callable[..., str],
    runs: tuple[str, str],
    said: list[Scripted],
    tmp_path: Path,
) -> None:
    bad = tmp_path / "labels.jsonl"
    bad.write_bytes(b'{"id": "\xff", "label": "a"}\n')
    assert "labels.jsonl, line 1" in refused("judge", *runs, *WORDS, "--labels", bad)
    bad.write_bytes(b'{"answers": "\xff", "verdict": {}}\n')
    assert "labels.jsonl, line 1 is not a verdict or judgement" in refused("judge-report", bad)
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "people.jsonl"):
        assert f"--export {place}" in refused("judge", *runs, *WORDS, "--export", place)
    assert not said, "nothing was asked"
    (tmp_path / "results" / "judgements").write_text("a file in the folder's place")
    ended = personabench("judge", *runs, *WORDS)
    assert (
        ended.code == 1
        and "cannot be written (File exists)" in ended.err
        and "Traceback" not in ended.err
    )


def test_a_disk_that_fills_keeps_what_is_whole(
    personabench: Command,
    runs: tuple[str, str],
    said: list[Scripted],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    whole = pairwise_judging.write_line
    room = 2

    def write(file: IO[bytes], line: bytes) -> None:
        nonlocal room
        room -= 1
        if room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(file, line)

    monkeypatch.setattr(pairwise_judging, "write_line", write)
    ended = personabench("judge", *runs, *WORDS)
    assert ended.code == 1 and "cannot be written (No space left on device)" in ended.err
    (path,) = (tmp_path / "results" / "judgements").glob("*.jsonl")
    assert len(read_verdicts(path)) == 2


def test_labels_of_other_samples_are_no_labels(
    personabench: Command, runs: tuple[str, str], said: list[Scripted], tmp_path: Path
) -> None:
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"id": "elsewhere", "label": "a"}\n')
    ended = personabench("judge", *runs, *WORDS, "--labels", labels)
    assert ended.code == 0 and "human labels" not in ended.out
    assert "no label is for a judged sample" in ended.err and "not elsewhere" in ended.err


def test_a_judge_without_a_key_is_told_of_its_own_options(
    refused: Callable[..., str], runs: tuple[str, str]
) -> None:
    message = refused("judge", *runs, "--judge-backend", "openai", "--judge-model", "any")
    assert "OPENAI_API_KEY" in message and "with --judge-base-url" in message


def test_judgements_of_a_run_have_a_card_too(personabench: Command) -> None:
    words = ("run", "-b", "scripted", "-t", "reviews", "-m", "none", "-n", "2", "--json")
    (summary,) = personabench(
        *words, "--judge-backend", "scripted", "--judge-model", "oracle-9"
    ).json
    (path,) = Path(summary["folder"]).glob("judgements/*.jsonl")
    found = personabench("judge-report", path, "--json").json[str(path)]
    assert (found["items"], found["unjudged"], found["repeated"], found["calls"]) == (2, 2, 6, 8)
    assert (
        "unjudged 2 (100.0%); replies requested again 6" in personabench("judge-report", path).out
    )
    assert not any("family" in warning for warning in summary["warnings"])
    (kin,) = personabench(*words, "--judge-backend", "scripted", "--judge-model", "scripted-9").json
    assert any(
        "scripted-9 is of the same family as scripted" in warning for warning in kin["warnings"]
    )


@pytest.mark.parametrize("task", ["personamem", "prefdisco", "prelude_email", "reviews"])
def test_runs_of_every_kind_of_split_are_judged(personabench: Command, task: str) -> None:
    run = ("run", "-b", "scripted", "-t", task, "-m", "none", "-n", "1", "--json")
    (a,), (b,) = (personabench(*run, "--max-tokens", most).json for most in ("64", "65"))
    found = personabench("judge", a["folder"], b["folder"], *WORDS, "--limit", "1", "--json").json
    assert found["n"] == 0 and found["reliability"]["unjudged"] == 1, (
        "scripted replies are no scores"
    )


def test_data_that_moved_are_refused_with_their_place(
    personabench: Command, refused: Callable[..., str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(SAMPLES, data)
    run = ("run", "-b", "scripted", "-t", "personamem", "--data", str(data), "-n", "1", "--json")
    (a,), (b,) = (
        personabench(*run, "-m", method).json for method in ("longest_option", "shortest_option")
    )
    data.rename(tmp_path / "elsewhere")
    assert str(data) in refused("judge", a["folder"], b["folder"], *WORDS).replace("\n", "")


def test_the_steering_of_a_judge_is_measured_and_kept(
    personabench: Command, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    def answer(request: Request) -> str:
        steered = "Please repeat these lines" in request.messages[-1].content
        return f"Score: {10 if steered else 2}\nScore of reply 1: 8\nScore of reply 2: 3"

    made = judging(monkeypatch, answer)
    words = ("judge-report", "--steering", "--judge-backend", "scripted", "--judge-model", "j")
    found = personabench(*words, "--json").json["steering"]
    assert found["similarity"]["score"] == pytest.approx(1 / 12)
    assert found["similarity"]["by_attack"] == {"plea": 3}
    assert found["verbal-certainty"]["immovable"] == 36, "no choice was made"

    calls = len(made[-1].requests)
    shown = personabench(*words).out
    assert "8.3% of 36 hostile answers moved the verdict; unjudged 0" in shown
    assert "by plea 3" in shown
    # Replies that could not be parsed are no verdicts, and are requested again.
    assert 0 < len(made[-1].requests) < calls
    assert "--steering" in refused("judge-report")
