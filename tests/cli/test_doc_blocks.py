"""Every shell and Python block of README and docs works, in the order of its page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Command as Personabench
from doc_blocks import (
    DOCS,
    OTHER_PROGRAMS,
    PAGES,
    ROOT,
    Block,
    Command,
    page_name,
    read_blocks,
    read_commands,
    read_files,
)
from doc_stand_ins import DocServer, doc_server, fill_in, find_runs, stand_in

FILES_OF = {
    "docs/own-data.md": ("judges.md",),
    "docs/tour.md": ("own-data.md", "judges.md", "write-a-task.md", "write-a-method.md"),
}
"""Pages whose files the commands of another page name."""

MAIN = "from personabench.cli.app import main; main()"
PREFERENCES = ROOT / "tasks" / "prelude" / "sample" / "email.json"
WHOLE = {"docs/tutorial.md"}
"""Pages whose runs are not shortened."""

READING_VERBS = {"show", "leaderboard", "report", "table", "plot", "compare", "export", "list"}

RUNS = [
    page
    for page in PAGES
    if any(b.language in ("bash", "console", "python") for b in read_blocks(page))
]


@pytest.fixture(scope="module")
def server() -> Iterator[DocServer]:
    with doc_server() as running:
        yield running


def write_files(page: Path, folder: Path) -> None:
    """The files of a page, and those that a reader of it has."""
    from personabench.tasks.lamp.records import SAMPLES

    files: dict[str, str] = {}
    for other in FILES_OF.get(page_name(page), ()):
        files |= {
            name: text for name, text in read_files(DOCS / other).items() if name not in files
        }
    files |= read_files(page)
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    task = "lamp3" if page == DOCS / "tour.md" else "lamp4"
    outputs = SAMPLES / task / "dev_outputs.json"
    for name in ("dev_outputs.json", "predictions.json", "baseline.json", "mine.json"):
        shutil.copy(outputs, folder / name)
    for name in ("submission.zip", "golds.zip"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.write(outputs, f"{task}.json")
    answers = json.loads(outputs.read_text(encoding="utf-8"))["golds"]
    (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    (folder / "card.yaml").write_text("method: oppu\nmodel: MODEL\ntrained_on: history\n")
    shutil.copy(PREFERENCES, folder / "strings.yaml")
    (folder / "prompts.toml").write_text('[prelude.system]\ntext = "You write emails."\n')
    (folder / "errors.json").write_text('["locomo_0_qa0", "locomo_1_qa0"]')
    (folder / "people.jsonl").write_text('{"id": "310", "label": "a"}\n')
    problems = [{"question": f"What is {n} plus {n}?", "answer": str(2 * n)} for n in range(20)]
    (folder / "problems.jsonl").write_text("\n".join(map(json.dumps, problems)))


def run_elsewhere(words: list[str], folder: Path) -> None:
    """Run a program other than personabench in a process of its own."""
    ended = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, (words, ended.stdout[-2000:], ended.stderr[-2000:])


def check_download(words: list[str], folder: Path) -> None:
    """A download without a network gets as far as its first file, in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-c", MAIN, *words, "--offline"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2, (words, ended)
    assert "would have been fetched" in ended.stderr, (words, ended.stderr)


def run_command(
    command: Command, folder: Path, personabench: Personabench, server: DocServer
) -> None:
    program, *words = command.words
    if command.words == ("make", "demo"):
        recipe = (ROOT / "Makefile").read_text().partition("\ndemo:")[2].partition("\n\n")[0]
        for line in re.findall(
            r"^\t@(?:\w+=\S+ )*\$\(BIN\)/personabench (.*)$", recipe, re.MULTILINE
        ):
            ended = personabench(*stand_in(line.split(), server, limit=False))
            assert ended.code == 0, ended.err
    if program == "make" or program in OTHER_PROGRAMS:
        # Checked without being run: test_doc_commands.py.
        return
    if {"RUN", *READING_VERBS}.intersection(words) and not find_runs(folder):
        task = words[words.index("--task") + 1] if "--task" in words else "lamp4"
        personabench("run", "--method", "none,rag", "--task", task, "-b", "scripted", "-n", "2")
    words = fill_in(words, folder)
    if program == "pytest":
        run_elsewhere(["-m", "pytest", "-q", "-p", "no:cacheprovider", *words], folder)
    elif program == "python":
        run_elsewhere(words, folder)
    elif program == "pdflatex":
        if not shutil.which("pdflatex"):
            return
        ended = subprocess.run(["pdflatex", "-interaction=nonstopmode", *words], cwd=folder)
        assert ended.returncode == 0
    else:
        assert program == "personabench", command
        if words[0] == "download":
            check_download(words, folder)
            return
        words = stand_in(words, server, limit=command.where.partition(":")[0] not in WHOLE)
        ended = personabench(*words)
        assert ended.code == 0, (command.where, words, ended.err[-3000:])
        if command.output:
            (folder / command.output).write_text(ended.out)


def run_python(block: Block, folder: Path) -> None:
    """Run a block without a title, after all commands of its page."""
    preamble = "from personabench import *\n" if "import" not in block.text else ""
    runs = find_runs(folder)
    text = block.text.replace('"RUN/', f'"{runs[0]}/') if runs else block.text
    script = folder / f"block_{block.line}.py"
    script.write_text(preamble + text, encoding="utf-8")
    run_elsewhere([script.name], folder)


def check_failure(block: Block, personabench: Personabench) -> None:
    """The block's command has to fail with the message that stands under it."""
    (command,) = read_commands(block)
    message = block.text.partition("\n")[2].strip()
    ended = personabench(*command.words[1:])
    assert ended.code in (1, 2), (command.where, ended)
    pattern = ".*".join(map(re.escape, " ".join(message.split()).split("…")))
    output = " ".join((ended.out + ended.err).split())
    assert re.search(pattern, output), (command.where, message, output)


@pytest.mark.variants
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", RUNS, ids=page_name)
def test_blocks_of_a_page_work(
    page: Path,
    personabench: Personabench,
    server: DocServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_files(page, tmp_path)
    blocks = [block for block in read_blocks(page) if not block.not_run]
    for block in blocks:
        if block.fails:
            check_failure(block, personabench)
            continue
        for command in read_commands(block):
            with monkeypatch.context() as patch:
                for name, value in command.variables:
                    patch.setenv(name, value)
                run_command(command, tmp_path, personabench, server)
    for block in blocks:
        if block.language == "python" and not block.title:
            run_python(block, tmp_path)
