"""Source hashes: edits that change them, and edits that leave finished runs valid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from personabench.api import registry, source
from personabench.api.source import source_hash

MINE = '''
"""A method."""

import math
from typing import TYPE_CHECKING

from personabench import Method
from helper import wording

if TYPE_CHECKING:
    from pathlib import Path


class Mine(Method):
    """It asks."""

    name = "mine"

    async def predict(self, sample, state, ctx):
        """Ask once."""
        # The wording is shared.
        return await ctx.answer(sample, notes=wording(f"{math.pi:.2f}" + "a" "b"))
'''
HELPER = 'def wording(text):\n    return text + open("prompt.txt").read()\n'

Edit = Callable[[str], str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "prompt.txt").write_text("Be brief.")
    return tmp_path


def hash_method(path: Path) -> str:
    return source_hash(registry.load_class("method", str(path)))


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("# The wording is shared.", "# Shared."),
        lambda text: text.replace('"""It asks."""', '"""It asks, once."""').replace(
            '"""Ask once."""', "pass"
        ),
        lambda text: text.replace("import math\n", "import math\nimport json\n"),
        lambda text: text.replace(
            "    from pathlib import Path\n", "    from collections import Counter\n"
        ),
        lambda text: text.replace('"a" "b"', "(\n            'ab'\n        )").replace(
            "\n\n\n", "\n\n"
        ),
        lambda text: text.replace("\n", "\r\n"),
    ],
    ids=["comment", "docstrings", "import", "import for types", "format", "line ends"],
)
def test_text_for_readers_does_not_change_the_hash(folder: Path, edit: Edit) -> None:
    before = hash_method(folder / "mine.py")
    (folder / "mine.py").write_bytes(edit(MINE).encode())
    assert (folder / "mine.py").read_bytes() != MINE.encode()
    assert hash_method(folder / "mine.py") == before


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        ("mine.py", lambda text: text.replace('"b"', '"c"')),
        ("mine.py", lambda text: text.replace("+ ", "- ")),
        (
            "mine.py",
            lambda text: text.replace(
                '    name = "mine"\n', '    name = "mine"\n    version = 2\n'
            ),
        ),
        ("helper.py", lambda text: text.replace("text +", "text * 2 +")),
        ("prompt.txt", lambda text: text.replace("brief", "wordy")),
    ],
    ids=["string", "operator", "attribute", "module from its folder", "template that it names"],
)
def test_edits_that_may_change_an_answer_change_the_hash(
    folder: Path, file: str, edit: Edit
) -> None:
    before = hash_method(folder / "mine.py")
    (folder / file).write_text(edit((folder / file).read_text()))
    assert hash_method(folder / "mine.py") != before


def test_a_file_may_move_with_its_helper_under_another_name(folder: Path) -> None:
    before = hash_method(folder / "mine.py")
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere/renamed.py").write_text(MINE.replace("helper", "shared"))
    (folder / "elsewhere/shared.py").write_text(HELPER)
    (folder / "elsewhere/prompt.txt").write_text("Be brief.")
    (folder / "shared.py").write_text(HELPER)
    assert hash_method(folder / "elsewhere/renamed.py") == before


@pytest.mark.parametrize(
    "use",
    [
        'importlib.import_module("late").TEXT',
        '__import__("late").TEXT',
        '(HERE / "prompts" / "late.txt").read_text()',
        'open(os.path.join(HERE, "prompts/deep", "late.txt")).read()',
    ],
)
def test_code_and_prompts_that_are_loaded_late_count(folder: Path, use: str) -> None:
    mine, prompts = folder / "mine.py", folder / "prompts" / "deep"
    mine.write_text(MINE.replace('"a" "b"', use))
    prompts.mkdir(parents=True)
    files = (folder / "late.py", folder / "prompts/late.txt", prompts / "late.txt")
    for file in files:
        file.write_text('TEXT = "first"')
    before = hash_method(mine)
    for file in files:
        file.write_text('TEXT = "second"')
    assert hash_method(mine) != before


def test_other_files_of_the_folder_do_not_count(folder: Path) -> None:
    before = hash_method(folder / "mine.py")
    (folder / "other.py").write_text("x = 1\n")
    (folder / "notes.txt").write_text("No module names this file.")
    (folder / "math.py").write_text("x = 1\n")
    (folder / "personabench").mkdir()
    (folder / "personabench/__init__.py").write_text("x = 1\n")
    assert hash_method(folder / "mine.py") == before


def test_the_modules_of_a_package_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder / "kit"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep/__init__.py").write_text("")
    (package / "method.py").write_text(
        MINE.replace("helper", "kit.deep.words").replace('"mine"', '"kitted"')
    )
    (package / "deep/words.py").write_text("from . import more\n" + HELPER)
    (package / "deep/more.py").write_text("LENGTH = 3\n")
    (package / "other.py").write_text("x = 1\n")
    from kit.method import Mine  # type: ignore[import-not-found]

    before = source_hash(Mine)
    (package / "other.py").write_text("x = 2\n")
    assert source_hash(Mine) == before, "a module of the package that is never imported"
    (package / "deep/more.py").write_text("LENGTH = 4\n")
    assert source_hash(Mine) != before


def test_bases_and_imports_of_a_method_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from personabench.methods.rag import Rag\n\n\nclass Mine(Rag):\n    name = 'like_rag'\n",
        encoding="utf-8",
    )
    files: set[str] = set()
    read = source._read  # noqa: SLF001  (a hash does not tell its files)
    monkeypatch.setattr(source, "_read", lambda path: files.add(path.name) or read(path))
    assert hash_method(tmp_path / "mine.py") != source_hash(registry.load_class("method", "rag"))
    assert files == {"mine.py", "rag.py"}
    files.clear()
    source_hash(registry.load_class("method", "trsr"))
    assert files == {"trsr.py", "summary.py"}, "no module of the engine"
