"""The bare HTTP client against servers that send their bytes in every legal way, and in some
others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from personabench.models.backends.http import ConnectionPool, Unreachable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Raw:
    """Sends each of `replies` to one request, in pieces of `piece` bytes; None is no reply.

    It hangs up after a reply without a stated length, after none, and with `hang_up` after any.
    """

    def __init__(
        self, replies: list[bytes | None], piece: int = 1 << 20, hang_up: bool = False
    ) -> None:
        self.replies, self.piece, self.hang_up = replies, piece, hang_up
        self.connections = 0
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = await reader.readexactly(
                    int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                )
                self.requests.append(head + body)
                reply = self.replies.pop(0)
                if reply is None:
                    break
                for at in range(0, len(reply), self.piece):
                    writer.write(reply[at : at + self.piece])
                    await writer.drain()
                    await asyncio.sleep(0)
                if self.hang_up or (
                    b"content-length" not in reply.lower() and b"chunked" not in reply
                ):
                    break
        except asyncio.IncompleteReadError:
            pass
        writer.close()


@asynccontextmanager
async def open_pool(raw: Raw, timeout: float = 2.0) -> AsyncIterator[ConnectionPool]:
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    pool = ConnectionPool(
        f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x?y=1",
        {"X-A": "b"},
        timeout,
        1.0,
    )
    try:
        yield pool
    finally:
        pool.close()
        server.close()


FORMS = {
    "length": OK,
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    "until the end": b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nhello",
    "odd case": b"HTTP/1.1 200\r\ncontent-LENGTH:5\r\n\r\nhello",
}


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_a_reply(form: str, piece: int) -> None:
    raw = Raw([FORMS[form]] * 2, piece)
    async with open_pool(raw) as pool:
        for _ in range(2):
            reply = await pool.post(b"body")
            assert (reply.status, reply.content) == (200, b"hello")
    assert raw.connections == (2 if form == "until the end" else 1)
    host = raw.requests[0].split(b"\r\n")[1]
    assert host.startswith(b"Host: 127.0.0.1:")
    expected = (
        b"POST /v1/x?y=1 HTTP/1.1\r\n" + host + b"\r\nX-A: b\r\nContent-Length: 4\r\n\r\nbody"
    )
    assert raw.requests == [expected] * 2


async def test_a_chunk_that_looks_like_the_end() -> None:
    first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n0\r\n\r\nab\r\n"
    async with open_pool(Raw([first + b"0\r\n\r\n"], 1)) as pool:
        assert (await pool.post(b"")).content == b"0\r\n\r\nab"


async def test_an_error_status_has_headers_and_body() -> None:
    raw = Raw(
        [b"HTTP/1.1 429 Too Many Requests\r\nRetry-After:  3 \r\nContent-Length: 2\r\n\r\nno"]
    )
    async with open_pool(raw) as pool:
        reply = await pool.post(b"")
        assert (reply.status, reply.headers["retry-after"], reply.content) == (429, "3", b"no")


async def test_connection_close_is_obeyed() -> None:
    raw = Raw([OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")] * 2)
    async with open_pool(raw) as pool:
        assert [(await pool.post(b"")).content for _ in range(2)] == [b"hello"] * 2
    assert raw.connections == 2


async def test_a_kept_connection_that_was_closed_is_replaced_once() -> None:
    raw = Raw([OK, None, OK])
    async with open_pool(raw) as pool:
        await pool.post(b"")
        assert (await pool.post(b"again")).content == b"hello"
    assert raw.connections == 2


BROKEN = {
    "nothing": (None, "closed by the server"),
    "half a body": (OK[:-2], "in the middle"),
    "half a head": (b"HTTP/1.1 200", "in the middle"),
    "another protocol": (b"220 mail.example ESMTP\r\n\r\n", "not HTTP: b'220 mail"),
    "no status": (b"HTTP/1.1 fine\r\n\r\n", "not HTTP"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_broken_replies(case: str) -> None:
    sent, words = BROKEN[case]
    async with open_pool(Raw([sent, OK], hang_up=True)) as pool:
        with pytest.raises(ConnectionError, match=words):
            await pool.post(b"")
        assert (await pool.post(b"")).content == b"hello"


async def test_a_reply_that_does_not_come_in_time() -> None:
    async with open_pool(
        Raw([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhe", OK]), timeout=0.1
    ) as pool:
        with pytest.raises(TimeoutError):
            await pool.post(b"")
        assert (await pool.post(b"")).content == b"hello"


async def test_a_cancelled_call_does_not_leave_its_reply_to_the_next() -> None:
    raw = Raw([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhe", OK])
    async with open_pool(raw) as pool:
        call = asyncio.create_task(pool.post(b"one"))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert (await pool.post(b"two")).content == b"hello"
    assert raw.connections == 2


async def test_nobody_there(unused_tcp_port: int) -> None:
    with pytest.raises(Unreachable):
        await ConnectionPool(f"http://127.0.0.1:{unused_tcp_port}/", {}, 1.0, 1.0).post(b"")
