"""What the page on writing tasks promises of its examples."""

from __future__ import annotations

import re
from pathlib import Path

from conftest import Command
from doc_blocks import DOCS, read_files

PAGE = DOCS / "write-a-task.md"


def test_a_task_takes_15_lines() -> None:
    for name in ("books.py", "chats.py"):
        assert len(read_files(PAGE)[name].splitlines()) <= 15


def test_the_error_messages_of_the_page_are_what_a_user_gets(
    personabench: Command, tmp_path: Path
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    messages = re.findall(r"^error: (.*)$", page, re.MULTILINE)
    files = read_files(PAGE)
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
