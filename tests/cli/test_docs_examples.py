"""The pages on writing tasks and methods: files and commands work as printed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    "write-a-task.md",
    "write-a-method.md",
    "memory.md",
    "prompts.md",
    "reproduce.md",
    "run-file.md",
)
FILE = re.compile(r'^```\w+ title="([\w.]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*)$", re.MULTILINE)


def read_files(page: str) -> dict[str, str]:
    return dict(FILE.findall((DOCS / page).read_text(encoding="utf-8")))


def read_commands(page: str) -> list[list[str]]:
    """The commands of a page up to the section on packages, which has a test of its own."""
    text = (DOCS / page).read_text(encoding="utf-8").partition("\n## Share it")[0]
    return [shlex.split(line) for line in COMMAND.findall(text)]


@pytest.mark.parametrize("page", PAGES)
def test_files_and_commands_of_a_page_work(
    page: str, personabench: Command, tmp_path: Path
) -> None:
    for name, text in read_files(page).items():
        (tmp_path / name).write_text(text, encoding="utf-8")

    for program, *words in read_commands(page):
        if program == "personabench":
            ended = personabench(*words)
            assert ended.code == 0, (words, ended)
            continue
        assert program == "pytest"
        tests = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert tests.returncode == 0, tests.stdout


def test_a_task_takes_15_lines() -> None:
    for name in ("books.py", "chats.py"):
        assert len(read_files("write-a-task.md")[name].splitlines()) <= 15


def test_the_error_messages_of_the_page_are_what_a_user_gets(
    personabench: Command, tmp_path: Path
) -> None:
    page = (DOCS / "write-a-task.md").read_text(encoding="utf-8")
    messages = re.findall(r"^error: (.*)$", page, re.MULTILINE)
    files = read_files("write-a-task.md")
    *rows, last = files["books.jsonl"].splitlines()
    (tmp_path / "books.py").write_text(files["books.py"])

    broken = [
        last.replace('"response"', "").replace('"stars": "5"}, {', '"stars": 5}, {'),
        last.replace('"stars": "5", "rated"', '"rated"'),
    ]
    for message, row in zip(messages, broken, strict=True):
        (tmp_path / "books.jsonl").write_text("\n".join([*rows, row]))
        ended = personabench("check", "task", "books.py")
        assert ended.code == 2
        assert message in ended.err.replace(f"{tmp_path}/", "")
