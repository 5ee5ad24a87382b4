"""Start-up stays light: no heavy import before a verb needs it, and a wall clock that only a real
slip exceeds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Command

from personabench.cli.help import PANELS

COMMANDS = (
    "run",
    "init",
    "merge",
    "score",
    "leaderboard",
    "report",
    "compare",
    "judge",
    "judge-report",
    "publish",
    "export",
    "show",
    "download",
    "generate",
    "doctor",
)
HEAVY = (
    "openai",
    "datasets",
    "evaluate",
    "pandas",
    "torch",
    "vllm",
    "numpy",
    "wordllama",
    "xllamacpp",
    "sklearn",
)
PROBE = f"""
import atexit, json, sys
from personabench.cli.app import main
heavy = {HEAVY!r}
imported = lambda: [name for name in heavy if name in sys.modules]
atexit.register(lambda: print(json.dumps(imported()), file=sys.stderr))
main()
"""


def started(folder: Path, words: list[str]) -> tuple[list[str], float]:
    """The heavy modules a command imported, and its wall seconds."""
    begun = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", PROBE, *words],
        capture_output=True,
        text=True,
        cwd=folder,
        check=True,
        timeout=60,
    )
    seconds = time.perf_counter() - begun
    return json.loads(ended.stderr.splitlines()[-1]), seconds


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["run", "--help"],
        ["list", "methods"],
        ["list", "tasks"],
        ["list", "backends"],
        ["list", "runs"],
        ["list", "runs", "--json"],
    ],
    ids=" ".join,
)
def test_help_and_list_import_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    assert started(tmp_path, words)[0] == []


def test_leaderboard_imports_nothing_heavy(tmp_path: Path, personabench: object) -> None:
    assert callable(personabench)
    personabench("run", "-b", "scripted", "-t", "lamp4", "-m", "none", "-n", "3")
    assert started(tmp_path, ["leaderboard"])[0] == []


def test_help_of_run_groups_every_option_under_a_heading(personabench: Command) -> None:
    text = personabench("run", "--help").out
    headings = [line[:-1] for line in text.splitlines() if re.fullmatch(r"\w[\w ]+:", line)]
    assert headings == ["Arguments", *PANELS]
    assert text.index("Controls:") < text.index("--history") < text.index("Execution:")


@pytest.mark.parametrize(
    "words",
    [[command] for command in COMMANDS] + [["cache", "why"], ["check", "task"], ["list", "runs"]],
    ids=" ".join,
)
def test_help_shows_no_type_of_the_programming_language(
    words: list[str], personabench: Command
) -> None:
    text = personabench(*words, "--help").out
    assert "Usage: " in text
    assert not re.search(r"<[A-Za-z]", text)


@pytest.mark.parametrize("words", [["--help"], ["list", "methods"]], ids=" ".join)
def test_start_up_takes_no_seconds(tmp_path: Path, words: list[str]) -> None:
    """The budget is 0.35 s on an idle machine (`benchmarks/startup.py`); here it may be busy."""
    assert any(started(tmp_path, words)[1] < 3.0 for _ in range(3))


def test_the_module_runs_as_the_command_does() -> None:
    """For an interpreter whose scripts are not on the path."""
    ended = subprocess.run(
        [sys.executable, "-m", "personabench", "list", "frobs"], capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert "python -m personabench list" in ended.stderr
