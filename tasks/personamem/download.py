"""Download of the official PersonaMem files at one pinned revision, with checks of their rules.

The hub serves a file of a dataset at `datasets/OWNER/NAME/resolve/REVISION/FILE`; a mirror with
that layout can be named instead. The published configuration lists only the questions, so both
files are requested by name. The dataset was renamed to PersonaMem-v1 on the hub; the old address
redirects to it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

from personabench.api import downloads
from personabench.errors import DataError
from personabench.tasks.personamem.files import (
    PUBLISHED_HASHES,
    SPLITS,
    Contexts,
    find_defects,
    locate,
    read_questions,
)

BASE_URL = "https://huggingface.co"
DATASET = "bowen-upenn/PersonaMem"
REVISION = "a8076d5608c93ba2a28983cd78aa99b01a163ae7"
# Published numbers of questions and conversations.
SIZES = {
    "32k": (589, 37),
    "128k": (2727, 110),
    "1M": (2674, 33),
}
REMEDY = "Check the address, or pass your own copy of the official files with --data DIR."


def download(
    split: str,
    target: Path,
    *,
    base_url: str = BASE_URL,
    revision: str = REVISION,
    expected: tuple[int, int] | None = None,
    progress: downloads.Progress | None = None,
    notice: Callable[[str], None] = warnings.warn,
    wait: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Fetch and check both files of a split into `target/personamem`.

    A file that is already present is never overwritten: it counts if it passes the same checks.
    The folder's `manifest.json` records origin, SHA-256, size, time and number of records of each
    file.

    Args:
        split: "32k", "128k" or "1M".
        base_url: the hub, or a mirror with its layout.
        revision: the commit of the dataset.
        expected: numbers of questions and conversations (default: the published ones).
        progress: called with (url, bytes so far, bytes in total or None).
        notice: called with warnings, such as an unknown version of a file.
        wait: called with the seconds to wait between attempts.

    Raises:
        UsageError: no such split, or another download is writing to the folder.
        DataError: the content is not the data; the message names the address and a remedy.
    """
    if split not in SPLITS:
        # Raises the error that lists the splits.
        locate(split, target)

    folder = target / "personamem"
    finals = [
        folder / f"questions_{split}.csv",
        folder / f"shared_contexts_{split}.jsonl",
    ]
    base = f"{base_url.rstrip('/')}/datasets/{DATASET}/resolve/{revision}"

    with downloads.lock_folder(folder):
        manifest = downloads.read_manifest(folder)
        if all(downloads.is_intact(final, manifest.get(final.name)) for final in finals):
            return finals

        urls = {final: f"{base}/{final.name}" for final in finals if not final.exists()}
        paths = [_fetch_file(final, urls.get(final), progress, wait) for final in finals]
        sizes = expected or SIZES[split]
        counts = _check_files(paths, folder, list(urls.values()), split, sizes)

        entries = dict(manifest)
        for final, path, count in zip(finals, paths, counts, strict=True):
            previous = manifest.get(final.name)
            entry = _make_entry(path, urls.get(final, ""), count, previous)
            entries[final.name] = entry
            _warn_of_version(final.name, entry, notice)
            if path != final:
                downloads.publish(path, final)
        downloads.write_manifest(folder, entries)
    return finals


def _fetch_file(
    final: Path,
    url: str | None,
    progress: downloads.Progress | None,
    wait: Callable[[float], None],
) -> Path:
    """Fetch a file to a temporary name; returns the path of the file to check."""
    if url is None:
        return final

    path = final.with_name(f"{final.name}.part")
    # The first byte of a question table (`persona_id`) or of a JSON object.
    opening = b"p" if final.suffix == ".csv" else b"{"
    try:
        downloads.fetch(url, path, opening=opening, progress=progress, wait=wait)
    except DataError as error:
        raise DataError(f"{str(error).rstrip('.')}. {REMEDY}") from error
    return path


def _check_files(
    paths: list[Path],
    folder: Path,
    urls: list[str],
    split: str,
    expected: tuple[int, int],
) -> tuple[int, int]:
    """Check both files; discards fetched ones that are not the data.

    Returns:
        The numbers of questions and conversations.

    Raises:
        DataError: with the first problem.
    """
    try:
        return _count_records(*paths, split, expected)
    except DataError as error:
        for path in paths:
            if path.suffix == ".part":
                downloads.discard(path)
        origin = " and ".join(urls) or str(folder)
        outcome = "Nothing was kept." if urls else "Move the files away to have them fetched."
        raise DataError(f"{origin}: not the data: {error}. {outcome} {REMEDY}") from error


def _count_records(
    questions_path: Path,
    contexts_path: Path,
    split: str,
    expected: tuple[int, int],
) -> tuple[int, int]:
    questions = read_questions(questions_path).questions
    contexts = Contexts(contexts_path)
    counts = len(questions), len(contexts)
    if counts != expected:
        raise DataError(
            f"{counts[0]:,} questions and {counts[1]:,} conversations, "
            f"but {split} has {expected[0]:,} and {expected[1]:,}"
        )

    defects = list(find_defects(questions, contexts))
    if defects:
        raise DataError(f"{len(defects)} breaches of the files' own rules, first: {defects[0]}")
    return counts


def _make_entry(
    path: Path,
    url: str,
    count: int,
    entry: downloads.ManifestEntry | None,
) -> downloads.ManifestEntry:
    # An unchanged file keeps its entry, which records where it came from.
    if entry is not None and downloads.is_intact(path, entry):
        return entry
    return downloads.describe(path, url, count)


def _warn_of_version(
    name: str, entry: downloads.ManifestEntry, notice: Callable[[str], None]
) -> None:
    published = PUBLISHED_HASHES.get(name)
    if published is not None and entry.sha256 != published:
        notice(
            f"{name} passed the checks but is not the version this project knows: "
            f"SHA-256 {entry.sha256}"
        )
