"""A release: one version, a source distribution of the whole repository, and a wheel that works in
a clean environment."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from personabench import __version__

ROOT = Path(__file__).resolve().parent.parent
# Settings of services around the repository, which a reader of the source has no use for.
_NOT_IN_SDIST = (".ci/", ".github/", ".gitignore", ".pre-commit-config.yaml")


def test_the_version_is_the_same_everywhere() -> None:
    citation = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert citation and newest
    assert citation[1] == newest[1] == __version__


def list_tracked() -> list[str]:
    """The files of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a checkout, so nothing says which files belong to the repository")
    names = [name for name in listed.stdout.split("\0") if name]
    return [name for name in names if (ROOT / name).is_file()]


@dataclass
class Release:
    sdist: Path
    wheel: Path
    tracked: list[str]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The source distribution of the tracked files, and the wheel built from it."""
    pytest.importorskip("build")
    pytest.importorskip("setuptools", minversion="77")
    tree = tmp_path_factory.mktemp("tree")
    tracked = list_tracked()
    for name in tracked:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    target = tmp_path_factory.mktemp("dist")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(tree)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (sdist,) = target.glob("*.tar.gz")
    (wheel,) = target.glob("*.whl")
    return Release(sdist, wheel, tracked)


@pytest.mark.variants
def test_the_source_distribution_holds_the_repository(release: Release) -> None:
    assert release.sdist.name == f"personabench_harness-{__version__}.tar.gz"
    with tarfile.open(release.sdist) as archive:
        names = [member.name.partition("/")[2] for member in archive if member.isfile()]
    made = {name for name in names if ".egg-info/" in name} | {"PKG-INFO", "setup.cfg"}
    expected = {name for name in release.tracked if not name.startswith(_NOT_IN_SDIST)}
    assert sorted(expected - set(names)) == [], "add them to MANIFEST.in"
    assert sorted(set(names) - expected - made) == []


@pytest.mark.variants
def test_the_wheel_says_what_it_is(release: Release) -> None:
    with zipfile.ZipFile(release.wheel) as archive:
        (path,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(path))
    assert metadata["Version"] == __version__
    extras = {"vllm", "ray", "plot", "wandb", "mlflow", "sentence-transformers"}
    assert extras <= set(metadata.get_all("Provides-Extra", []))
    assert str(metadata.get_payload()).startswith("#"), "the README is the page of the package"


@pytest.mark.variants
def test_the_wheel_works_in_a_clean_environment(release: Release, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", str(release.wheel))
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    # Dependencies are those of this environment, whose own personabench is not among them: the
    # finders of editable installs are not on the path, and the wheel comes first.
    (site,) = environment.glob("lib/python*/site-packages")
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (site / "zz_dependencies.pth").write_text("\n".join(shared) + "\n")

    def run(*words: str) -> str:
        clean = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        ended = subprocess.run(
            [str(environment / "bin" / "personabench"), *words],
            cwd=tmp_path, env=clean, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, (words, ended.stderr)
        return ended.stdout

    code = "import personabench; print(personabench.__file__)"
    origin = subprocess.run(
        [str(python), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(origin.stdout.strip()).is_relative_to(site)
    assert run("--version") == f"personabench {__version__}\n"
    assert "lamp4" in run("list", "tasks")
    assert "rag" in run("list", "methods")
    run("init")
    assert "rag" in run("run", "experiment.toml", "-b", "scripted", "-n", "2")
    # Prompts, example data of a folder of its own, and the page's scripts are files of the wheel.
    run("run", "-m", "cipher", "-t", "prelude_summ", "-b", "scripted", "-n", "2")
    run("report", "-o", "page.html")
    run("publish", "last", "--to", "published")
    assert "ok" in run("check", "published", "published")
