"""Downloading PersonaMem-v2 from a server on loopback with the layout of the hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import folder_server, serving

from personabench.api.downloads import read_manifest
from personabench.errors import DataError
from personabench.tasks.personamem_v2 import PersonaMemV2
from personabench.tasks.personamem_v2.download import DATASET, download
from personabench.tasks.personamem_v2.files import SAMPLE

ROWS, USERS = 24, 12


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    root = tmp_path / "hub" / "datasets" / DATASET / "resolve" / "main"
    shutil.copytree(SAMPLE, root)
    (root / "data" / "chat_history_32k" / "another.json").write_text("[]")
    with serving(folder_server(tmp_path / "hub")) as server:
        server.root = root  # type: ignore[attr-defined]
        yield server


def get(
    hub: Any, target: Path, expected: tuple[int, int] = (ROWS, USERS)
) -> tuple[list[Path], Any]:
    notices: list[str] = []
    paths = download(
        "32k", target, base_url=hub.url, expected=expected, notice=notices.append, wait=print
    )
    return paths, notices


def test_the_listed_files_are_fetched_checked_and_recorded_and_no_others(
    hub: Any, tmp_path: Path
) -> None:
    target = tmp_path / "data"
    paths, notices = get(hub, target)
    assert len(paths) == 1 + USERS and not any(
        "another" in path or "128k" in path for path in hub.requested
    )
    manifest = read_manifest(target / "personamem_v2")
    assert all(len(entry.sha256) == 64 for entry in manifest.values()) and len(manifest) == len(
        paths
    )
    assert "not the version this project knows: SHA-256" in notices[-1]
    assert len(PersonaMemV2().open("32k", target).index()) == ROWS
    before = len(hub.requested)
    assert get(hub, target)[0] == paths and len(hub.requested) == before


def test_an_interrupted_download_continues_with_the_file_that_was_missing(
    hub: Any, tmp_path: Path
) -> None:
    target = tmp_path / "data"
    broken = hub.root / "data" / "chat_history_32k" / "chat_history_32k_persona303.json"
    sound = broken.read_text()
    broken.write_text('{"chat_history": []}')
    with pytest.raises(DataError, match="has no message of a user"):
        get(hub, target)
    broken.write_text(sound)
    hub.requested.clear()
    assert len(get(hub, target)[0]) == 1 + USERS
    # The histories before it are there.
    assert [path.rpartition("persona")[2] for path in hub.requested][:2] == ["303.json", "404.json"]
    assert len(hub.requested) == USERS - 2


def test_a_table_of_another_size_is_refused(hub: Any, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=f"{ROWS} questions of {USERS} personas, but PersonaMem-v2 has 5,000"
    ):
        get(hub, tmp_path / "data", (5000, 200))
    assert not list((tmp_path / "data").rglob("*.csv"))
