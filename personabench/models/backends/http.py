"""HTTP/1.1 POST over kept connections, and nothing else: the least that a model call costs.

A general client spends most of its time per call on what these calls never use (redirects, cookies, streaming,
compression); docs/performance.md has what this one saves.  A connection carries one exchange at a time.  A kept one
that the server closed before a byte of the reply came is replaced once, as every keep-alive client must.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

KEPT = 4.0
_HEAD_LIMIT = 1 << 16


class Reply(NamedTuple):
    """An answer: status, headers with lower-case names, body."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Unreachable(ConnectionError):
    """No connection could be made."""


class Wire:
    """Where requests of one URL go.

    Args:
        url: the address, http or https.
        headers: sent with each request; ASCII without line breaks.
        timeout: seconds for a whole exchange; connect: for making a connection.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], timeout: float, connect: float
    ) -> None:
        parts = urlsplit(url)
        self._host, secure = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if secure else 80)
        self._ssl = ssl.create_default_context() if secure else None
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {parts.netloc}",
            *(f"{name}: {headers[name]}" for name in headers),
        ]
        self._head = "\r\n".join([*lines, "Content-Length: "]).encode("ascii")
        self._timeout, self._connect_timeout = timeout, connect
        self._idle: list[_Connection] = []

    async def post(self, content: bytes) -> Reply:
        """Send a body and receive the answer.

        Raises:
            TimeoutError: no answer in time.
            Unreachable: no connection.
            OSError: the connection broke, or what came is not HTTP.
        """
        message = b"%b%d\r\n\r\n%b" % (self._head, len(content), content)
        async with asyncio.timeout(self._timeout):
            kept = self._kept()
            if kept is not None:
                try:
                    return await self._exchange(kept, message)
                except OSError:
                    if kept.heard:
                        raise
            return await self._exchange(await self._connect(), message)

    def close(self) -> None:
        """Close what is kept."""
        while self._idle:
            self._idle.pop().close()

    async def _exchange(self, connection: _Connection, message: bytes) -> Reply:
        try:
            reply = await connection.send(message)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            connection.since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        return reply

    def _kept(self) -> _Connection | None:
        oldest = time.monotonic() - KEPT
        while self._idle:
            connection = self._idle.pop()
            if connection.open and connection.since > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(self._connect_timeout):
                transport, connection = await asyncio.get_running_loop().create_connection(
                    _Connection, self._host, self._port, ssl=self._ssl
                )
        except (OSError, TimeoutError) as error:
            raise Unreachable(str(error) or "no connection") from error
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection


class _Connection(asyncio.Protocol):
    """One connection: `heard` whether a byte of the current reply came, `reusable` whether another may follow."""

    def __init__(self) -> None:
        self.open = True
        self.heard = False
        self.reusable = False
        self.since = 0.0
        self._buffer = bytearray()
        self._waiter: asyncio.Future[Reply] | None = None
        self._status = 0
        self._headers: dict[str, str] = {}
        self._length: int | None = None

    def send(self, message: bytes) -> asyncio.Future[Reply]:
        """Start an exchange."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._status, self.heard, self.reusable = 0, False, False
        if self.open:
            self._transport.write(message)
        else:
            self._fail(ConnectionResetError("closed by the server"))
        return self._waiter

    def close(self) -> None:
        """Hang up."""
        self.open = False
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard = True
        self._buffer += data
        try:
            while not self._status and self._read_head():
                pass
            content = self._read_body() if self._status else None
        except (ValueError, IndexError):
            self._fail(ConnectionError(f"no HTTP: {bytes(self._buffer[:40])!r}"))
            self._transport.abort()
            return
        if content is not None:
            self._finish(
                content, not self._buffer and self._headers.get("connection", "").lower() != "close"
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._status and self._length == -1:
            self._finish(bytes(self._buffer), False)
        why = "closed in the middle of a reply" if self.heard else "closed by the server"
        self._fail(exc if isinstance(exc, OSError) else ConnectionResetError(why))

    def _finish(self, content: bytes, reusable: bool) -> None:
        if self._waiter is not None and not self._waiter.done():
            self.reusable = reusable and self.open
            self._waiter.set_result(Reply(self._status, self._headers, content))
        self._waiter = None

    def _fail(self, error: OSError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self._waiter = None

    def _read_head(self) -> bool:
        """Take a head off the buffer; whether there was one.  An interim one (1xx) counts for nothing."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _HEAD_LIMIT or not self._buffer.startswith(
                b"HTTP/1."[: len(self._buffer)]
            ):
                raise ValueError
            return False
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        if not first.startswith("HTTP/1."):
            raise ValueError
        status = int(first.split(" ", 2)[1])
        del self._buffer[: end + 4]
        if status < 200:
            return True
        fields = (line.partition(":") for line in lines)
        self._headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        if status in (204, 304):
            self._length = 0
        elif "chunked" in self._headers.get("transfer-encoding", "").lower():
            self._length = None
        else:
            self._length = int(self._headers.get("content-length", -1))
        self._status = status
        return True

    def _read_body(self) -> bytes | None:
        """Take a whole body off the buffer; None while it is not all there (length -1: until the connection ends)."""
        if self._length is None:
            return self._read_chunks() if self._buffer.endswith(b"\r\n\r\n") else None
        if self._length < 0 or len(self._buffer) < self._length:
            return None
        content = bytes(self._buffer[: self._length])
        del self._buffer[: self._length]
        return content

    def _read_chunks(self) -> bytes | None:
        content, at = bytearray(), 0
        while (end := self._buffer.find(b"\r\n", at)) >= 0:
            size = int(bytes(self._buffer[at:end]).partition(b";")[0], 16)
            if size == 0:
                self._buffer.clear()
                return bytes(content)
            content += self._buffer[end + 2 : end + 2 + size]
            at = end + 2 + size + 2
        return None
