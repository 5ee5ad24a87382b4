"""Files over HTTP: whole, in the right version, or not at all.

Benchmark files are large, and the servers that hold them drop connections, forget ranges and answer with web pages.
`fetch` brings one address into a `.part` file, continues where an earlier attempt stopped as long as the server says
that it still offers the same version (If-Range), and retries what may pass.  It never makes the final file: the caller
checks the content first and then calls `publish`.  A manifest beside the files records where each one came from.

The standard library carries the bytes.  `datasets.DownloadManager` (5.2) was tried and does not serve here: it starts
a cut-off file from zero, ignores `max_retries`, reports a status 500 as FileNotFoundError, and cannot look at what
arrives before it keeps it.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Any

import msgspec

from personabench import __version__
from personabench.errors import DataError, RunError, UsageError

Progress = Callable[[str, int, int | None], None]
MANIFEST = "manifest.json"
ATTEMPTS = 5
CHUNK = 1 << 18
LONGEST_WAIT = 60.0


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the manifest says of one file.

    Attributes:
        url: where it came from; empty for a file that was already there.
        sha256, bytes: of the file as it was checked; `time`: when, ISO 8601 in UTC.
        count: number of records; `notes`: what the checks found worth telling.
        unfilled: the file holds references to texts that must be obtained elsewhere.
    """

    url: str
    sha256: str
    bytes: int
    time: str
    count: int
    notes: tuple[str, ...] = ()
    unfilled: bool = False


class _Manifest(msgspec.Struct):
    files: dict[str, Entry]


class _Interrupted(Exception):
    """A transfer that may succeed when repeated; `wait` is the server's own wish in seconds."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def fetch(
    url: str,
    part: Path,
    *,
    opening: bytes = b"",
    progress: Progress | None = None,
    wait: Callable[[float], None] = time.sleep,
    timeout: float = 60.0,
) -> None:
    """Bring the whole of `url` into `part`, continuing an earlier attempt where that is safe.

    Transport errors, 408, 429 and 5xx are tried up to five times, 1, 2, 4 and 8 seconds apart or as Retry-After asks.

    Args:
        url: an http or https address.
        part: the file to write; it stays, for the next call, when the transfer is cut off.
        opening: characters one of which must come first (white space aside); nothing is written otherwise.
        progress: called with (url, bytes so far, bytes in total or None).
        wait: how to wait, in seconds.
        timeout: seconds without a byte after which a connection counts as lost.

    Raises:
        UsageError: the address is not http or https.
        DataError: the server refuses, answers with something else, or cannot be reached.
        RunError: the disk refuses.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url} is not an http or https address")
    problem = ""
    for attempt in range(ATTEMPTS):
        try:
            _transfer(url, part, opening, progress, timeout)
            return
        except _Interrupted as error:
            problem = str(error)
            if attempt + 1 < ATTEMPTS:
                wait(min(max(2.0**attempt, error.wait), LONGEST_WAIT))
        except OSError as error:
            raise RunError(f"{part} cannot be written: {error.strerror or error}") from error
    resumable = _size(part) if _tag(part).exists() and _tag(part).read_text() else 0
    kept = (
        f" The {resumable:,} bytes that came are kept; the same command continues."
        if resumable
        else ""
    )
    raise DataError(f"{url} could not be fetched in {ATTEMPTS} attempts: {problem}.{kept}")


def publish(part: Path, final: Path) -> None:
    """Give a fetched and checked file its real name."""
    part.replace(final)
    _tag(part).unlink(missing_ok=True)


def discard(part: Path) -> None:
    """Remove a fetched file that is wrong."""
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Be the only one to download into a folder, which is made if need be.

    Raises:
        UsageError: another download is at work there.
        DataError: the folder cannot be made.
    """
    import filelock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".download.lock")
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise UsageError(
            f"another download is writing to {folder}; wait for it or choose another folder"
        ) from error
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def read_manifest(folder: Path) -> dict[str, Entry]:
    """The manifest of a folder: entries by path relative to it; empty when there is none.

    Raises:
        DataError: `manifest.json` is something else, which must not be overwritten.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Manifest).files
    except msgspec.DecodeError as error:
        raise DataError(
            f"{path} is no download manifest ({error}); move it away or choose another folder"
        ) from error


def write_manifest(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Replace the manifest of a folder."""
    fresh = folder / f"{MANIFEST}.new"
    text = msgspec.json.format(
        msgspec.json.encode(_Manifest(dict(entries)), order="sorted"), indent=1
    )
    fresh.write_bytes(text + b"\n")
    fresh.replace(folder / MANIFEST)


def describe(
    path: Path, url: str, count: int, notes: tuple[str, ...] = (), unfilled: bool = False
) -> Entry:
    """The manifest entry of a file that has just passed its checks."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Entry(url, _sha256(path), path.stat().st_size, now, count, notes, unfilled)


def intact(path: Path, entry: Entry | None) -> bool:
    """Whether a file is there and still what the manifest says."""
    return (
        entry is not None
        and path.is_file()
        and _size(path) == entry.bytes
        and _sha256(path) == entry.sha256
    )


def excerpt(content: bytes) -> str:
    """The first 80 characters of what came back, on one line."""
    return repr(" ".join(content[:320].decode(errors="replace").split())[:80])


def _transfer(
    url: str, part: Path, opening: bytes, progress: Progress | None, timeout: float
) -> None:
    """One attempt; returns when `part` is complete."""
    part.parent.mkdir(parents=True, exist_ok=True)
    tag = _tag(part).read_text() if _tag(part).exists() else ""
    offset = _size(part) if tag else 0
    headers = {"User-Agent": f"personabench/{__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": tag}
    response = _open(urllib.request.Request(url, headers=headers), timeout)
    with contextlib.closing(response):
        span = re.fullmatch(
            r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip()
        )
        if response.status == 416:
            if span and span[2] == str(offset):
                return
            discard(part)
            raise _Interrupted("the kept part is longer than the file")
        if response.status == 206:
            same = _validator(response.headers) in ("", tag)
            if not offset or not span or span[1] != str(offset) or not same:
                discard(part)
                raise _Interrupted("the server sent another range or version than asked")
            total = int(span[2]) if span[2] != "*" else _length(response, offset)
            first = b""
        else:
            offset, total = 0, _length(response, 0)
            first = _read(response)
            if opening and first.lstrip()[:1] not in {
                opening[i : i + 1] for i in range(len(opening))
            }:
                what = f"it begins with {excerpt(first)}" if first else "nothing came"
                raise DataError(f"{url} answered with something else than the file: {what}")
        with part.open("ab" if offset else "wb") as file:
            if not offset:
                _tag(part).write_text(_validator(response.headers))
            done, chunk = offset, first or _read(response)
            while chunk:
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(url, done, total)
                chunk = _read(response)
    if total is not None and done != total:
        raise _Interrupted(f"the connection ended after {done:,} of {total:,} bytes")


def _open(request: urllib.request.Request, timeout: float) -> Any:
    """The response to a request, 416 included."""
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and request.has_header("Range"):
            return error
        with error:
            if error.code in (408, 429) or error.code >= 500:
                asked = error.headers.get("Retry-After", "")
                raise _Interrupted(
                    f"status {error.code}", float(asked) if asked.isdecimal() else 0.0
                ) from error
            raise DataError(
                f"{request.full_url} answered with status {error.code} ({error.reason}): {excerpt(_read(error))}"
            ) from error
    except (http.client.InvalidURL, UnicodeError) as error:
        raise UsageError(f"{request.full_url} is not an address: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(
            str(getattr(error, "reason", "") or error or type(error).__name__)
        ) from error


def _read(response: Any) -> bytes:
    try:
        data: bytes = response.read(CHUNK)
    except http.client.IncompleteRead as error:
        raise _Interrupted("the connection ended in the middle of a chunk") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from error
    return data


def _length(response: Any, offset: int) -> int | None:
    """The size of the whole file in bytes, None where the server does not say."""
    return None if response.length is None else offset + int(response.length)


def _validator(headers: Message) -> str:
    """What names this version of the file in If-Range: a strong ETag, else the date; empty allows no resuming."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _tag(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Downloads of whole sets: the part that the tasks share.

HUB = "https://huggingface.co"
_COMMIT = re.compile(r"/resolve/([0-9a-f]{40})(?:/|$)")


class Checked(msgspec.Struct, frozen=True):
    """Result of a check: the number of records, notes for the manifest, and missing texts."""

    count: int
    notes: tuple[str, ...] = ()
    unfilled: bool = False


def download_files(
    folder: Path,
    openings: Mapping[str, bytes],
    root: Callable[[Mapping[str, Entry]], str],
    check: Callable[[Sequence[Path]], Checked],
    *,
    remedy: str,
    adopt: bool = True,
    progress: Progress | None = None,
    notice: Callable[[str], None] = warnings.warn,
    wait: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Fetch the files of a set into a folder, check them and record them in the manifest.

    A set that the manifest knows unchanged is not fetched again, and an existing file is never
    overwritten.

    Args:
        folder: receives the files and the manifest.
        openings: for each file, by its path in the folder, the characters it may begin with.
        root: returns the address above the files, given the manifest; called before a fetch only.
        check: called after each file with the paths of all files so far, and describes the last
            one; raises DataError for wrong content. After an unfilled file no more are fetched.
        remedy: advice that ends every error message.
        adopt: accept an existing file that passes the check though the manifest does not know it.
        progress: called with (url, bytes so far, bytes in total or None).
        notice: receives the notes of the files.
        wait: sleeps between attempts, in seconds.

    Returns:
        The paths of the files.

    Raises:
        UsageError: another download is writing to the folder.
        DataError: a file cannot be fetched or is not the data.
    """
    with exclusive(folder):
        manifest = read_manifest(folder)
        entries = _complete_entries(folder, openings, manifest)
        parts: dict[str, Path] = {}

        if not entries:
            address = root(manifest).rstrip("/")
            paths: list[Path] = []
            for name, opening in openings.items():
                url = f"{address}/{name}"
                path = _obtain(folder / name, url, opening, adopt, remedy, progress, wait)
                if path != folder / name:
                    parts[name] = path
                paths.append(path)

                checked = _check_last(paths, parts, check, url, remedy)
                entry = manifest.get(name)
                if entry is None or not intact(path, entry):
                    origin = url if name in parts else ""
                    entry = describe(path, origin, checked.count, checked.notes, checked.unfilled)
                entries[name] = entry
                if entry.unfilled:
                    break

            # No file gets its final name before all have passed: half a set must not look whole.
            for name, part in parts.items():
                publish(part, folder / name)
            write_manifest(folder, {**manifest, **entries})

    for name, entry in entries.items():
        for note in entry.notes:
            notice(f"{name}: {note}")
    return [folder / name for name in entries]


def pinned_commit(entries: Iterable[Entry]) -> str | None:
    """Commit of the Hugging Face dataset that files came from; None if no address names one."""
    for entry in entries:
        match = _COMMIT.search(entry.url)
        if match:
            return match[1]
    return None


def newest_commit(dataset: str, endpoint: str = HUB) -> str:
    """Commit that the main branch of a Hugging Face dataset names now; errors are the client's."""
    import huggingface_hub

    api = huggingface_hub.HfApi(endpoint=endpoint.rstrip("/"))
    return str(api.dataset_info(dataset, timeout=30).sha)


def _complete_entries(
    folder: Path, names: Iterable[str], manifest: Mapping[str, Entry]
) -> dict[str, Entry]:
    """Manifest entries of a set whose files are all intact, else nothing."""
    entries: dict[str, Entry] = {}
    for name in names:
        entry = manifest.get(name)
        if entry is None or not intact(folder / name, entry):
            return {}
        entries[name] = entry
        if entry.unfilled:
            break
    return entries


def _obtain(
    final: Path,
    url: str,
    opening: bytes,
    adopt: bool,
    remedy: str,
    progress: Progress | None,
    wait: Callable[[float], None],
) -> Path:
    """Return an existing file, or the fetched `.part` file beside its final name."""
    if final.exists():
        if adopt:
            return final
        raise DataError(
            f"{final} exists but is not the file that the manifest records; "
            "move it away to have it fetched"
        )

    part = final.with_name(f"{final.name}.part")
    try:
        fetch(url, part, opening=opening, progress=progress, wait=wait)
    except DataError as error:
        raise DataError(f"{str(error).rstrip('.')}. {remedy}") from error
    return part


def _check_last(
    paths: Sequence[Path],
    parts: Mapping[str, Path],
    check: Callable[[Sequence[Path]], Checked],
    url: str,
    remedy: str,
) -> Checked:
    """Check the last of some files; if it is wrong, discard everything that was fetched."""
    try:
        return check(paths)
    except DataError as error:
        for part in parts.values():
            discard(part)
        path = paths[-1]
        if path in parts.values():
            message = f"{url} is not the data: {error}. Nothing was kept. {remedy}"
        else:
            message = f"{path} is not the data: {error}. Move it away to have it fetched."
        raise DataError(message) from error
