"""The HTTP layer against servers that send their bytes in every legal way, and in some others."""

from __future__ import annotations

import asyncio
import resource
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from personabench.errors import UsageError
from personabench.models.backends import http
from personabench.models.backends.http import (
    HTTPClient,
    ReplyTooLong,
    Unreachable,
    Untrusted,
    max_connections,
    proxy_for,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class RawServer:
    """Sends each of `replies` to one request, in pieces of `piece` bytes; None is no reply.

    It hangs up after a reply without a stated length, after none, and with `hang_up` after any;
    `pause` is the time between pieces in seconds.
    """

    def __init__(
        self,
        replies: list[bytes | None],
        piece: int = 1 << 20,
        hang_up: bool = False,
        pause: float = 0.0,
    ) -> None:
        self.replies = replies
        self.piece = piece
        self.hang_up = hang_up
        self.pause = pause
        self.url = ""
        self.connections = 0
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
                body = await reader.readexactly(int(length or 0))
                self.requests.append(head + body)
                reply = self.replies.pop(0)
                if reply is None:
                    break
                await self._send(reply, writer)
                has_length = b"content-length" in reply.lower() or b"chunked" in reply
                if self.hang_up or not has_length:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def _send(self, reply: bytes, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(reply), self.piece):
            writer.write(reply[start : start + self.piece])
            await writer.drain()
            await asyncio.sleep(self.pause)


@asynccontextmanager
async def connecting(
    raw: RawServer, timeout: float = 2.0, context: ssl.SSLContext | None = None
) -> AsyncIterator[HTTPClient]:
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0, ssl=context)
    scheme = "https" if context else "http"
    raw.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x?y=1"
    client = HTTPClient({"X-A": "b"}, timeout)
    try:
        yield client
    finally:
        await client.aclose()
        server.close()


FORMS = {
    "length": OK,
    "chunks": CHUNKED + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    "until the end": b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nhello",
    "odd case": b"HTTP/1.1 200 \r\ncontent-LENGTH:5\r\n\r\nhello",
}


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_a_reply(form: str, piece: int) -> None:
    raw = RawServer([FORMS[form]] * 2, piece)
    async with connecting(raw) as client:
        for _ in range(2):
            reply = await client.post(raw.url, b"body")
            assert (reply.status, reply.content) == (200, b"hello")
    assert raw.connections == (2 if form == "until the end" else 1)

    head, _, body = raw.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/x?y=1 HTTP/1.1\r\n") and body == b"body"
    assert b"\r\nX-A: b\r\n" in head and b"\r\nUser-Agent: personabench/" in head
    assert b"Python" not in head and b"aiohttp" not in head


async def test_a_chunk_that_looks_like_the_end() -> None:
    raw = RawServer([CHUNKED + b"7\r\n0\r\n\r\nab\r\n0\r\n\r\n"], 1)
    async with connecting(raw) as client:
        assert (await client.post(raw.url, b"")).content == b"0\r\n\r\nab"


async def test_an_error_status_has_headers_and_body() -> None:
    raw = RawServer(
        [b"HTTP/1.1 429 Too Many Requests\r\nRetry-After:  3 \r\nContent-Length: 2\r\n\r\nno"]
    )
    async with connecting(raw) as client:
        reply = await client.post(raw.url, b"")
        assert (reply.status, reply.headers["retry-after"], reply.content) == (429, "3", b"no")


async def test_a_long_header_of_a_gateway() -> None:
    raw = RawServer(
        [OK.replace(b"\r\n", b"\r\nContent-Security-Policy: " + b"x" * 30_000 + b"\r\n", 1)]
    )
    async with connecting(raw) as client:
        assert (await client.post(raw.url, b"")).content == b"hello"


async def test_a_redirect_is_not_followed() -> None:
    raw = RawServer(
        [b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"]
    )
    async with connecting(raw) as client:
        reply = await client.post(raw.url, b"")
        assert (reply.status, reply.headers["location"]) == (307, "http://127.0.0.1:1/")
    assert len(raw.requests) == 1


async def test_a_cookie_is_not_sent_back() -> None:
    raw = RawServer([OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b\r\n\r\n"), OK])
    async with connecting(raw) as client:
        for _ in range(2):
            await client.post(raw.url, b"")
    assert b"ookie" not in raw.requests[1]


async def test_connection_close_is_obeyed() -> None:
    raw = RawServer([OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")] * 2)
    async with connecting(raw) as client:
        contents = [(await client.post(raw.url, b"")).content for _ in range(2)]
    assert contents == [b"hello"] * 2 and raw.connections == 2


async def test_an_idle_connection_that_was_closed_is_replaced_once() -> None:
    raw = RawServer([OK, None, OK, None, None])
    async with connecting(raw) as client:
        await client.post(raw.url, b"")
        assert (await client.post(raw.url, b"again")).content == b"hello"
        with pytest.raises(ConnectionError, match="closed by the server"):
            await client.post(raw.url, b"")
    assert raw.connections == 3 and len(raw.requests) == 5


BROKEN = {
    "nothing": (None, "closed by the server"),
    "half a body": (OK[:-2], "in the middle"),
    "half a head": (b"HTTP/1.1 200 OK\r\nServer: x\r\n", "."),
    "another protocol": (b"220 mail.example ESMTP\r\n\r\n", "not HTTP: .*220 mail"),
    "no status": (b"HTTP/1.1 fine\r\n\r\n", "not HTTP"),
    "half a chunk": (CHUNKED + b"9\r\nhe", "in the middle"),
    "a negative chunk": (CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", "."),
    "a chunk of no size": (CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n", "."),
    "a huge chunk": (CHUNKED + b"f" * 40 + b"\r\nhello", "."),
    "a negative length": (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", "not HTTP"),
    "a huge header": (
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n",
        "not HTTP",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_broken_replies(case: str) -> None:
    sent, words = BROKEN[case]
    raw = RawServer([sent, OK], hang_up=True)
    async with connecting(raw) as client:
        with pytest.raises(ConnectionError, match=words) as caught:
            await client.post(raw.url, b"")
        assert len(str(caught.value)) < 400
        assert (await client.post(raw.url, b"")).content == b"hello"


async def test_a_reply_that_stops_in_the_middle_ends_in_time() -> None:
    raw = RawServer([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhe", OK])
    async with connecting(raw, timeout=0.1) as client:
        with pytest.raises(TimeoutError):
            await client.post(raw.url, b"")
        assert (await client.post(raw.url, b"")).content == b"hello"


async def test_a_dripping_reply_does_not_outlive_the_deadline() -> None:
    raw = RawServer([OK.replace(b"5", b"500") + b"x" * 495], piece=1, pause=0.02)
    async with connecting(raw, timeout=0.3) as client:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            await client.post(raw.url, b"")
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("form", ["length", "chunks", "until the end"])
async def test_a_reply_that_is_too_long(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(http, "MAX_BODY", 1 << 16)
    body = b"x" * (1 << 18)
    replies = {
        "length": OK.replace(b"5", str(len(body)).encode()).removesuffix(b"hello") + body,
        "chunks": CHUNKED + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n",
        "until the end": b"HTTP/1.1 200 OK\r\n\r\n" + body,
    }
    raw = RawServer([replies[form], OK])
    async with connecting(raw) as client:
        with pytest.raises(ReplyTooLong):
            await client.post(raw.url, b"")
        assert (await client.post(raw.url, b"")).content == b"hello"


async def test_a_cancelled_call_does_not_leave_its_reply_to_the_next() -> None:
    raw = RawServer([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhe", OK])
    async with connecting(raw) as client:
        call = asyncio.create_task(client.post(raw.url, b"one"))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert (await client.post(raw.url, b"two")).content == b"hello"
    assert raw.connections == 2


async def test_no_server(unused_tcp_port: int) -> None:
    client = HTTPClient({}, 1.0)
    with pytest.raises(Unreachable):
        await client.post(f"http://127.0.0.1:{unused_tcp_port}/", b"")
    await client.aclose()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies and certificates."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


PROXIES = [
    ({}, "https://api.example/v1", None),
    ({"HTTPS_PROXY": "http://proxy:3128"}, "https://api.example/v1", "http://proxy:3128"),
    ({"https_proxy": "proxy:3128"}, "https://api.example/v1", "http://proxy:3128"),
    ({"HTTPS_PROXY": "http://proxy:3128"}, "http://api.example/v1", None),
    ({"ALL_PROXY": "http://proxy:3128"}, "http://api.example/v1", "http://proxy:3128"),
    ({"ALL_PROXY": "http://proxy:1", "NO_PROXY": "example"}, "http://api.example/v1", None),
    ({"ALL_PROXY": "http://proxy:1", "NO_PROXY": "*"}, "http://api.example/v1", None),
    ({"ALL_PROXY": "http://proxy:1", "NO_PROXY": "gpu:8000"}, "http://gpu:8000/v1", None),
    ({"ALL_PROXY": "http://p:1", "NO_PROXY": "gpu:8000"}, "http://gpu:8001/v1", "http://p:1"),
    ({"ALL_PROXY": "http://proxy:1", "NO_PROXY": "x, 10.0.0.0/8"}, "http://10.1.2.3/v1", None),
    ({"ALL_PROXY": "http://proxy:1"}, "http://127.0.0.1:8000/v1", None),
    ({"ALL_PROXY": "http://proxy:1"}, "http://localhost:8000/v1", None),
    ({"ALL_PROXY": "http://proxy:1"}, "http://[::1]:8000/v1", None),
]


@pytest.mark.parametrize(("variables", "url", "proxy"), PROXIES)
def test_proxies_by_environment(
    environment: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    assert proxy_for(url) == proxy


def test_a_proxy_of_another_kind_is_an_error(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ALL_PROXY", "socks5://me:word@proxy:1080")
    with pytest.raises(UsageError, match=r"socks5 proxy for api\.example.*NO_PROXY") as caught:
        proxy_for("https://api.example/v1")
    assert "word" not in str(caught.value)


async def test_a_call_through_a_proxy_with_a_password(environment: pytest.MonkeyPatch) -> None:
    raw = RawServer([OK, OK])
    async with connecting(raw) as client:
        proxy = raw.url.removeprefix("http://").partition("/")[0]
        environment.setenv("HTTP_PROXY", f"http://me:word@{proxy}")
        for _ in range(2):
            reply = await client.post("http://api.example/v1", b"body")
            assert reply.content == b"hello"
    for request in raw.requests:
        assert request.startswith(b"POST http://api.example/v1 HTTP/1.1\r\n")
        assert b"\r\nHost: api.example\r\n" in request
        assert b"\r\nProxy-Authorization: Basic bWU6d29yZA==\r\n" in request


async def test_a_proxy_that_refuses(environment: pytest.MonkeyPatch) -> None:
    raw = RawServer([b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"])
    async with connecting(raw) as client:
        proxy = raw.url.removeprefix("http://").partition("/")[0]
        environment.setenv("HTTPS_PROXY", f"http://{proxy}")
        with pytest.raises(Unreachable, match="the proxy answered 407"):
            await client.post("https://api.example/v1", b"body")
    assert raw.requests[0].startswith(b"CONNECT api.example:443")


def make_certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of 127.0.0.1 that signs itself, and a server's context with it."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subject = ["-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command.split(), "-keyout", str(key), "-out", str(certificate), *subject],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


async def test_a_certificate_is_trusted_if_its_authority_is_named(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, context = make_certificate(tmp_path)
    raw = RawServer([OK])
    async with connecting(raw, context=context) as client:
        with pytest.raises(Untrusted, match="SSL_CERT_FILE"):
            await client.post(raw.url, b"")

        environment.setenv("SSL_CERT_FILE", str(certificate))
        trusting = HTTPClient({}, 2.0)
        assert (await trusting.post(raw.url, b"")).content == b"hello"
        await trusting.aclose()


async def test_a_certificate_file_that_does_not_exist(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(UsageError, match=r"SSL_CERT_FILE: .*none\.pem does not exist"):
        HTTPClient({}, 2.0)


def test_the_limit_of_open_files_is_raised() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        assert max_connections() > 1024 or hard <= 1024
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 512
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


FEW_FILES = """
import asyncio, resource, sys

resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))
from personabench.models.backends.http import HTTPClient, max_connections

async def main():
    client = HTTPClient({}, 30.0)
    replies = await asyncio.gather(*(client.post(sys.argv[1], b"") for _ in range(200)))
    print(max_connections(), {reply.content for reply in replies})
    await client.aclose()

asyncio.run(main())
"""


async def test_more_calls_than_the_system_allows_files_wait_for_a_connection() -> None:
    raw = RawServer([OK] * 200)
    async with connecting(raw):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FEW_FILES, raw.url, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    assert output.decode() == "32 {b'hello'}\n" and raw.connections <= 32
