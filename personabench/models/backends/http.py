"""The HTTP layer of both server backends: bounded, deadlined exchanges over pooled connections.

aiohttp carries the exchanges.  This module adds the guarantees that calls to models need: a
deadline for a whole exchange, however slowly its bytes arrive; a limit on the size of a reply; no
redirect, cookie or .netrc, so that keys and prompts go to no address that the user did not choose;
and one repetition if the server closed an idle connection just before it was used.  Proxies and
certificates come from the usual environment variables (HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE).
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from personabench import __version__
from personabench.errors import UsageError

if TYPE_CHECKING:
    import aiohttp

KEEP_ALIVE = 4.0
"""Seconds that an idle connection is kept; common servers close theirs after 5."""
MAX_BODY = 64 << 20
"""Bytes of a reply at most; the log-probabilities of a long prompt take some tens of MiB."""
CONNECT = 15.0
"""Seconds for making a connection."""
_MAX_HEADER = 1 << 16
_MAX_FILES = 1 << 16
_MAX_FILES_MACOS = 10240
_RESERVED_FILES = 128
"""Open files that are left to everything except connections."""
_opened: ContextVar[list[socket.socket]] = ContextVar("_opened")
"""The sockets that were opened for the current exchange: none if its connection was idle before."""
_log = logging.getLogger("personabench.http")


class Reply(NamedTuple):
    """A reply: status, headers (looked up without regard to case), body."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Unreachable(ConnectionError):
    """No connection could be made."""


class Untrusted(Unreachable):
    """The server's certificate is not accepted; a repetition would fail as well."""


class ReplyTooLong(OSError):
    """A reply has more than `MAX_BODY` bytes."""


class _Target(NamedTuple):
    """An address: parsed, its proxy, and how certificates are checked (True: aiohttp's default)."""

    url: Any
    proxy: str | None
    ssl: ssl.SSLContext | bool


class HTTPClient:
    """Exchanges with the servers of one backend; use it within a running event loop.

    Args:
        headers: sent with each request; ASCII without line breaks.
        timeout: seconds for a whole exchange.

    Raises:
        UsageError: SSL_CERT_FILE or SSL_CERT_DIR does not exist.
    """

    def __init__(self, headers: Mapping[str, str], timeout: float) -> None:
        import aiohttp

        _check_authorities()
        self._aiohttp = aiohttp
        self._timeout = timeout
        self._targets: dict[str, _Target] = {}

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=max_connections(),
                keepalive_timeout=KEEP_ALIVE,
                socket_factory=_open_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            # Gateways send policies of more than aiohttp's 8 KiB.
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
            headers=_merge_headers(headers),
            # The deadline of an exchange is kept in `_exchange`.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(CONNECT, timeout)),
        )

    async def post(self, url: str, content: bytes) -> Reply:
        """Send a JSON body and receive the reply.

        Raises:
            TimeoutError: no complete reply in time.
            Unreachable: no connection.
            ReplyTooLong: the reply exceeds `MAX_BODY`.
            OSError: the connection broke, or the reply is not HTTP.
        """
        return await self._exchange("POST", url, self._timeout, content)

    async def get(self, url: str, timeout: float) -> Reply:
        """Receive the reply to a GET; raises the same errors as `post`."""
        return await self._exchange("GET", url, timeout)

    async def delete(self, url: str) -> Reply:
        """Receive the reply to a DELETE; raises the same errors as `post`."""
        return await self._exchange("DELETE", url, self._timeout)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _exchange(
        self, method: str, url: str, timeout: float, content: bytes | None = None
    ) -> Reply:
        aiohttp = self._aiohttp
        opened: list[socket.socket] = []
        _opened.set(opened)
        async with asyncio.timeout(timeout):
            try:
                return await self._send(method, url, content)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                # After the first byte of a reply the server has worked on the request, so it is
                # not repeated here.
                if opened or not _is_before_reply(error):
                    raise _translate(error) from error
            except (aiohttp.ClientError, ValueError) as error:
                raise _translate(error) from error

            try:
                return await self._send(method, url, content)
            except (aiohttp.ClientError, ValueError) as error:
                raise _translate(error) from error

    async def _send(self, method: str, url: str, content: bytes | None) -> Reply:
        target = self._targets.get(url) or self._add_target(url)
        response = await self._session.request(
            method,
            target.url,
            data=content,
            proxy=target.proxy,
            ssl=target.ssl,
            allow_redirects=False,
        )
        try:
            body = await response.content.readany()
            # Most replies arrive in one piece, so pieces are joined only if there are more.
            if not response.content.at_eof():
                body = await _read_rest(response.content, body)
        except BaseException:
            # Cancelled too: the rest of this reply would be taken for the start of the next.
            response.close()
            raise
        # At the end of a reply its connection has been returned by itself.
        return Reply(response.status, response.headers, body)

    def _add_target(self, url: str) -> _Target:
        """Parse an address, which takes longer than looking it up."""
        from yarl import URL

        proxy = proxy_for(url)
        is_encrypted = any(address.lower().startswith("https:") for address in (url, proxy or ""))
        # Loading the authorities takes longer than a hundred calls to a server on this machine.
        target = _Target(URL(url), proxy, self._authorities if is_encrypted else True)
        self._targets[url] = target
        return target

    @functools.cached_property
    def _authorities(self) -> ssl.SSLContext:
        return _load_authorities()


def _merge_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    from multidict import CIMultiDict

    merged = CIMultiDict(
        {
            "Accept": "application/json",
            "Content-Type": "application/json",
            # Decompression would cost more than it saves.
            "Accept-Encoding": "identity",
            # aiohttp's own would tell which Python runs here.
            "User-Agent": f"personabench/{__version__}",
        }
    )
    merged.update(headers)
    return merged


async def _read_rest(stream: aiohttp.StreamReader, first: bytes) -> bytes:
    body = bytearray(first)
    while len(body) <= MAX_BODY:
        part = await stream.readany()
        if not part:
            return bytes(body)
        body += part
    raise ReplyTooLong(f"a reply of more than {MAX_BODY >> 20} MiB")


def _open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    _opened.get().append(sock)
    # Long generations send nothing for minutes, and routers drop connections that seem dead.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def _is_before_reply(error: Exception) -> bool:
    """Whether a connection ended before the first byte of a reply."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorError):
        return False
    if isinstance(error, aiohttp.ServerDisconnectedError):
        # Otherwise it is the part of a head that was received.
        return isinstance(error.message, str)
    return True


def _translate(error: Exception) -> OSError:
    """Return the error of this module that an error of aiohttp means."""
    import aiohttp

    reason = str(error) or type(error).__name__
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return Untrusted(
                f"{reason}; if the server has a certificate of its own authority, "
                "name that authority's file in SSL_CERT_FILE"
            )
        case aiohttp.ClientHttpProxyError():
            return Unreachable(f"the proxy answered {error.status} {error.message}")
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return Unreachable(reason)
        case aiohttp.ServerDisconnectedError():
            if _is_before_reply(error):
                return ConnectionResetError("closed by the server")
            return ConnectionResetError("closed in the middle of a reply")
        case aiohttp.ClientPayloadError():
            return ConnectionResetError(f"closed in the middle of a reply: {reason[:200]}")
        case aiohttp.ClientResponseError():
            # aiohttp draws a line below the place of the error.
            words = " ".join(error.message.split())
            return ConnectionError(f"not HTTP: {words[:200]}")
        case _:
            return ConnectionError(reason[:300])


def _check_authorities() -> None:
    """Check that SSL_CERT_FILE and SSL_CERT_DIR exist.

    Raises:
        UsageError: one does not.
    """
    # OpenSSL ignores a file that does not exist, and no certificate would be accepted.
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        path = os.environ.get(variable)
        if path and not Path(path).exists():
            raise UsageError(f"{variable}: {path} does not exist")


def _load_authorities() -> ssl.SSLContext:
    """Return the trusted authorities: the system's, or those of SSL_CERT_FILE and SSL_CERT_DIR."""
    context = ssl.create_default_context()
    is_chosen = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    if not is_chosen and not context.cert_store_stats()["x509_ca"]:
        _load_packaged_authorities(context)
    return context


def _load_packaged_authorities(context: ssl.SSLContext) -> None:
    """Load the authorities of certifi, for systems without certificates of their own."""
    try:
        import certifi
    except ImportError:
        return
    context.load_verify_locations(certifi.where())


def proxy_for(url: str) -> str | None:
    """Return the proxy for an address by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

    Raises:
        UsageError: the proxy is of a kind that is not supported.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    # NO_PROXY may name a host with its port.
    if not proxy or _is_loopback(host) or proxy_bypass(parts.netloc):
        return None
    if _is_in_networks(host, proxies.get("no", "")):
        return None

    if "://" not in proxy:
        proxy = f"http://{proxy}"
    scheme = proxy.partition("://")[0].lower()
    if scheme not in ("http", "https"):
        raise UsageError(
            f"the environment names a {scheme} proxy for {host}; only http and https proxies are "
            "supported (add the host to NO_PROXY to call it directly)"
        )
    return _encode_credentials(proxy, host)


def _encode_credentials(proxy: str, host: str) -> str:
    """Percent-encode name and password of a proxy, which may hold any character.

    Raises:
        UsageError: it has no host or no valid port; the message does not quote it.
    """
    scheme, _, rest = proxy.partition("://")
    credentials, at, address = rest.rpartition("@")
    try:
        parts = urlsplit(f"{scheme}://{address}")
        is_valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise UsageError(
            f"the environment's proxy for {host} has no host, or no port from 1 to 65535: write "
            "http://HOST:PORT into HTTP_PROXY or HTTPS_PROXY, or add the host to NO_PROXY"
        )
    encoded = ":".join(quote(unquote(part), safe="") for part in credentials.split(":", 1))
    return f"{scheme}://{encoded}{at}{address}"


def _is_loopback(host: str) -> bool:
    # This machine's loopback means another machine to a proxy.
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_in_networks(host: str, exceptions: str) -> bool:
    """Whether an address is in a network of NO_PROXY, such as 10.0.0.0/8."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False

    for exception in exceptions.split(","):
        try:
            network = ipaddress.ip_network(exception.strip(), strict=False)
        except ValueError:
            continue
        if address in network:
            return True
    return False


def max_connections() -> int:
    """Raise this process's limit of open files as far as allowed; return how many may be sockets.

    Four servers with 256 calls each exceed the usual limit of 1,024.
    """
    try:
        import resource
    except ImportError:
        # Windows does not limit sockets.
        return _MAX_FILES

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MAX_FILES

    # macOS grants less than the hard limit that it reports.
    for limit in (_MAX_FILES, _MAX_FILES_MACOS):
        new_limit = limit if hard == resource.RLIM_INFINITY else min(hard, limit)
        if soft >= new_limit:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (new_limit, hard))
            soft = new_limit
        except (OSError, ValueError) as error:
            _log.info("the limit of open files is not raised to %d (%s)", new_limit, error)
    return max(soft - _RESERVED_FILES, 16)
