"""The wheel holds every module and every sample file, and nothing is imported that is not in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLACES = {
    "personabench": "personabench",
    "methods": "personabench/methods",
    "tasks": "personabench/tasks",
}
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tree, without build isolation, so without a network."""
    pytest.importorskip(
        "setuptools", minversion="77", reason="building needs setuptools 77 or newer"
    )
    copy = tmp_path_factory.mktemp("tree")
    for name in PLACES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    target = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(target)],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (found,) = target.glob("*.whl")
    return found


def test_the_wheel_holds_what_the_tree_holds(wheel: Path) -> None:
    wanted = {
        f"{place}/{path.relative_to(ROOT / name).as_posix()}"
        for name, place in PLACES.items()
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert sorted(wanted - held) == [], (
        "missing from the wheel: list the folder under packages in pyproject.toml"
    )
    assert sorted(held - wanted) == []
    assert sum(name.endswith("dev_questions.json") for name in held) >= 8


def test_the_wheel_works_without_the_tree(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import personabench\n"
        "assert personabench.__file__.startswith(sys.argv[1]), personabench.__file__\n"
        "from personabench.cli.app import main; sys.argv[1:] = sys.argv[2:]; main()"
    )
    command = ["run", "--method", "dpl", "--task", "lamp3", "--limit", "2", "--backend", "scripted"]
    command += ["--results", str(tmp_path / "results")]
    process = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path / "site"), *command],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "example data, not LaMP" in process.stderr + process.stdout
