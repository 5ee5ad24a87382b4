"""Downloading PersonaMem from a server on the loopback with the hub's layout, sound or broken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import folder_server, serving
from personamem_files import row, talk, write

from personabench.api import downloads
from personabench.errors import DataError, UsageError
from personabench.tasks.personamem import PersonaMem
from personabench.tasks.personamem.download import DATASET, REVISION, download

TALK = talk("SUUASU")
FOLDER = Path("datasets") / DATASET / "resolve" / REVISION


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    root = tmp_path / "hub"
    write(root / FOLDER, [row("q1", TALK, 6), row("q2", TALK, 4)], [TALK])
    with serving(folder_server(root)) as server:
        server.root = root / FOLDER  # type: ignore[attr-defined]
        yield server


def get(
    hub: Any, target: Path, expected: tuple[int, int] = (2, 1), **options: Any
) -> tuple[list[Path], list[str]]:
    notices: list[str] = []
    options = {
        "base_url": hub.url,
        "expected": expected,
        "notice": notices.append,
        "wait": lambda _: None,
        **options,
    }
    return download("32k", target, **options), notices


def refused(hub: Any, target: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        get(hub, target, **options)
    assert not [*target.rglob("*.csv"), *target.rglob("*.jsonl")], (
        "nothing that could pass for data"
    )
    return str(caught.value)


def test_both_files_come_from_the_pinned_revision_and_open(hub: Any, tmp_path: Path) -> None:
    paths, notices = get(hub, tmp_path / "data")
    assert [path.name for path in paths] == ["questions_32k.csv", "shared_contexts_32k.jsonl"]
    assert all(REVISION in path and len(REVISION) == 40 for path in hub.requested if "." in path)
    assert len(notices) == 2 and "not the version this project knows" in notices[0]
    assert len(PersonaMem().open("32k", tmp_path / "data").index()) == 2
    manifest = downloads.read_manifest(tmp_path / "data" / "personamem")
    assert [manifest[path.name].count for path in paths] == [2, 1]
    assert manifest["questions_32k.csv"].url.startswith(hub.url)


def test_a_second_download_fetches_nothing(hub: Any, tmp_path: Path) -> None:
    paths, _ = get(hub, tmp_path / "data")
    before = len(hub.requested)
    assert get(hub, tmp_path / "data")[0] == paths and len(hub.requested) == before


def test_a_wrong_number_of_records_keeps_nothing(hub: Any, tmp_path: Path) -> None:
    message = refused(hub, tmp_path / "data", expected=(589, 37))
    assert "questions_32k.csv is not the data: 2 questions, but 32k has 589" in message
    assert "--data DIR" in message
    message = refused(hub, tmp_path / "data", expected=(2, 37))
    assert "contexts_32k.jsonl is not the data: 1 conversations, but 32k has 37" in message


def test_an_altered_conversation_keeps_nothing(hub: Any, tmp_path: Path) -> None:
    path = hub.root / "shared_contexts_32k.jsonl"
    path.write_text(path.read_text().replace("A3", "A4"))
    assert "breaches of the files' own rules" in refused(hub, tmp_path / "data")


def test_a_web_page_in_place_of_the_file_is_seen(hub: Any, tmp_path: Path) -> None:
    (hub.root / "questions_32k.csv").write_text("<html>Sign in</html>")
    assert "<html>" in refused(hub, tmp_path / "data")


def test_another_revision_or_split_that_is_not_there(hub: Any, tmp_path: Path) -> None:
    assert "404" in refused(hub, tmp_path / "data", revision="main")
    with pytest.raises(UsageError, match="choose one of"):
        download("64k", tmp_path)


def test_files_of_ones_own_are_checked_and_never_replaced(hub: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "data" / "personamem", [row("q9", TALK, 6)], [TALK])
    paths, _ = get(hub, tmp_path / "data", expected=(1, 1))
    assert not hub.requested and "q9" in paths[0].read_text()
    (folder / "manifest.json").unlink()
    (folder / "questions_32k.csv").write_text("persona_id\r\n0\r\n")
    with pytest.raises(DataError, match=r"questions_32k\.csv is not the data: .*Move it away"):
        get(hub, tmp_path / "data")
    assert (folder / "questions_32k.csv").read_bytes().startswith(b"persona_id"), "left as it was"
