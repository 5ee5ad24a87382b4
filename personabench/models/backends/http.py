"""HTTP/1.1 POST over persistent connections: the minimal cost of a model call.

A general client spends most of its time per call on features that these calls never use (redirects,
cookies, streaming, compression); docs/performance.md has the measurements.  A connection carries
one exchange at a time.  If the server closed an idle connection before the first byte of the reply,
the request is sent once more on a new one, as every keep-alive client must.
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
"""Seconds that an idle connection is kept; common servers close theirs after 5."""
_HEAD_LIMIT = 1 << 16


class Reply(NamedTuple):
    """A reply: status, headers with lower-case names, body."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Unreachable(ConnectionError):
    """No connection could be made."""


class ConnectionPool:
    """Connections for requests to one URL.

    Args:
        url: the address, http or https.
        headers: sent with each request; ASCII without line breaks.
        timeout: seconds for a whole exchange; connect: for making a connection.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], timeout: float, connect: float
    ) -> None:
        parts = urlsplit(url)
        is_secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if is_secure else 80)
        self._ssl = ssl.create_default_context() if is_secure else None

        path = parts.path or "/"
        if parts.query:
            path = f"{path}?{parts.query}"
        head = [f"POST {path} HTTP/1.1", f"Host: {parts.netloc}"]
        for name, value in headers.items():
            head.append(f"{name}: {value}")
        # All requests share their head up to this header's value.
        head.append("Content-Length: ")
        self._head = "\r\n".join(head).encode("ascii")

        self._timeout = timeout
        self._connect_timeout = connect
        self._idle: list[_Connection] = []

    async def post(self, content: bytes) -> Reply:
        """Send a body and receive the reply.

        Raises:
            TimeoutError: no reply in time.
            Unreachable: no connection.
            OSError: the connection broke, or the reply is not HTTP.
        """
        message = b"%b%d\r\n\r\n%b" % (self._head, len(content), content)
        async with asyncio.timeout(self._timeout):
            idle = self._take_idle()
            if idle is not None:
                try:
                    return await self._exchange(idle, message)
                except OSError:
                    # After the first byte the server has worked on the request, so it is not
                    # repeated here.
                    if idle.received_any:
                        raise
            connection = await self._connect()
            return await self._exchange(connection, message)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    async def _exchange(self, connection: _Connection, message: bytes) -> Reply:
        try:
            reply = await connection.send(message)
        except BaseException:
            # Cancelled too: the rest of this reply would be taken for the start of the next.
            connection.close()
            raise

        if connection.reusable:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        return reply

    def _take_idle(self) -> _Connection | None:
        oldest = time.monotonic() - KEPT
        while self._idle:
            connection = self._idle.pop()
            if connection.open and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout):
                transport, connection = await loop.create_connection(
                    _Connection,
                    self._host,
                    self._port,
                    ssl=self._ssl,
                )
        except (OSError, TimeoutError) as error:
            raise Unreachable(str(error) or "no connection") from error

        # Long generations send nothing for minutes, and routers drop connections that seem dead.
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection


class _Connection(asyncio.Protocol):
    """One connection.

    Attributes:
        open: whether it can carry another request.
        received_any: whether a byte of the current reply was received.
        reusable: whether another exchange may follow.
        idle_since: when its last exchange ended.
    """

    def __init__(self) -> None:
        self.open = True
        self.received_any = False
        self.reusable = False
        self.idle_since = 0.0
        self._buffer = bytearray()
        self._waiter: asyncio.Future[Reply] | None = None
        self._status = 0
        self._headers: dict[str, str] = {}
        # None: chunked; -1: until the connection ends.
        self._length: int | None = None

    def send(self, message: bytes) -> asyncio.Future[Reply]:
        """Start an exchange."""
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        self._status = 0
        self.received_any = False
        self.reusable = False

        if self.open:
            self._transport.write(message)
        else:
            self._fail(ConnectionResetError("closed by the server"))
        return waiter

    def close(self) -> None:
        """Close the connection."""
        self.open = False
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.received_any = True
        self._buffer += data
        content = None
        try:
            # Interim replies (1xx) precede the final one.
            while not self._status and self._read_head():
                pass
            if self._status:
                content = self._read_body()
        except (ValueError, IndexError):
            self._fail(ConnectionError(f"not HTTP: {bytes(self._buffer[:40])!r}"))
            self._transport.abort()
            return

        if content is not None:
            closes = self._headers.get("connection", "").lower() == "close"
            # Bytes after the reply belong to no request: the connection cannot be trusted.
            self._finish(content, not self._buffer and not closes)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._status and self._length == -1:
            self._finish(bytes(self._buffer), False)

        if isinstance(exc, OSError):
            self._fail(exc)
        elif self.received_any:
            self._fail(ConnectionResetError("closed in the middle of a reply"))
        else:
            self._fail(ConnectionResetError("closed by the server"))

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
        """Take a head off the buffer; return whether there was one."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            self._check_start()
            return False

        first, *fields = self._buffer[:end].decode("latin-1").split("\r\n")
        if not first.startswith("HTTP/1."):
            raise ValueError
        status = int(first.split(" ", 2)[1])
        del self._buffer[: end + 4]
        if status < 200:
            return True

        self._headers = {}
        for field in fields:
            name, _, value = field.partition(":")
            self._headers[name.strip().lower()] = value.strip()
        self._length = self._body_length(status)
        self._status = status
        return True

    def _check_start(self) -> None:
        """Fail early on a server that does not speak HTTP, instead of waiting for a head."""
        start = b"HTTP/1."[: len(self._buffer)]
        if len(self._buffer) > _HEAD_LIMIT or not self._buffer.startswith(start):
            raise ValueError

    def _body_length(self, status: int) -> int | None:
        if status in (204, 304):
            return 0
        if "chunked" in self._headers.get("transfer-encoding", "").lower():
            return None
        return int(self._headers.get("content-length", -1))

    def _read_body(self) -> bytes | None:
        """Take a whole body off the buffer; None while it is incomplete."""
        if self._length is None:
            # Chunks are parsed once, when the last one has arrived, rather than on every packet.
            return self._read_chunks() if self._buffer.endswith(b"\r\n\r\n") else None
        if self._length < 0 or len(self._buffer) < self._length:
            return None

        content = bytes(self._buffer[: self._length])
        del self._buffer[: self._length]
        return content

    def _read_chunks(self) -> bytes | None:
        content = bytearray()
        start = 0
        while True:
            end = self._buffer.find(b"\r\n", start)
            if end < 0:
                return None

            size_field = bytes(self._buffer[start:end]).partition(b";")[0]
            size = int(size_field, 16)
            if size == 0:
                self._buffer.clear()
                return bytes(content)

            data_start = end + 2
            data_end = data_start + size
            content += self._buffer[data_start:data_end]
            start = data_end + 2
