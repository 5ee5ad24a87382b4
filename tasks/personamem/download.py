"""The official PersonaMem files from their hub, at one pinned revision, kept only when they keep their own rules.

The hub serves a file of a dataset at `datasets/OWNER/NAME/resolve/REVISION/FILE`; a mirror with that layout can be
named instead.  The published configuration lists the questions only, so both files are asked for by name.  The dataset
was renamed to PersonaMem-v1 on the hub; the old address leads there.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

from personabench.api import downloads
from personabench.errors import DataError
from personabench.tasks.personamem.files import (
    KNOWN,
    SPLITS,
    Contexts,
    defects,
    locate,
    read_questions,
)

BASE_URL = "https://huggingface.co"
DATASET = "bowen-upenn/PersonaMem"
REVISION = "a8076d5608c93ba2a28983cd78aa99b01a163ae7"
SIZES = {"32k": (589, 37), "128k": (2727, 110), "1M": (2674, 33)}
"""Questions and conversations of each split, as published."""

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

    A file that is already there is never overwritten: it counts when it passes the same checks.  The folder's
    `manifest.json` states origin, SHA-256, size, time and number of records of each file.

    Args:
        split: "32k", "128k" or "1M".
        base_url: the hub, or a mirror with its layout.
        revision: the commit of the dataset.
        expected: numbers of questions and conversations, instead of the published ones.
        progress: called with (url, bytes so far, bytes in total or None).
        notice: told what does not stop the download, such as a file that is not the one this project knows.
        wait: how to wait between attempts, in seconds.

    Raises:
        UsageError: no such split, or another download is at work in the folder.
        DataError: what came back, or already stands there, is not the data; the message names address and remedy.
    """
    if split not in SPLITS:
        locate(split, target)
    folder = target / "personamem"
    names = f"questions_{split}.csv", f"shared_contexts_{split}.jsonl"
    openings = b"p", b"{"
    fetched: dict[Path, str] = {}
    with downloads.exclusive(folder):
        manifest = downloads.read_manifest(folder)
        if all(downloads.intact(folder / name, manifest.get(name)) for name in names):
            return [folder / name for name in names]
        paths = []
        for name, opening in zip(names, openings, strict=True):
            final = folder / name
            url = f"{base_url.rstrip('/')}/datasets/{DATASET}/resolve/{revision}/{name}"
            paths.append(final)
            if not final.exists():
                paths[-1] = final.with_name(f"{name}.part")
                fetched[paths[-1]] = url
                try:
                    downloads.fetch(url, paths[-1], opening=opening, progress=progress, wait=wait)
                except DataError as error:
                    raise DataError(f"{str(error).rstrip('.')}. {REMEDY}") from error
        try:
            counts = _checked(paths[0], paths[1], split, expected or SIZES[split])
        except DataError as error:
            for part in fetched:
                downloads.discard(part)
            kept = "Nothing was kept." if fetched else "Move the files away to have them fetched."
            raise DataError(
                f"{' and '.join(fetched.values()) or folder}: not the data: {error}. {kept} {REMEDY}"
            ) from error
        entries = dict(manifest)
        for path, name, count in zip(paths, names, counts, strict=True):
            known = manifest.get(name)
            if known is None or not downloads.intact(path, known):
                known = downloads.describe(path, fetched.get(path, ""), count)
            entries[name] = known
            if name in KNOWN and known.sha256 != KNOWN[name]:
                notice(
                    f"{name} passed the checks but is not the version this project knows: SHA-256 {known.sha256}"
                )
            if path in fetched:
                downloads.publish(path, folder / name)
        downloads.write_manifest(folder, entries)
    return [folder / name for name in names]


def _checked(
    questions: Path, contexts: Path, split: str, expected: tuple[int, int]
) -> tuple[int, int]:
    """The numbers of questions and conversations of two files that keep every rule.

    Raises:
        DataError: with what is wrong.
    """
    table, stored = read_questions(questions), Contexts(contexts)
    counts = len(table.questions), len(stored)
    if counts != expected:
        raise DataError(
            f"{counts[0]:,} questions and {counts[1]:,} conversations, but {split} has {expected[0]:,} and "
            f"{expected[1]:,}"
        )
    if broken := list(defects(table.questions, stored)):
        raise DataError(f"{len(broken)} breaches of the files' own rules, the first: {broken[0]}")
    return counts
