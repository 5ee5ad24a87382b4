"""Downloads of whole sets: checks before the final name, existing files, and the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from personabench.api import downloads
from personabench.errors import DataError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROOT = f"https://hub/resolve/{COMMIT}"
REMEDY = "Try a mirror."


class Server:
    """Contents by address, in place of HTTP; counts the fetches."""

    def __init__(self, contents: Mapping[str, str]) -> None:
        self.contents = {f"{ROOT}/{name}": text for name, text in contents.items()}
        self.fetched: list[str] = []

    def fetch(self, url: str, part: Path, **_: object) -> None:
        self.fetched.append(url)
        if url not in self.contents:
            raise DataError(f"{url} answered with status 404.")
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(self.contents[url])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server({"questions": "[1, 2]", "sub/outputs": "[3]"})
    monkeypatch.setattr(downloads, "fetch", server.fetch)
    return server


def check_lists(paths: Sequence[Path]) -> downloads.CheckedFile:
    """Accept texts in brackets; a text with "unfilled" ends the set."""
    text = paths[-1].read_text()
    if not text.startswith("["):
        raise DataError("no list")
    return downloads.CheckedFile(len(text.split(",")), ("a note",), "unfilled" in text)


def download(folder: Path, adopt: bool = True) -> tuple[list[str], list[str]]:
    """Names of the files and notices of a download."""
    notices: list[str] = []
    paths = downloads.download_files(
        folder,
        {"questions": b"[", "sub/outputs": b"["},
        lambda manifest: ROOT,
        check_lists,
        remedy=REMEDY,
        adopt=adopt,
        notice=notices.append,
    )
    return [path.relative_to(folder).as_posix() for path in paths], notices


def list_files(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.name for path in paths} - {".download.lock"}


def test_a_set_is_recorded_and_fetched_once(server: Server, tmp_path: Path) -> None:
    expected = ["questions", "sub/outputs"]
    notes = ["questions: a note", "sub/outputs: a note"]
    assert download(tmp_path) == (expected, notes)
    assert download(tmp_path) == (expected, notes)
    assert server.fetched == [f"{ROOT}/{name}" for name in expected]

    entries = downloads.read_manifest(tmp_path)
    assert [entry.count for entry in entries.values()] == [2, 1]
    assert downloads.pinned_commit(entries.values()) == COMMIT
    assert downloads.pinned_commit([]) is None


def test_one_wrong_file_discards_all_that_were_fetched(server: Server, tmp_path: Path) -> None:
    server.contents[f"{ROOT}/sub/outputs"] = "<html>"
    with pytest.raises(DataError, match=r"outputs is not the data: no list. Nothing was kept. Try"):
        download(tmp_path)
    assert list_files(tmp_path) == set()


def test_a_failed_fetch_ends_with_the_remedy(server: Server, tmp_path: Path) -> None:
    server.contents.clear()
    with pytest.raises(DataError, match=r"status 404\. Try a mirror\.$"):
        download(tmp_path)


def test_existing_files_are_adopted_or_refused_and_never_overwritten(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "questions").write_text("[1]")
    with pytest.raises(DataError, match="not the file that the manifest records"):
        download(tmp_path, adopt=False)
    download(tmp_path)
    entry = downloads.read_manifest(tmp_path)["questions"]
    assert (entry.url, entry.count) == ("", 1)
    assert (tmp_path / "questions").read_text() == "[1]"

    (tmp_path / "questions").write_text("altered")
    with pytest.raises(DataError, match=r"questions is not the data: no list. Move it away"):
        download(tmp_path)
    assert (tmp_path / "questions").read_text() == "altered"


def test_an_unfilled_file_ends_its_set(server: Server, tmp_path: Path) -> None:
    server.contents[f"{ROOT}/questions"] = "[unfilled]"
    assert download(tmp_path)[0] == ["questions"]
    assert download(tmp_path)[0] == ["questions"]
    assert len(server.fetched) == 1
