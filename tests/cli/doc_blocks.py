"""Code blocks of README and docs, and the commands in them.

A block of `console` holds commands after `$ `, a block of `bash` nothing but commands; all other
blocks are output, data or Python. A block with `title="NAME"` is a file of its page. The line
before a block may say `<!-- not run: REASON -->`, or `<!-- fails -->` if its command has to fail
with the message under it, in which `…` stands for anything.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = DOCS / "methods" / "prompts"
"""Pages that a script writes, whose blocks are the requests of methods."""

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in sorted(DOCS.rglob("*.md")) if page.parent != GENERATED),
]

_FENCE = re.compile(
    r"^(?P<marker><!-- (?:not run: (?P<reason>.+?)|(?P<fails>fails)) -->\n)?"
    r'^(?P<indent> *)```(?P<language>\w*)(?: title="(?P<title>[\w./-]+)")?\n'
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
# Programs of a reader that are checked by name and not run.
OTHER_PROGRAMS = {".", "cd", "export", "git", "pip", "pre-commit", "sbatch"}
_FILE_COMMENT = re.compile(r"# ([\w.-]+\.py)\b")
_ASSIGNMENT = re.compile(r"([A-Z_]+)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of its fence, why it is not run, and whether it fails."""

    page: str
    line: int
    language: str
    title: str
    text: str
    not_run: str
    fails: bool


@dataclass(frozen=True)
class Command:
    """One command: the words, the variables set before it, and the file of its output."""

    where: str
    words: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()
    output: str = ""


def page_name(page: Path) -> str:
    """The path of a page in the project."""
    return page.relative_to(ROOT).as_posix()


def read_blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    blocks = []
    for match in _FENCE.finditer(text):
        language, title, body = match["language"], match["title"] or "", match["text"]
        named = _FILE_COMMENT.match(body)
        if language == "python" and not title and named:
            title = named[1]
        line = text.count("\n", 0, match.start()) + 1
        reason, fails = match["reason"] or "", bool(match["fails"])
        blocks.append(Block(page_name(page), line, language, title, body, reason, fails))
    return blocks


def read_files(page: Path) -> dict[str, str]:
    """The files of a page, by name."""
    return {block.title: block.text for block in read_blocks(page) if block.title}


def read_commands(block: Block) -> Iterator[Command]:
    """The commands of a block, without comments; lines that end in a backslash are joined."""
    if block.language == "console":
        lines = [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
    elif block.language == "bash":
        lines = block.text.replace("\\\n", " ").splitlines()
    else:
        return
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word != ";":
                words.append(word)
            elif words:
                yield _read_command(block, words)
                words = []


def _read_command(block: Block, words: list[str]) -> Command:
    variables = []
    while words and (assignment := _ASSIGNMENT.fullmatch(words[0])):
        variables.append((assignment[1], assignment[2]))
        words = words[1:]
    output = ""
    if ">" in words:
        *words, _, output = words
    program = words[0].removeprefix(".venv/bin/") if words else ""
    where = f"{block.page}:{block.line}"
    return Command(where, (program, *words[1:]), tuple(variables), output)
