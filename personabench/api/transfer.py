"""One attempt at an HTTP transfer, which continues an earlier one if that is safe."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

from personabench import __version__
from personabench.errors import DataError, UsageError
from personabench.models.environment import refuse_download

Progress = Callable[[str, int, int | None], None]
"""Called with (url, bytes so far, bytes in total or None)."""

# Large enough that the system calls cost little, small enough for a smooth progress bar.
CHUNK = 1 << 18

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class TransferInterrupted(Exception):
    """A transfer that may succeed when repeated; `wait` is the server's Retry-After in seconds."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class _Start(NamedTuple):
    """The start of a body: its offset in the file, the file's size, and bytes already read."""

    offset: int
    total: int | None
    first: bytes


def transfer(
    url: str,
    part: Path,
    opening: bytes,
    progress: Progress | None,
    timeout: float,
) -> None:
    """Complete `part` in one attempt; arguments as in `downloads.fetch`.

    Raises:
        TransferInterrupted: another attempt may succeed.
        UsageError, DataError, OSError: it would not.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    version = _read_version(part)
    # Without a version, the rest of the file might be of another one.
    offset = file_size(part) if version else 0

    response = _open(_build_request(url, offset, version), timeout)
    with contextlib.closing(response):
        start = _inspect_response(response, url, part, opening, offset, version)
        if start is None:
            return
        size = _write_body(response, start, url, part, progress)

    if start.total is not None and size != start.total:
        raise TransferInterrupted(f"the connection ended after {size:,} of {start.total:,} bytes")


def is_resumable(part: Path) -> bool:
    """Whether a part file has a version with which a later attempt can continue it."""
    return bool(_read_version(part))


def discard(part: Path) -> None:
    """Remove a part file and its version."""
    part.unlink(missing_ok=True)
    version_path(part).unlink(missing_ok=True)


def version_path(part: Path) -> Path:
    """Return the path of the file that keeps a part file's version."""
    return part.with_name(f"{part.name}.tag")


def file_size(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it does not exist."""
    return path.stat().st_size if path.is_file() else 0


def excerpt(content: bytes) -> str:
    """Quote the first 80 characters of a response, on one line."""
    text = content[:320].decode(errors="replace")
    one_line = " ".join(text.split())
    return repr(one_line[:80])


def _read_version(part: Path) -> str:
    path = version_path(part)
    return path.read_text() if path.exists() else ""


def _build_request(
    url: str,
    offset: int,
    version: str,
) -> urllib.request.Request:
    headers = {
        "User-Agent": f"personabench/{__version__}",
        # Ranges of a compressed body could not be joined.
        "Accept-Encoding": "identity",
    }
    if offset:
        headers["Range"] = f"bytes={offset}-"
        headers["If-Range"] = version
    return urllib.request.Request(url, headers=headers)


def _inspect_response(
    response: Any,
    url: str,
    part: Path,
    opening: bytes,
    offset: int,
    version: str,
) -> _Start | None:
    """Check that a body can be written into `part`; None if `part` is already complete."""
    header = response.headers.get("Content-Range", "").strip()
    content_range = _CONTENT_RANGE.fullmatch(header)

    if response.status == 416:
        if content_range and content_range[2] == str(offset):
            return None
        discard(part)
        raise TransferInterrupted("the kept part is longer than the file")

    if response.status == 206:
        # Some servers ignore If-Range or send another range than requested.
        same_version = _version_of(response.headers) in ("", version)
        same_range = bool(offset and content_range and content_range[1] == str(offset))
        if not content_range or not same_range or not same_version:
            discard(part)
            raise TransferInterrupted("the server sent another range or version than requested")
        total = int(content_range[2]) if content_range[2] != "*" else _size_of(response, offset)
        return _Start(offset, total, b"")

    total = _size_of(response, 0)
    first = _read_chunk(response)
    _check_opening(url, first, opening)
    return _Start(0, total, first)


def _check_opening(
    url: str,
    first: bytes,
    opening: bytes,
) -> None:
    """Reject a body that does not begin with one of the opening characters, such as a web page."""
    allowed = {bytes([character]) for character in opening}
    if not opening or first.lstrip()[:1] in allowed:
        return

    problem = f"it begins with {excerpt(first)}" if first else "the response is empty"
    raise DataError(f"{url} returned something other than the file: {problem}")


def _open_no_link(path: str, flags: int) -> int:
    # In a folder that is shared, the name could be a link to another file.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _write_body(
    response: Any,
    start: _Start,
    url: str,
    part: Path,
    progress: Progress | None,
) -> int:
    """Write the body; return the size of `part`."""
    size = start.offset
    with open(part, "ab" if start.offset else "wb", opener=_open_no_link) as file:
        if not start.offset:
            version_path(part).unlink(missing_ok=True)
            version_path(part).write_text(_version_of(response.headers))

        chunk = start.first or _read_chunk(response)
        while chunk:
            file.write(chunk)
            size += len(chunk)
            if progress:
                progress(url, size, start.total)
            chunk = _read_chunk(response)
    return size


def _open(request: urllib.request.Request, timeout: float) -> Any:
    """Open a request; a response with status 416 to a range counts as one."""
    refuse_download(request.full_url, request.full_url)
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and request.has_header("Range"):
            return error
        with error:
            raise _explain_status(request, error) from error
    except (http.client.InvalidURL, UnicodeError) as error:
        raise UsageError(f"{request.full_url} is not an address: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", "") or error or type(error).__name__
        raise TransferInterrupted(str(reason)) from error


def _explain_status(
    request: urllib.request.Request,
    error: urllib.error.HTTPError,
) -> Exception:
    if error.code in (408, 429) or error.code >= 500:
        # Retry-After may also be a date; then the usual waits apply.
        retry_after = error.headers.get("Retry-After", "")
        wait = float(retry_after) if retry_after.isdecimal() else 0.0
        return TransferInterrupted(f"status {error.code}", wait)

    body = excerpt(_read_chunk(error))
    return DataError(
        f"{request.full_url} answered with status {error.code} ({error.reason}): {body}"
    )


def _read_chunk(response: Any) -> bytes:
    try:
        chunk: bytes = response.read(CHUNK)
    except http.client.IncompleteRead as error:
        raise TransferInterrupted("the connection ended in the middle of a chunk") from error
    except (OSError, http.client.HTTPException) as error:
        raise TransferInterrupted(str(error) or type(error).__name__) from error
    return chunk


def _size_of(response: Any, offset: int) -> int | None:
    """Return the size of the whole file in bytes; None if the server does not report it."""
    return None if response.length is None else offset + int(response.length)


def _version_of(headers: Message) -> str:
    """Return the file's version for If-Range; empty if unknown, which prevents resuming."""
    # A weak ETag (W/"...") does not promise equal bytes.
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")
