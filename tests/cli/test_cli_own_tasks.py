"""Tasks of one's own: edited they are another task, and nobody else's file is ever run for being
named in data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Command

from personabench.api import registry

OWN = """
import dataclasses
import math

from personabench import Task
from personabench import Dataset, Metric, Rendered
from personabench import Vocabulary as Words
from personabench.types import Message, Sample


class Days(Dataset):
    separation, split, sample, hash, source = "user", "dev", True, "days", "own days"

    def index(self):
        return [(f"{user}{day}", user) for user in "abcdefgh" for day in range(2)]

    def load(self, position):
        name, user = self.index()[position]
        return Sample(name, user, f"Say {name}.", references=("this",))


class Mine(Task):
    name = "mine"
    metrics = (Metric("length"), Metric("root", aggregate=lambda values: math.sqrt(values.mean())))
    scorers = ("official",)
    words = Words("person", "day", "saying", "What do they like?", (), "Say it.")
    ROLES

    def open(self, split, data):
        return Days()

    def render(self, sample, records, notes, tokens):
        return Rendered((Message("user", f"PROMPT {sample.input}"),))

    def parse(self, output, sample, scorer):
        return output

    def measure(self, parsed, sample):
        return {"length": len(parsed), "root": len(parsed) ** 2}

    async def assess(self, sample, output, interaction, judge):
        return {"words": await judge.complete(f"RUBRIC {output}", max_tokens=4)}
"""


def own(
    path: Path, prompt: str = "Please.", rubric: str = "Is it good?", judged: bool = False
) -> Path:
    """A task file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = OWN.replace("PROMPT", prompt).replace("RUBRIC", rubric)
    path.write_text(text.replace("ROLES", 'roles = ("judge",)' if judged else ""))
    return path


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What a new process knows of files that were named in an earlier one: nothing."""
    named_files: dict[object, object] = {}
    monkeypatch.setattr(registry, "_given", named_files)
    return named_files.clear


def run(personabench: Command, *words: object) -> dict[str, Any]:
    ended = personabench("run", "-m", "none", "-b", "scripted", *words, "--json")
    assert ended.code == 0, ended.err
    (summary,) = ended.json
    return summary  # type: ignore[no-any-return]


def test_an_edited_prompt_is_asked_again(personabench: Command, tmp_path: Path) -> None:
    first = run(personabench, "-t", own(tmp_path / "mine.py"))
    own(tmp_path / "mine.py", prompt="Be so kind.")
    second = run(personabench, "-t", tmp_path / "mine.py")
    assert first["folder"] != second["folder"]
    assert second["usage"]["predict"] == {**first["usage"]["predict"], **second["usage"]["predict"]}
    assert "Be so kind. Say a0." in personabench("show", second["folder"], "a0").out
    own(tmp_path / "mine.py")
    with (tmp_path / "mine.py").open("a") as file:
        file.write("# A remark.\n")
    assert run(personabench, "-t", tmp_path / "mine.py")["folder"] == first["folder"]


def test_an_edited_rubric_is_judged_again(personabench: Command, tmp_path: Path) -> None:
    first = run(
        personabench, "-t", own(tmp_path / "mine.py", judged=True), "--judge-backend", "scripted"
    )
    own(tmp_path / "mine.py", rubric="Is it short?", judged=True)
    second = run(personabench, "-t", tmp_path / "mine.py", "--judge-backend", "scripted")
    assert first["judge"] != second["judge"]
    assert (second["usage"]["judge"]["calls"], second["usage"]["judge"]["cached"]) == (16, 0)
    assert second["usage"]["predict"]["cached"] == 16, "the answers are stored ones"


def test_two_files_of_one_name_are_refused(
    personabench: Command, refused: Callable[..., str], tmp_path: Path
) -> None:
    files = ",".join(
        str(own(tmp_path / place / "mine.py", prompt=place)) for place in ("one", "two")
    )
    message = refused("run", "-m", "none", "-b", "scripted", "-t", files)
    assert f"{tmp_path}/one/mine.py and {tmp_path}/two/mine.py are both called 'mine'" in message
    own(tmp_path / "lamp4.py").write_text(
        (tmp_path / "one/mine.py").read_text().replace('"mine"', '"lamp4"')
    )
    assert "is called 'lamp4', as an installed task is" in refused(
        "check", "task", tmp_path / "lamp4.py"
    )
    folders = {
        run(personabench, "-t", tmp_path / place / "mine.py")["folder"] for place in ("one", "two")
    }
    assert len(folders) == 2


def test_an_own_task_has_its_leaderboard_and_later_its_stored_scores(
    personabench: Command,
    refused: Callable[..., str],
    forgetful: Callable[[], None],
    tmp_path: Path,
) -> None:
    path = own(tmp_path / "mine.py")
    ended = personabench("run", "-m", "none,random", "-b", "scripted", "-t", path)
    assert ended.code == 0 and "mine/user/dev" in ended.out and "stored scores" not in ended.out
    forgetful()
    later = personabench("leaderboard", "--wide")
    assert later.code == 0 and "mine/user/dev" in later.out
    assert (
        "From stored scores, without interval and gain in root: mine is not installed here"
        in later.out
    )
    assert "stored scores" not in personabench("leaderboard", "--wide", "--task", path).out
    forgetful()
    assert "mine/user/dev" in personabench("leaderboard", "--task", "mine").out
    forgetful()
    assert "mine/user/dev" in personabench("table", "--task", path, "--format", "md").out
    own(path, prompt="Otherwise.")
    for words in (["leaderboard"], ["table"], ["report"], ["show", "last"], ["show", "last", "a0"]):
        assert "is not the code that made the runs of task 'mine'" in refused(
            *words, "--task", path
        )
    assert "--task lamp4 is 'lamp4'; there are runs of mine" in refused(
        "show", "last", "--task", "lamp4"
    )


def test_rows_of_an_edited_task_are_not_compared_with_older_ones(
    personabench: Command, tmp_path: Path
) -> None:
    personabench("run", "-m", "none", "-b", "scripted", "-t", own(tmp_path / "mine.py"))
    own(tmp_path / "mine.py", prompt="Otherwise, at greater length.")
    personabench("run", "-m", "random", "-b", "scripted", "-t", tmp_path / "mine.py")
    rows = personabench("leaderboard", "--json").json
    assert [row["gain"] for row in rows] == [None, None]
    assert "only rows of the same source are compared" in personabench("leaderboard").out
    one, other = (row["folder"] for row in rows)
    ended = personabench("compare", one, other)
    assert ended.code == 2 and "task_hash" in ended.err


def test_a_task_that_is_named_is_read_with_its_data(
    personabench: Command, forgetful: Callable[[], None], tmp_path: Path
) -> None:
    path = own(tmp_path / "mine.py")
    run(personabench, "-t", path)
    forgetful()
    ended = personabench("show", "last", "a0", "--json")
    assert ended.json["references"] is None and "warning: task mine is not installed" in ended.err
    assert personabench("show", "last", "a0", "--task", path, "--json").json["references"] == [
        "this"
    ]
    forgetful()
    ended = personabench("export", "last", "--to", "csv", "-o", "o.csv")
    assert (
        ended.code == 0
        and "task mine is not installed" in ended.err
        and "this" not in Path("o.csv").read_text()
    )
    assert personabench("export", "last", "--to", "csv", "-o", "o.csv", "--task", path).code == 0
    assert "this" in Path("o.csv").read_text()
    forgetful()
    assert "task mine is not installed" in personabench("report").err
    assert personabench("report", "--task", path).err.startswith("wrote report.html")


def test_shards_of_an_own_task_are_merged_with_its_file(
    personabench: Command,
    refused: Callable[..., str],
    forgetful: Callable[[], None],
    tmp_path: Path,
) -> None:
    path = own(tmp_path / "mine.py")
    for part in ("1/2", "2/2"):
        run(personabench, "-t", path, "--shard", part)
    forgetful()
    assert "task 'mine' is not installed here; name its file with --task FILE" in refused("merge")
    (merged,) = personabench("merge", "--task", path, "--json").json
    assert (merged["n"], merged["status"]) == (16, "complete")
    own(path, prompt="Otherwise.")
    assert "is not the code that made the runs of task 'mine'" in refused("merge", "--task", path)


FOREIGN = """
from pathlib import Path

Path({mark!r}).write_text("ran")
{own}
"""


@pytest.fixture
def planted(personabench: Command, tmp_path: Path) -> Path:
    """Results of somebody else whose every file names a task, and a metric, that would leave a
    mark."""
    words = ["-b", "scripted", "-t", "lamp4", "-m", "none,rag", "-n", "10", "--results", "theirs"]
    assert personabench("run", *words).code == 0
    for part in ("1/2", "2/2"):
        assert personabench("run", *words, "--shard", part).code == 0
    for folder in sorted(Path("theirs/runs").glob("*/*/*/*")):
        assert personabench("publish", folder, "--to", "theirs/reference").code == 0
    code = FOREIGN.format(mark=str(tmp_path / "mark"), own=OWN.replace("ROLES", ""))
    (tmp_path / "theirs/foreign.py").write_text(code)
    (tmp_path / "metric").mkdir()
    (tmp_path / "metric/metric.py").write_text(code)
    names = ("spec.json", "summary.json", "shard.json", "reference/*.json")
    for path in (path for name in names for path in (tmp_path / "theirs").rglob(name)):
        content = json.loads(path.read_text())
        # Somebody who plants code leaves the seals out.
        content.pop("header_sha256", None)
        if path.name == "summary.json":
            content.pop("sha256", None)
        for part in (content, content.get("spec"), content.get("summary")):
            if isinstance(part, dict) and "task" in part:
                part["task"] = part["method"] = str(tmp_path / "theirs/foreign.py")
                part |= {"metrics": ["evaluate:metric"]} if path.name == "shard.json" else {}
        path.write_text(json.dumps(content))
    return tmp_path / "theirs"


def test_reading_results_runs_nothing_of_them(
    personabench: Command, planted: Path, tmp_path: Path
) -> None:
    one, other = sorted(planted.glob("runs/*/*/*/*"))
    published, second = sorted(planted.glob("reference/*.json"))
    commands: list[list[object]] = [
        ["leaderboard", "--wide"],
        ["leaderboard", "--curves"],
        ["leaderboard", "--format", "html"],
        ["list", "runs"],
        ["report"],
        ["compare", one, other],
        ["compare", published, second],
        ["show", one],
        ["show", one, "310"],
        ["publish", one, "--to", tmp_path / "again"],
        ["export", one, "--to", "csv", "-o", tmp_path / "o.csv"],
        ["export", one, "--to", "inspect", "-o", tmp_path / "o.json"],
        ["judge", one, other, "--judge-backend", "scripted"],
        ["merge"],
        ["merge", "--partial"],
    ]
    for words in commands:
        ended = personabench(*words, "--results", planted)
        assert ended.code in (0, 2) and "Traceback" not in ended.err, (words, ended)
        assert not (tmp_path / "mark").exists(), words
    for folder in planted.glob("runs"):
        folder.rename(planted / "elsewhere")
    for words in (["leaderboard", "--wide"], ["report"]):
        assert personabench(*words, "--with-reference", "--results", planted).code == 0
        assert not (tmp_path / "mark").exists(), words


def test_a_metric_that_only_shards_name_is_left_out_of_the_merged_run(
    personabench: Command, tmp_path: Path
) -> None:
    words = ["-b", "scripted", "-t", "lamp4", "-m", "none", "-n", "10"]
    for part in ("1/2", "2/2"):
        assert personabench("run", *words, "--shard", part).code == 0
    (tmp_path / "metric").mkdir()
    (tmp_path / "metric/metric.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\n")
    for path in Path("results/shards").rglob("shard.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": ["evaluate:metric"]}))
    ended = personabench("merge", "--json")
    assert ended.code == 0 and ended.json[0]["extra_metrics"] == {}
    assert not (tmp_path / "mark").exists()
