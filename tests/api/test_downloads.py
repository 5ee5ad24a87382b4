"""Downloads from a loopback server that fails in every way seen in practice."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback import serving

from personabench.api import downloads
from personabench.errors import DataError, RunError, UsageError

BODY = b"[" + b", ".join(b"%06d" % n for n in range(1, 100_001)).replace(b" 0", b" 1") + b"]"
Fault = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves BODY with ranges; each fault in `server.faults` takes over one request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        self.close_connection = True
        if self.server.faults:
            self.server.faults.pop(0)(self)
        else:
            self.serve()

    def answer(
        self, status: int, body: bytes, headers: dict[str, str], length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(length or len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def serve(self, stop: int | None = None) -> None:
        """Send the file or the requested range, only up to byte `stop`."""
        tag, total = self.server.tag, len(BODY)
        requested = self.headers.get("Range", "")
        same = self.headers.get("If-Range") in (None, tag)
        if not requested or not same:
            self.answer(200, BODY[:stop], {"ETag": tag} if tag else {}, total)
            return
        start = int(requested.removeprefix("bytes=").removesuffix("-"))
        if start >= total:
            self.answer(416, b"", {"Content-Range": f"bytes */{total}"})
            return
        span = {"ETag": tag, "Content-Range": f"bytes {start}-{total - 1}/{total}"}
        self.answer(206, BODY[start:stop], span, total - start)


class Server(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[Fault] = []
        self.ranges: list[str | None] = []
        self.tag = '"v1"'

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data.json"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(Server()) as server:
        yield server


def truncate(stop: int) -> Fault:
    return lambda handler: handler.serve(stop)


def status(code: int, body: bytes = b"no", **headers: str) -> Fault:
    return lambda handler: handler.answer(
        code, body, {k.replace("_", "-"): v for k, v in headers.items()}
    )


def ignore_range(handler: Handler) -> None:
    handler.answer(200, BODY, {"ETag": handler.server.tag})


def hang_up(handler: Handler) -> None:
    """Close the connection without a response."""


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "data.json.part"


def fetch(server: Server, part: Path) -> list[float]:
    waits: list[float] = []
    downloads.fetch(server.url, part, opening=b"[{", wait=waits.append)
    return waits


def give_up(server: Server, part: Path, fault: Fault) -> str:
    """Let every attempt fail; return the message."""
    server.faults = [fault] * downloads.ATTEMPTS
    with pytest.raises(DataError) as caught:
        fetch(server, part)
    assert not server.faults
    return str(caught.value)


def test_plain_file_arrives_whole_and_progress_reaches_the_total(
    server: Server, part: Path
) -> None:
    steps: list[tuple[str, int, int | None]] = []
    downloads.fetch(server.url, part, progress=lambda *step: steps.append(step))
    assert part.read_bytes() == BODY
    assert steps[-1] == (server.url, len(BODY), len(BODY))
    sizes = [size for _, size, _ in steps]
    assert sizes == sorted(sizes)


def test_truncated_body_is_continued_with_a_range(server: Server, part: Path) -> None:
    server.faults = [truncate(300_000), truncate(500_000)]
    assert fetch(server, part) == [1.0, 2.0]
    assert part.read_bytes() == BODY
    assert server.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_truncated_part_outlives_the_call_and_is_continued_by_the_next(
    server: Server, part: Path
) -> None:
    message = give_up(server, part, truncate(300_000))
    assert server.url in message and "300,000 of" in message and "are kept" in message
    assert part.read_bytes() == BODY[:300_000]
    server.ranges.clear()
    fetch(server, part)
    assert part.read_bytes() == BODY
    assert server.ranges == ["bytes=300000-"]


def test_server_that_ignores_range_restarts_the_file(server: Server, part: Path) -> None:
    server.faults = [truncate(300_000), ignore_range]
    fetch(server, part)
    assert part.read_bytes() == BODY


def test_changed_version_restarts_the_file(server: Server, part: Path) -> None:
    give_up(server, part, truncate(300_000))
    part.write_bytes(b"x" * 300_000)
    server.tag = '"v2"'
    server.ranges.clear()
    assert fetch(server, part) == []
    assert part.read_bytes() == BODY
    assert server.ranges == ["bytes=300000-"]


@pytest.mark.parametrize("tag", ["", 'W/"v1"'])
def test_part_without_a_strong_validator_is_never_continued(
    server: Server, part: Path, tag: str
) -> None:
    server.tag = tag
    message = give_up(server, part, truncate(300_000))
    assert "are kept" not in message
    fetch(server, part)
    assert part.read_bytes() == BODY
    assert set(server.ranges) == {None}


def test_complete_part_is_recognised_by_416(server: Server, part: Path) -> None:
    fetch(server, part)
    fetch(server, part)
    assert part.read_bytes() == BODY
    assert server.ranges == [None, f"bytes={len(BODY)}-"]


def test_part_longer_than_the_file_is_thrown_away(server: Server, part: Path) -> None:
    fetch(server, part)
    part.write_bytes(BODY + b"rest")
    assert fetch(server, part) == [1.0]
    assert part.read_bytes() == BODY


def test_range_of_another_version_restarts_the_file(server: Server, part: Path) -> None:
    rest = status(
        206, BODY[300_000:], Content_Range=f"bytes 300000-{len(BODY) - 1}/{len(BODY)}", ETag='"v2"'
    )
    server.faults = [truncate(300_000), rest]
    fetch(server, part)
    assert part.read_bytes() == BODY
    assert server.ranges == [None, "bytes=300000-", None]


def test_wrong_range_in_the_answer_restarts_the_file(server: Server, part: Path) -> None:
    server.faults = [truncate(300_000), status(206, b"junk", Content_Range="bytes 5-8/9")]
    fetch(server, part)
    assert part.read_bytes() == BODY


def test_500_twice_then_fine(server: Server, part: Path) -> None:
    server.faults = [status(500), status(503, Retry_After="7")]
    assert fetch(server, part) == [1.0, 7.0]
    assert part.read_bytes() == BODY


def test_attempts_are_bounded(server: Server, part: Path) -> None:
    message = give_up(server, part, status(500))
    assert (
        server.url in message
        and "status 500" in message
        and f"{downloads.ATTEMPTS} attempts" in message
    )
    assert not part.exists()


def test_dropped_connection_is_retried(server: Server, part: Path) -> None:
    server.faults = [hang_up]
    assert fetch(server, part) == [1.0]
    assert part.read_bytes() == BODY


def test_silent_server_counts_as_lost(server: Server, part: Path) -> None:
    go = threading.Event()
    server.faults = [lambda handler: (go.wait(5), None)[1]]
    downloads.fetch(server.url, part, timeout=0.25, wait=lambda _: go.set())
    assert part.read_bytes() == BODY


def test_404_fails_at_once_with_an_excerpt(server: Server, part: Path) -> None:
    server.faults = [status(404, b"<html>\n <h1>Not   Found</h1>")]
    with pytest.raises(DataError, match=r"status 404 .*<html> <h1>Not Found</h1>"):
        fetch(server, part)
    assert len(server.ranges) == 1


def test_web_page_with_status_200_writes_nothing_and_spares_a_kept_part(
    server: Server, part: Path
) -> None:
    give_up(server, part, truncate(300_000))
    page = b"<!doctype html><title>Sign in</title>" + b"!" * 200
    server.faults = [status(200, page)]
    with pytest.raises(DataError) as caught:
        fetch(server, part)
    assert page[:80].decode() in str(caught.value) and page[:81].decode() not in str(caught.value)
    assert part.read_bytes() == BODY[:300_000]


def test_disk_errors_are_not_blamed_on_the_server(server: Server, part: Path) -> None:
    part.mkdir(parents=True)
    with pytest.raises(RunError, match="cannot be written"):
        fetch(server, part)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://example.org/x", "example.org/x"])
def test_only_http_addresses(part: Path, url: str) -> None:
    with pytest.raises(UsageError, match="not an http"):
        downloads.fetch(url, part)


def test_publish_and_discard_leave_nothing_behind(server: Server, part: Path) -> None:
    fetch(server, part)
    final = part.with_name("data.json")
    downloads.publish(part, final)
    assert [path.name for path in final.parent.iterdir()] == ["data.json"]
    fetch(server, part)
    downloads.discard(part)
    assert [path.name for path in final.parent.iterdir()] == ["data.json"]


def test_manifest_round_trip_and_change_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1]")
    entry = downloads.describe(path, "http://example.org/a.json", 1, ("odd",))
    downloads.write_manifest(tmp_path, {"a.json": entry})
    assert downloads.read_manifest(tmp_path) == {"a.json": entry}
    assert downloads.is_intact(path, entry)
    path.write_text("[2]")
    assert not downloads.is_intact(path, entry)
    assert not downloads.is_intact(tmp_path / "b.json", entry)


@pytest.mark.parametrize("text", ["[]", "{}", "{", '{"files": {"a": {"url": 1}}}'])
def test_foreign_manifest_is_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / downloads.MANIFEST).write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json is not a download manifest"):
        downloads.read_manifest(tmp_path)


def test_two_downloads_into_one_folder(tmp_path: Path) -> None:
    with (
        downloads.lock_folder(tmp_path / "new"),
        pytest.raises(UsageError, match="another download"),
        downloads.lock_folder(tmp_path / "new"),
    ):
        pass
    with downloads.lock_folder(tmp_path / "new"):
        pass
