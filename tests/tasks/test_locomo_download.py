"""Downloading LoCoMo from a server on the loopback, sound or broken."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import folder_server, serving

from personabench.api import downloads
from personabench.errors import DataError, UsageError
from personabench.tasks import locomo
from personabench.tasks.locomo.download import download
from personabench.tasks.locomo.files import FILE

EXAMPLE = Path(locomo.__file__).parent / "sample" / FILE
SIZE = (12, 72)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    root = tmp_path / "server"
    root.mkdir()
    shutil.copy(EXAMPLE, root)
    with serving(folder_server(root)) as http_server:
        yield http_server.url


def test_the_file_is_fetched_checked_and_opens(server: str, tmp_path: Path) -> None:
    target = tmp_path / "data"
    (path,) = download("all", target, base_url=server, expected=SIZE)
    assert path.read_bytes() == EXAMPLE.read_bytes()
    assert downloads.read_manifest(target / "locomo")[FILE].count == 72
    assert len(locomo.LoCoMo().open("all", target).index()) == 72


def test_a_part_of_the_data_is_refused_and_not_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="12 conversations with 72 questions, but LoCoMo has 10"):
        download("all", tmp_path / "data", base_url=server)
    assert not list((tmp_path / "data").rglob("*.json"))


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it has: all"):
        download("dev", tmp_path)
