"""Downloads of benchmark files over HTTP: complete, in the right version, or not at all.

Benchmark files are large, and their servers drop connections, ignore ranges and answer with web
pages.  `fetch` writes one address into a `.part` file, continues an earlier attempt as long as the
server still offers the same version (If-Range), and retries transient failures.  It never makes the
final file: the caller checks the content first and then calls `publish`.  A manifest beside the
files records their sources.
"""

# The standard library transfers the bytes.  `datasets.DownloadManager` (5.2) restarts a truncated
# file from zero, ignores `max_retries`, reports a status 500 as FileNotFoundError, and cannot check
# a file before it keeps it.

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

import msgspec

from personabench.api.transfer import (
    Progress,
    TransferInterrupted,
    discard,
    excerpt,
    file_size,
    is_resumable,
    transfer,
    version_path,
)
from personabench.errors import DataError, RunError, UsageError
from personabench.models.environment import refuse_download

__all__ = [
    "ATTEMPTS",
    "MANIFEST",
    "ManifestEntry",
    "Progress",
    "TransferOptions",
    "describe",
    "discard",
    "excerpt",
    "fetch",
    "hash_file",
    "is_intact",
    "lock_folder",
    "publish",
    "read_manifest",
    "write_manifest",
]

MANIFEST = "manifest.json"
ATTEMPTS = 5

# Longer waits look like a hang; a server that needs more is better tried again later by hand.
MAX_WAIT = 60.0


class ManifestEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file of the manifest.

    Attributes:
        url: the source; empty for a file that was already there.
        sha256, bytes: of the file as it was checked.
        time: of the check, ISO 8601 in UTC.
        count: number of records.
        notes: defects that the checks reported.
        unfilled: True if the file refers to texts that must be obtained elsewhere.
    """

    url: str
    sha256: str
    bytes: int
    time: str
    count: int
    notes: tuple[str, ...] = ()
    unfilled: bool = False


class _Manifest(msgspec.Struct):
    files: dict[str, ManifestEntry]


def fetch(
    url: str,
    part: Path,
    *,
    opening: bytes = b"",
    progress: Progress | None = None,
    wait: Callable[[float], None] = time.sleep,
    timeout: float = 60.0,
) -> None:
    """Fetch the whole of `url` into `part`, continuing an earlier attempt if that is safe.

    Transport errors, 408, 429 and 5xx are tried up to five times, 1, 2, 4 and 8 seconds apart or as
    Retry-After requests.

    Args:
        url: an http or https address.
        part: the file to write; it stays, for the next call, when the transfer is interrupted.
        opening: characters one of which must come first (white space aside); nothing is written
            otherwise.
        progress: called with (url, bytes so far, bytes in total or None).
        wait: sleeps for a number of seconds.
        timeout: seconds without a byte after which a connection counts as lost.

    Raises:
        UsageError: the address is not http or https.
        DataError: the server refuses, returns something else, or cannot be reached.
        RunError: the part file cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url} is not an http or https address")

    problem = ""
    for attempt in range(ATTEMPTS):
        try:
            transfer(url, part, opening, progress, timeout)
            return
        except TransferInterrupted as error:
            problem = str(error)
            if attempt + 1 < ATTEMPTS:
                backoff = max(2.0**attempt, error.wait)
                wait(min(backoff, MAX_WAIT))
        except OSError as error:
            raise RunError(f"{part} cannot be written: {error.strerror or error}") from error

    size = file_size(part) if is_resumable(part) else 0
    resume = f" The {size:,} bytes received are kept; the same command continues." if size else ""
    raise DataError(f"{url} could not be fetched in {ATTEMPTS} attempts: {problem}.{resume}")


def publish(part: Path, final: Path) -> None:
    """Give a fetched and checked file its final name."""
    part.replace(final)
    version_path(part).unlink(missing_ok=True)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Create a folder if necessary and lock it against other downloads.

    Raises:
        UsageError: another download is running.
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


def read_manifest(folder: Path) -> dict[str, ManifestEntry]:
    """Read the manifest of a folder: entries by path relative to it; empty without one.

    Raises:
        DataError: `manifest.json` is another file, which must not be overwritten.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {}

    try:
        return msgspec.json.decode(path.read_bytes(), type=_Manifest).files
    except msgspec.DecodeError as error:
        raise DataError(
            f"{path} is not a download manifest ({error}); move it away or choose another folder"
        ) from error


def write_manifest(
    folder: Path,
    entries: Mapping[str, ManifestEntry],
) -> None:
    """Replace the manifest of a folder."""
    encoded = msgspec.json.encode(_Manifest(dict(entries)), order="sorted")
    text = msgspec.json.format(encoded, indent=1)

    # Written beside and renamed, so that an interrupt leaves the old manifest.
    temporary = folder / f".{secrets.token_hex(8)}.tmp"
    with temporary.open("xb") as file:
        file.write(text + b"\n")
    temporary.replace(folder / MANIFEST)


def describe(
    path: Path,
    url: str,
    count: int,
    notes: tuple[str, ...] = (),
    unfilled: bool = False,
) -> ManifestEntry:
    """Describe a file that has just passed its checks, for the manifest."""
    now = datetime.now(UTC)
    return ManifestEntry(
        url=url,
        sha256=hash_file(path),
        bytes=path.stat().st_size,
        time=now.isoformat(timespec="seconds"),
        count=count,
        notes=notes,
        unfilled=unfilled,
    )


def is_intact(path: Path, entry: ManifestEntry | None) -> bool:
    """Whether a file exists and still matches the manifest."""
    if entry is None or not path.is_file():
        return False
    # The size first: it is free, and hashing a large file takes seconds.
    return file_size(path) == entry.bytes and hash_file(path) == entry.sha256


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Downloads of whole sets: the part that the tasks share.

HUB = "https://huggingface.co"
_COMMIT = re.compile(r"/resolve/([0-9a-f]{40})(?:/|$)")


class CheckedFile(msgspec.Struct, frozen=True):
    """Result of a check: the number of records, notes for the manifest, and missing texts."""

    count: int
    notes: tuple[str, ...] = ()
    unfilled: bool = False


class TransferOptions(TypedDict, total=False):
    """Options of `download_files` that a task's download passes on.

    Keys:
        progress: called with (url, bytes so far, bytes in total or None).
        notice: called with warnings.
        wait: sleeps between attempts, in seconds.
    """

    progress: Progress | None
    notice: Callable[[str], None]
    wait: Callable[[float], None]


def download_files(
    folder: Path,
    openings: Mapping[str, bytes],
    root: Callable[[Mapping[str, ManifestEntry]], str],
    check: Callable[[Sequence[Path]], CheckedFile],
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
    with lock_folder(folder):
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
                if entry is None or not is_intact(path, entry):
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


def pinned_commit(entries: Iterable[ManifestEntry]) -> str | None:
    """Commit of the Hugging Face dataset that files came from; None if no address names one."""
    for entry in entries:
        match = _COMMIT.search(entry.url)
        if match:
            return match[1]
    return None


def newest_commit(dataset: str, endpoint: str | None = None) -> str:
    """Commit that the main branch of a Hugging Face dataset names now; errors are the client's.

    Without an `endpoint` the client chooses one.
    """
    import huggingface_hub

    refuse_download(f"the newest version of {dataset}", endpoint or HUB)
    api = huggingface_hub.HfApi(endpoint=endpoint.rstrip("/") if endpoint else None)
    return str(api.dataset_info(dataset, timeout=30).sha)


def list_dataset(
    dataset: str, endpoint: str = HUB, revision: str | None = None
) -> tuple[str, list[str]]:
    """Return a commit of a Hugging Face dataset, the newest by default, and its files' paths.

    Raises:
        DataError: the hub does not answer, or has no such dataset.
    """
    import huggingface_hub

    refuse_download(f"the files of {dataset}", endpoint)
    api = huggingface_hub.HfApi(endpoint=endpoint.rstrip("/"))
    try:
        info = api.dataset_info(dataset, revision=revision, timeout=30)
    except Exception as error:
        raise DataError(f"{endpoint} lists no files of the dataset {dataset}: {error}") from error
    return str(info.sha), sorted(sibling.rfilename for sibling in info.siblings or ())


def _complete_entries(
    folder: Path, names: Iterable[str], manifest: Mapping[str, ManifestEntry]
) -> dict[str, ManifestEntry]:
    """Manifest entries of a set whose files are all intact, else nothing."""
    entries: dict[str, ManifestEntry] = {}
    for name in names:
        entry = manifest.get(name)
        if entry is None or not is_intact(folder / name, entry):
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
    check: Callable[[Sequence[Path]], CheckedFile],
    url: str,
    remedy: str,
) -> CheckedFile:
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
