"""README and docs name what exists: commands, options, tasks, methods, parameters, files, links."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from doc_blocks import (
    DOCS,
    GENERATED,
    OTHER_PROGRAMS,
    PAGES,
    ROOT,
    Command,
    page_name,
    read_blocks,
    read_commands,
    read_files,
)

from personabench.api import registry
from personabench.cli.app import app
from personabench.errors import UsageError

LANGUAGES = {
    "",
    "bash",
    "console",
    "csv",
    "json",
    "python",
    "text",
    "toml",
    "yaml",
    "latex",
    "bibtex",
}
REASONS = {
    "needs a cluster",
    "needs a GPU",
    "needs a key",
    "needs a model file",
    "needs a server of the reader",
    "needs the network",
    "needs the official data",
    "installs packages",
    "takes minutes",
    "needs data of the reader",
}
"""What a marker may give as the reason why a block is not run by a test."""

OTHER_OPTIONS = {
    "--a": "an example",
    "--peer-python": "benchmarks",
    "--samples": "benchmarks",
    "--types": "benchmarks",
    "--api-key": "vllm",
    "--backend-store-uri": "mlflow",
    "--data-parallel-size": "vllm",
    "--default-chat-template-kwargs": "vllm",
    "--distributed-executor-backend": "vllm",
    "--enable-lora": "vllm",
    "--hf-token": "vllm",
    "--lora-modules": "vllm",
    "--max-lora-rank": "vllm",
    "--max-model-len": "vllm",
    "--reasoning-parser": "vllm",
    "--served-model-name": "vllm",
    "--tensor-parallel-size": "vllm",
    "--exclude-editable": "pip",
    "--no-deps": "pip",
    "--working-dir": "ray",
}
PREFIXED = ("judge", "simulator", "profile")
"""Roles whose options are named as `-temperature` after "each role has its own"."""


@cache
def root_command() -> Any:
    return typer.main.get_command(app)


def verbs(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", {})
    if not children:
        yield name, command
    for word, child in children.items():
        yield from verbs(child, f"{name} {word}".strip())


@cache
def all_options() -> set[str]:
    """Every option of every command."""
    names = {"--help"}
    for _, command in [("", root_command()), *verbs(root_command())]:
        for parameter in command.params:
            names.update([*parameter.opts, *parameter.secondary_opts])
    return names


def find_verb(words: Sequence[str]) -> tuple[Any, list[str]]:
    """The command that words name, and the words after its name."""
    command, rest = root_command(), list(words)
    while children := getattr(command, "commands", {}):
        assert rest, "the command lacks a verb"
        assert rest[0] in children, f"no such verb: {rest[0]!r}"
        command = children[rest.pop(0)]
    return command, rest


MISSING = re.compile(r"'(.+)' does not exist|run file (\S+): No such file")


def read_options(words: Sequence[str]) -> dict[str, Any]:
    """Options and arguments by name; fails on words that the command does not have."""
    command, rest = find_verb(words)
    if "--help" in rest:
        return {}
    while True:
        try:
            values: dict[str, Any] = command.make_context("personabench", list(rest)).params
            return values
        except (typer.BadParameter, UsageError) as error:
            missing = MISSING.search(getattr(error, "message", str(error)))
            if not missing:
                raise
            # A file of the reader's own.
            file = Path(missing[1] or missing[2])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text('method = "none"\ntask = "lamp4"\n' if missing[2] else "")


def is_name(word: str) -> bool:
    """Whether a word names a built-in task or method, and is no file or placeholder."""
    return bool(word) and "." not in word and "/" not in word and not word.isupper()


OWN_NAMES = {Path(name).stem for page in PAGES for name in read_files(page)}
"""Tasks and methods of the pages' own files."""


def check_names(values: dict[str, Any]) -> None:
    """Fail on unknown tasks, methods and parameters."""
    tasks, methods = set(registry.list_entries("task")), set(registry.list_entries("method"))
    wrappers = set(registry.list_entries("wrapper"))
    named: list[str] = []
    for option, known in (("task", tasks), ("method", methods), ("methods", methods)):
        given = values.get(option)
        for word in ",".join([given] if isinstance(given, str) else given or []).split(","):
            # A method may be inside of wrappers, `rag+remind`.
            word, *around = word.split("+")
            assert [name for name in around if is_name(name) and name not in wrappers] == []
            if is_name(word) and word not in OWN_NAMES:
                assert word in known, f"no {option} {word!r}"
                named.append(word)
    for setting in [*(values.get("set_") or values.get("settings") or [])]:
        owner, dot, _ = setting.partition("=")[0].rpartition(".")
        assert "=" in setting, setting
        if dot and owner != "task" and is_name(owner) and owner not in OWN_NAMES:
            assert {*owner.split("+")} <= methods | wrappers, (
                f"--set {setting}: no method {owner!r}"
            )


def check_command(command: Command) -> None:
    program, *words = command.words
    if program == "srun":
        program, *words = words
    match program:
        case "personabench":
            check_names(read_options(words))
        case "make":
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert {word for word in words if "=" not in word} <= set(targets)
        case "python" if words[0] == "-m":
            assert importlib.util.find_spec(words[1]), f"no module {words[1]}"
        case "python":
            source = (ROOT / words[0]).read_text()
            assert [word for word in words if word.startswith("--") and word not in source] == []
        case _:
            program = program.rpartition("=$(")[2]
            assert program in {*OTHER_PROGRAMS, "pytest", "pdflatex"}, (
                f"an unknown program: {program}"
            )


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_of_a_page_exist(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in read_blocks(page):
        for command in read_commands(block):
            if block.fails:
                continue
            try:
                check_command(command)
            except Exception as error:
                message = getattr(error, "message", str(error))
                pytest.fail(f"{command.where}: {' '.join(command.words)}\n{message}")


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_blocks_say_what_they_are(page: Path) -> None:
    """Commands are in blocks that are run, and a block that is not run gives a known reason."""
    text = page.read_text(encoding="utf-8")
    blocks = read_blocks(page)
    assert text.count("\n```") + text.startswith("```") == 2 * len(blocks), "a block is not read"
    markers = re.findall(r"^<!-- (?:not run:|fails )", text, re.MULTILINE)
    assert len(markers) == sum(bool(block.not_run) or block.fails for block in blocks)
    for block in blocks:
        where = f"{block.page}:{block.line}"
        assert block.language in LANGUAGES, where
        if block.not_run:
            assert block.not_run in REASONS, f"{where}: {block.not_run}"
        if block.language in ("", "text"):
            typed = re.search(r"^(\$ )?(\.venv/bin/)?personabench [a-z]", block.text, re.MULTILINE)
            assert not typed, f"{where}: a command in a block of text"
        if block.language == "python":
            compile(block.text, where, "exec")


def prose(page: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_options_in_prose_exist(page: Path) -> None:
    code = re.findall(r"`([^`\n]+)`", prose(page))
    options = {
        option
        for text in code
        if not re.match(r"pip |ray |sbatch |git |pytest |python |\.venv/bin/", text)
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)
    }
    assert sorted(options - all_options() - OTHER_OPTIONS.keys()) == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_verbs_in_prose_exist(page: Path) -> None:
    for words in re.findall(r"`personabench ([a-z][^`]*)`", prose(page)):
        find_verb([word for word in re.split(r"\s+", words) if re.match(r"[a-z]", word)])


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_files_in_prose_exist(page: Path) -> None:
    """Paths of the project that a page names in code."""
    names = re.findall(
        r"`((?:personabench|methods|tasks|tests|benchmarks|docs)/[\w./-]+)`", prose(page)
    )
    assert [name for name in names if "NAME" not in name and not (ROOT / name).exists()] == []


def slug(heading: str) -> str:
    """The anchor of a heading, as Git hosts make it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(line) for line in re.findall(r"^#+ +(.*)$", prose(page), re.MULTILINE)}


@pytest.mark.parametrize(
    "page", [*PAGES, *GENERATED.glob("*.md"), ROOT / "CHANGELOG.md"], ids=page_name
)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links of a page, for readers on a Git host; the site's build checks its own."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def test_every_page_is_in_the_menu_of_the_site() -> None:
    spec = importlib.util.spec_from_file_location("site_menu", DOCS / "site_menu.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    menu = script.complete_menu()
    pages = [page_name(page) for page in [*PAGES, *GENERATED.glob("*.md")]]
    listed = re.findall(r'= "([\w/-]+\.md)"', menu)
    assert sorted(listed) == sorted([*pages, "CHANGELOG.md", "results/reference/README.md"])


def test_every_command_has_an_example_in_the_page_of_commands() -> None:
    blocks = read_blocks(DOCS / "cli.md")
    lines = [" ".join(command.words[1:]) for block in blocks for command in read_commands(block)]
    verbs_of_examples = {
        name
        for name, _ in verbs(root_command())
        for line in lines
        if f"{line} ".startswith(f"{name} ")
    }
    assert sorted({name for name, _ in verbs(root_command())} - verbs_of_examples) == []
