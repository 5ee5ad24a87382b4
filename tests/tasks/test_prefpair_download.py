"""Downloading the data of preferences from a hub on the loopback, sound or broken."""

from __future__ import annotations

import http.server
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import LoopbackServer, serving

from personabench.errors import DataError, UsageError
from personabench.tasks import prefpair
from personabench.tasks.prefpair.download import SOURCES, Source, download

EXAMPLE = Path(prefpair.__file__).parent / "sample"
COMMIT = "c0ffee" * 6 + "c0ff"
TASKS = {
    "community_alignment": prefpair.CommunityAlignment,
    "personafeedback": prefpair.PersonaFeedback,
    "personalized_rewardbench": prefpair.PersonalizedRewardBench,
    "personalllm": prefpair.PersonalLLM,
    "prism": prefpair.Prism,
    "psoups": prefpair.Psoups,
}


class Server(LoopbackServer):
    """The hub's listing and files, and GitHub's raw files, from the example data."""

    broken: dict[str, bytes]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        parts = self.path.strip("/").split("/")
        if parts[:2] == ["api", "datasets"]:
            self._send(self._list("/".join(parts[2:4])))
            return
        name = find_task("/".join(parts[1:3] if parts[0] == "datasets" else parts[:2]))
        path = "/".join(parts[5:] if parts[0] == "datasets" else parts[-1:])
        content = self.server.broken.get(path)
        self._send((EXAMPLE / name / path).read_bytes() if content is None else content)

    def _list(self, repository: str) -> bytes:
        folder = EXAMPLE / find_task(repository)
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*.json*")]
        siblings = [{"rfilename": name} for name in [*files, "README.md"]]
        return json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def find_task(repository: str) -> str:
    return next(name for name, source in SOURCES.items() if source.repository == repository)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(Server(Handler)) as http_server:
        http_server.broken = {}
        yield http_server


def unsized(name: str, **changes: Any) -> Source:
    """The source of a task without the published numbers of rows."""
    source = SOURCES[name]
    rules = tuple(rule._replace(rows=None) for rule in source.rules)
    files = tuple(
        f"benchmark/P-Soups/{path.name}" for path in sorted((EXAMPLE / name).glob("*.json"))
    )
    changes = {"total": None, **({"files": files} if source.files else {}), **changes}
    return source._replace(rules=rules, **changes)


@pytest.mark.parametrize("name", TASKS)
def test_files_are_fetched_checked_pinned_and_open(
    server: Server, tmp_path: Path, name: str
) -> None:
    notices: list[str] = []
    options: dict[str, Any] = {"base_url": server.url, "notice": notices.append}
    paths = download(name, "all", tmp_path, source=unsized(name), **options)
    # PersonaFeedback's memories and PersonalLLM's users are no published files.
    params = {"setting": "persona"} if name == "personafeedback" else {}
    task: Any = TASKS[name](TASKS[name].Params(**params))
    dataset = task.open("all", tmp_path)
    if name != "personalllm":
        assert len(dataset.index()) == len(task.open("all", None).index())
    assert any(SOURCES[name].terms in notice for notice in notices)
    entries = json.loads((tmp_path / name / "manifest.json").read_text())["files"]
    assert len(entries) == len(paths)
    if not SOURCES[name].files:
        assert all(f"/resolve/{COMMIT}/" in entry["url"] for entry in entries.values())

    server.requested.clear()
    download(name, "all", tmp_path, source=unsized(name), **options)
    fetched = [path for path in server.requested if not path.startswith("/api/")]
    assert not fetched, "a complete copy is not fetched again"
    assert all(COMMIT in path for path in server.requested), "it is checked at its own commit"


@pytest.mark.parametrize(
    ("name", "path", "content", "message"),
    [
        ("prism", "", b"", "49 rows, but 8,011 are published"),
        ("prism", "survey.jsonl", b'{"user": "u"}\n', "no field 'user_id'"),
        ("prism", "survey.jsonl", b"<html>no such file</html>", "survey.jsonl"),
        ("psoups", "student_phd.json", b"[]", "it has no rows"),
        ("personalllm", "test.jsonl", b"{", "line 1"),
    ],
)
def test_other_content_is_refused_and_nothing_kept(
    server: Server, tmp_path: Path, name: str, path: str, content: bytes, message: str
) -> None:
    server.broken[path] = content
    source = SOURCES[name] if "published" in message else unsized(name)
    with pytest.raises(DataError, match=message):
        download(name, "all", tmp_path, base_url=server.url, source=source)
    # Only a whole set gets its final names.
    assert not [*tmp_path.rglob("*.json"), *tmp_path.rglob("*.jsonl")]


def test_the_total_of_several_files_is_checked(server: Server, tmp_path: Path) -> None:
    source = unsized("personafeedback", total=8298)
    with pytest.raises(DataError, match="72 rows in all, but personafeedback has 8,298"):
        download("personafeedback", "all", tmp_path, base_url=server.url, source=source)


def test_a_hub_without_the_files_or_without_answer_is_named(server: Server, tmp_path: Path) -> None:
    source = unsized("prism")
    rules = (source.rules[0]._replace(pattern=r"surveys\.jsonl"),)
    with pytest.raises(DataError, match=r"has no file like .*; it has: .*README.md"):
        download("prism", "all", tmp_path, base_url=server.url, source=source._replace(rules=rules))
    with pytest.raises(DataError, match="lists no files of the dataset"):
        download("prism", "all", tmp_path, base_url="http://127.0.0.1:1")


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it has: all"):
        download("prism", "dev", tmp_path)
