"""A package of others with a method and a task: built, installed in its own environment, run."""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
MODULES = {
    "portrait.py": "write-a-method.md",
    "books.py": "write-a-task.md",
    "books.jsonl": "write-a-task.md",
}

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def read_file(page: str, name: str) -> str:
    text = (DOCS / page).read_text(encoding="utf-8")
    block = re.search(rf'^```\w+ title="{re.escape(name)}"\n(.*?)^```$', text, re.M | re.S)
    assert block, (page, name)
    return block[1]


def write_package(root: Path) -> Path:
    """The package of docs/write-a-method.md."""
    package = root / "personabench_example"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name, page in MODULES.items():
        (package / name).write_text(read_file(page, name), encoding="utf-8")
    project = read_file("write-a-method.md", "pyproject.toml")
    (root / "pyproject.toml").write_text(project, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The interpreter of an environment that has the package, and personabench from here."""
    pytest.importorskip(
        "setuptools", minversion="77", reason="building needs setuptools 77 or newer"
    )
    pytest.importorskip("pip", reason="installing needs pip")
    source = write_package(tmp_path_factory.mktemp("project"))
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, symlinks=True)
    program = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    # Dependencies come from the environment of the tests, so that nothing is downloaded.
    inherited = sysconfig.get_paths()["purelib"]
    (site / "inherited.pth").write_text(f"import site; site.addsitedir({inherited!r})\n")

    def run(*words: object, cwd: Path = source) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False
        )

    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    installed = run("-m", "pip", "install", *options, source)
    assert installed.returncode == 0, installed.stderr
    assert (site / "personabench_example" / "books.jsonl").exists()
    return run


COMMAND = "from personabench.cli.app import main; main()"


def test_its_method_and_its_task_run_by_name(python: Run, tmp_path: Path) -> None:
    listed = python("-c", COMMAND, "list", "tasks", "--json", cwd=tmp_path)
    assert {"name": "books", "origin": "personabench-example"}.items() <= next(
        row for row in json.loads(listed.stdout) if row["name"] == "books"
    ).items()

    checked = python("-c", COMMAND, "check", "task", "books", cwd=tmp_path)
    assert checked.returncode == 0, checked

    words = ["run", "--method", "none,portrait", "--task", "books", "--backend", "scripted"]
    ended = python("-c", COMMAND, *words, "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    summaries = json.loads(ended.stdout)
    assert [summary["method"] for summary in summaries] == ["none", "portrait"]
    assert all(summary["n"] == 3 for summary in summaries)


@pytest.mark.variants
def test_its_runs_are_read_again_without_naming_a_file(python: Run, tmp_path: Path) -> None:
    words = ["run", "--method", "portrait", "--task", "books", "--backend", "scripted"]
    assert python("-c", COMMAND, *words, cwd=tmp_path).returncode == 0
    (line, *_) = next(tmp_path.rglob("predictions.jsonl")).read_text().splitlines()
    sample_id = json.loads(line)["sample_id"]
    shown = python("-c", COMMAND, "show", "last", sample_id, "--json", cwd=tmp_path)
    assert json.loads(shown.stdout)["references"], shown.stderr
    assert python("-c", COMMAND, "leaderboard", cwd=tmp_path).returncode == 0
