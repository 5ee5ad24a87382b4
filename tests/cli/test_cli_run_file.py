"""Run files, defaults from the environment, `init`, and what a shell completes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main
from conftest import Command

from personabench.cli import completion
from personabench.cli.app import app
from personabench.cli.init import TEMPLATE
from personabench.cli.run_file import Options, list_options, read_run_file, write_settings

EXPERIMENT = """\
method = ["none", "rag"]
task = ["lamp4", "lamp3"]
backend = "scripted"
limit = 2
seeds = [0]

[grid]
rag.k = [1, 2]

[set]
task.dates = true
"""
TYPED = (
    "run --method none,rag --task lamp4,lamp3 --backend scripted --limit 2 --seeds 0 "
    "--grid rag.k=1,2 --set task.dates=true"
)

RUN = ("run", "-m", "none", "-t", "lamp4", "-b", "scripted", "-n", "2")


def folders(ended: object) -> list[str]:
    return [summary["folder"] for summary in ended.json]  # type: ignore[attr-defined]


@pytest.fixture
def options() -> Options:
    return list_options(run_command().params)


def run_command() -> typer.core.TyperCommand:
    group = typer.main.get_command(app)
    command = group.commands["run"]  # type: ignore[attr-defined]
    assert isinstance(command, typer.core.TyperCommand)
    return command


def test_a_file_makes_the_same_runs_as_its_options_typed(
    personabench: Command, tmp_path: Path
) -> None:
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    filed = folders(personabench("run", "experiment.toml", "--json"))
    # Both methods on both tasks, and rag at both values.
    assert len(filed) == 2 * 3
    assert folders(personabench(*shlex.split(TYPED), "--json")) == filed


def test_typed_options_win_and_a_typed_key_replaces_its_own_alone(
    personabench: Command, tmp_path: Path
) -> None:
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    words = ("--method=rag", "--task=lamp4", "--seed=3", "--grid=rag.k=4", "--json")
    (summary,) = personabench("run", "experiment.toml", *words).json
    assert (summary["method"], summary["task"], summary["seed"]) == ("rag", "lamp4", 3)
    assert summary["params"]["k"] == 4
    spec = json.loads((Path(summary["folder"]) / "spec.json").read_text())
    assert spec["task_params"]["dates"] is True


def test_a_saved_file_repeats_the_command_and_stands_in_each_run(
    personabench: Command, tmp_path: Path
) -> None:
    words = ("-t", "lamp4", "-b", "scripted", "-n", "2", "--grid", "rag.k=1,2", "--json")
    first = folders(personabench("run", "-m", "rag", *words, "--save", "saved.toml"))
    assert len(first) == 2
    text = (tmp_path / "saved.toml").read_text()
    assert folders(personabench("run", "saved.toml", "--json")) == first
    for folder in first:
        assert (Path(folder) / "run.toml").read_text() == text
    assert tomllib.loads(text)["grid"] == {"rag.k": [1, 2]}
    refused = personabench("run", "saved.toml", "--limit", "3", "--save", "saved.toml")
    assert refused.code == 2
    assert "the file exists" in refused.err


def test_the_identity_of_a_run_knows_no_file(personabench: Command, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('method = "none"\ntask = "lamp4"\nbackend = "scripted"\n')
    (filed,) = personabench("run", "a.toml", "-n", "2", "--json").json
    (typed,) = personabench(*RUN, "--json").json
    assert filed["fingerprint"] == typed["fingerprint"]
    assert filed["command"] == "personabench run a.toml -n 2 --json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('task = "lamp4"\nmethods = "none"', "line 2: no option 'methods'; did you mean 'method'?"),
        (
            'method = "none"\n[judge]\n\nmodle = "x"',
            "line 4: no option 'judge.modle'; did you mean 'model'",
        ),
        ('base_url = "x"', "line 1: no option 'base_url'; did you mean 'base-url'?"),
        ("[juge]\nmodel = 3", "line 1: no option 'juge'; did you mean 'judge'?"),
        ('method = "none"\nlimit = "many"', "line 2: limit: "),
        ("limit = 0", "line 1: limit: "),
        ('data = "nowhere"', "line 1: data: "),
        ("batch = 1", "line 1: batch: write true or false"),
        ("[limit]\nmany = 3", "line 1: limit: write a value, not a table"),
        ("seeds = [[1], [2]]", "line 1: seeds: write a list of plain values"),
        ('method = "none"\ntask = lamp4', "at line 2"),
        ('save = "x.toml"', "line 1: no option 'save'"),
        ('task = "lamp4"', "has no method"),
    ],
)
def test_a_wrong_file_is_explained_with_its_line(
    text: str, message: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "wrong.toml").write_text(text)
    error = refused("run", "wrong.toml")
    assert "wrong.toml" in error
    assert message in error


def test_a_missing_file_and_a_forgotten_comma_are_explained(refused: Callable[..., str]) -> None:
    assert "personabench init" in refused("run", "nowhere.toml")
    assert "--method none,rag" in refused("run", "--method", "none", "rag")


# Values as they are typed, of every form that options have.
FORMS = {
    "method": ["none,./mine.py:Mine"],
    "set": ["k=2", "rag.query=a=b", "task.x=1.50", "name=true"],
    "grid": ["rag.k=1,2", "rag.on=true,false"],
    "map": ["question=text,user=who", "history.response=reply"],
    "model": ["007"],
    "context-length": ["4096"],
    "temperature": ["0.5"],
    "batch": ["true"],
    "vllm-args": ["--max-num-seqs 8 --quote '\"'"],
    "history": ["shuffled", "chats.csv"],
    "extra": ['tier="flex"', "top_k=20"],
    "judge-model": ["a/b"],
    "judge-extra": ['options={"a": [1, null]}', "b=1"],
}


def test_options_of_every_form_survive_a_file(options: Options, tmp_path: Path) -> None:
    path = tmp_path / "forms.toml"
    path.write_text(write_settings(FORMS, options))
    with run_command().make_context("run", ["-m", "none"]) as ctx:
        settings = {
            setting.name: setting.values
            for setting in read_run_file(path, options, ctx)  # type: ignore[arg-type]
        }
    # Pairs with commas come back one by one.
    expected = FORMS | {"map": ["question=text", "user=who", "history.response=reply"]}
    assert settings == expected


def test_secrets_are_not_written(options: Options) -> None:
    text = write_settings(
        {
            "method": ["none"],
            "header": ["X-Key: secret"],
            "judge-header": ["X-Key: secret"],
            "base-url": ["http://me:secret@host/v1,http://me:se@cret@other/v1"],
        },
        options,
    )
    assert "secret" not in text.replace("since they are secret", "")
    assert "cret@" not in text
    assert "--header" in text and "--judge-header" in text and "--base-url" in text


def test_defaults_come_from_the_environment_and_are_said(
    personabench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PERSONABENCH_BACKEND", "scripted")
    monkeypatch.setenv("PERSONABENCH_RESULTS", "elsewhere")
    monkeypatch.setenv("PERSONABENCH_CONCURRENCY", "2")
    ended = personabench("run", "-m", "none", "-t", "lamp4", "-n", "2", "-j", "1", "--json")
    assert ended.code == 0, ended.err
    line = "from the environment: PERSONABENCH_BACKEND=scripted, PERSONABENCH_RESULTS=elsewhere"
    assert ended.err.splitlines().count(line) == 1
    (summary,) = ended.json
    folder = Path(summary["folder"])
    assert folder.parts[0] == "elsewhere"
    assert line in (folder / "attempts" / "001.log").read_text()
    assert 'backend = "scripted"' in (folder / "run.toml").read_text()
    assert personabench("list", "runs").out.count("none") >= 1

    # Other commands say which model they would call.
    ended = personabench("check", "backend")
    assert "from the environment: PERSONABENCH_BACKEND=scripted" in ended.err

    # A file says more than the environment.
    (tmp_path / "file.toml").write_text('method = "none"\ntask = "lamp4"\nresults = "third"\n')
    (summary,) = personabench("run", "file.toml", "-n", "2", "--json").json
    assert Path(summary["folder"]).parts[0] == "third"


def test_init_writes_a_file_that_runs_as_it_is_and_with_its_comments_read(
    personabench: Command, tmp_path: Path, options: Options
) -> None:
    ended = personabench("init")
    assert ended.code == 0
    assert "personabench run experiment.toml" in ended.out
    assert personabench("run", "experiment.toml", "-b", "scripted", "-n", "2").code == 0
    assert personabench("init").code == 2

    lines = TEMPLATE.format(file="x").splitlines()
    settings = [
        line.removeprefix("# ")
        for line in lines
        if line.startswith(("# [", '# "')) or " = " in line.partition('"')[0]
    ]
    tables = tomllib.loads("\n".join(settings))
    assert len(tables) >= 15
    assert set(tables) - set(options) == {"judge", "simulator"}


def test_names_are_completed_in_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    (tmp_path / "own.toml").touch()
    (tmp_path / "small.gguf").touch()
    assert completion.complete_methods("none,rand") == ["none,random"]
    assert completion.complete_methods("random,random") == []
    assert "lamp4" in completion.complete_tasks("la")
    assert completion.complete_methods("./m") == ["./mine.py"]
    assert completion.complete_tasks("none,./o") == ["none,./own.toml"]
    assert completion.complete_backends("sc") == ["scripted"]
    assert completion.complete_models("pack") == ["packaged:q8_0"]
    assert completion.complete_models("./") == ["./small.gguf"]


def test_models_and_runs_of_the_results_folder_are_completed(personabench: Command) -> None:
    (summary,) = personabench(*RUN, "--json").json
    assert completion.complete_models("scr") == ["scripted"]
    assert completion.complete_runs("") == ["last", summary["fingerprint"][:8]]


PROBE = """
import atexit, sys
heavy = ("numpy", "openai", "datasets", "pandas", "rich", "xllamacpp", "sklearn", "yaml")
atexit.register(lambda: print(*(name for name in heavy if name in sys.modules), file=sys.stderr))
from personabench.cli.app import main
main()
"""


def test_a_shell_completes_without_heavy_imports(tmp_path: Path) -> None:
    words = "personabench run --task lamp4 --method none,copy_n"
    environment = {
        **os.environ,
        "COMP_WORDS": words,
        "COMP_CWORD": "5",
        "_PERSONABENCH_COMPLETE": "complete_bash",
    }
    program = f"import sys; sys.argv = ['personabench']\n{PROBE}"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, env=environment, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert ended.stdout.split() == ["none,copy_nearest"]
    assert ended.stderr.strip() == ""


def test_a_wrong_name_for_a_saved_file_is_refused(refused: Callable[..., str]) -> None:
    assert ".toml" in refused(*RUN, "--save", "run.json")
    Path("folder.toml").mkdir()
    assert "folder.toml" in refused(*RUN, "--save", "folder.toml")


def test_a_merged_run_holds_the_options_of_the_whole(personabench: Command) -> None:
    for part in ("1/2", "2/2"):
        assert personabench(*RUN[:-2], "--shard", part).code == 0
    assert personabench("merge").code == 0
    (path,) = Path("results").glob("runs/*/*/*/*/run.toml")
    assert tomllib.loads(path.read_text()) == {
        "method": "none",
        "task": "lamp4",
        "backend": "scripted",
    }
