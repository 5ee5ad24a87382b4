"""A faulty plugin costs no traceback: every message names file, line and what was expected."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from mutated_plugins import (
    METHOD,
    METHODS,
    ONLINE,
    ONLINE_TASKS,
    STATIC,
    STATIC_TASKS,
    TASK,
    TASKS,
    Mutation,
    mutate,
)

from personabench.api import registry
from personabench.cli.app import main

LOCATION = re.compile(r"mine\.py, line \d+")


def by_name(mutation: Mutation) -> str:
    return mutation[0].replace(" ", "-")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_given", {})


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    """Run a command in this process; returns its exit code and everything it printed."""
    monkeypatch.setattr(sys, "argv", ["personabench", *words])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def check_message(code: int, text: str) -> None:
    assert code in (1, 2), text
    assert "Traceback" not in text
    assert LOCATION.search(text) and "expected" in text, text


RUN = ("run", "-b", "scripted", "-n", "2")


def method_commands() -> list[tuple[str, ...]]:
    return [("check", "method", "mine.py"), (*RUN, "-m", "mine.py", "-t", "lamp4")]


def task_commands(method: str = "rag") -> list[tuple[str, ...]]:
    return [("check", "task", "mine.py"), (*RUN, "-m", method, "-t", "mine.py")]


@pytest.mark.parametrize("mutation", METHODS, ids=by_name)
def test_a_faulty_method(
    mutation: Mutation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In turns with a check and with a run; the other command of each fault is a variant."""
    Path("mine.py").write_text(mutate(METHOD, mutation), encoding="utf-8")
    words = method_commands()[METHODS.index(mutation) % 2]
    check_message(*command(monkeypatch, capsys, *words))


@pytest.mark.variants
@pytest.mark.parametrize("mutation", METHODS, ids=by_name)
def test_a_faulty_method_in_the_other_command(
    mutation: Mutation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(mutate(METHOD, mutation), encoding="utf-8")
    words = method_commands()[1 - METHODS.index(mutation) % 2]
    check_message(*command(monkeypatch, capsys, *words))


@pytest.mark.variants
@pytest.mark.parametrize("mutation", TASKS, ids=by_name)
def test_a_faulty_task(
    mutation: Mutation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(mutate(TASK, mutation), encoding="utf-8")
    for words in task_commands():
        check_message(*command(monkeypatch, capsys, *words))


@pytest.mark.parametrize("mutation", STATIC_TASKS, ids=by_name)
def test_a_faulty_task_of_samples_alone(
    mutation: Mutation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(mutate(STATIC, mutation), encoding="utf-8")
    for words in task_commands():
        check_message(*command(monkeypatch, capsys, *words))


# A forgotten `await` leaves a coroutine, of which Python warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("mutation", ONLINE_TASKS, ids=by_name)
def test_a_faulty_online_task(
    mutation: Mutation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(mutate(ONLINE, mutation), encoding="utf-8")
    for words in task_commands("none"):
        check_message(*command(monkeypatch, capsys, *words))


def test_the_sound_files_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for source, commands in (
        (METHOD, method_commands()),
        (TASK, task_commands()),
        (STATIC, task_commands()),
        (ONLINE, task_commands("none")),
    ):
        Path("mine.py").write_text(source, encoding="utf-8")
        for words in commands:
            code, text = command(monkeypatch, capsys, *words)
            assert code == 0, text


@pytest.mark.parametrize(
    "name",
    [
        "predict exits",
        pytest.param("an exit at import", marks=pytest.mark.variants),
        pytest.param("a syntax error", marks=pytest.mark.variants),
    ],
)
def test_a_faulty_method_in_a_process_of_its_own(name: str) -> None:
    (mutation,) = [mutation for mutation in METHODS if mutation[0] == name]
    Path("mine.py").write_text(mutate(METHOD, mutation), encoding="utf-8")
    for words in method_commands():
        ended = subprocess.run(
            [sys.executable, "-c", "from personabench.cli.app import main; main()", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        check_message(ended.returncode, ended.stdout + ended.stderr)
