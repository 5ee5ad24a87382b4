"""Download of the official PersonaMem files at one pinned revision, with checks of their rules.

The hub serves a file of a dataset at `datasets/OWNER/NAME/resolve/REVISION/FILE`; a mirror with
that layout can be named instead. The published configuration lists only the questions, so both
files are requested by name. The dataset was renamed to PersonaMem-v1 on the hub; the old address
redirects to it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
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
    base_url: str = downloads.HUB,
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
    root = f"{base_url.rstrip('/')}/datasets/{DATASET}/resolve/{revision}"
    # The first characters of a question table (`persona_id`) and of a JSON object.
    openings = {f"questions_{split}.csv": b"p", f"shared_contexts_{split}.jsonl": b"{"}

    def check(paths: Sequence[Path]) -> downloads.CheckedFile:
        return _check_last(paths, split, expected or SIZES[split])

    paths = downloads.download_files(
        folder,
        openings,
        lambda _: root,
        check,
        remedy=REMEDY,
        progress=progress,
        notice=notice,
        wait=wait,
    )
    _warn_of_versions(folder, paths, notice)
    return paths


def _check_last(
    paths: Sequence[Path], split: str, expected: tuple[int, int]
) -> downloads.CheckedFile:
    """Check the question file, or the file of conversations against its questions.

    Raises:
        DataError: with the first problem.
    """
    questions_path, *contexts_paths = paths
    questions = read_questions(questions_path).questions
    if not contexts_paths:
        if len(questions) != expected[0]:
            raise DataError(f"{len(questions):,} questions, but {split} has {expected[0]:,}")
        return downloads.CheckedFile(len(questions))

    contexts = Contexts(contexts_paths[0])
    if len(contexts) != expected[1]:
        raise DataError(f"{len(contexts):,} conversations, but {split} has {expected[1]:,}")
    defects = list(find_defects(questions, contexts))
    if defects:
        raise DataError(f"{len(defects)} breaches of the files' own rules, first: {defects[0]}")
    return downloads.CheckedFile(len(contexts))


def _warn_of_versions(folder: Path, paths: Sequence[Path], notice: Callable[[str], None]) -> None:
    entries = downloads.read_manifest(folder)
    for path in paths:
        published = PUBLISHED_HASHES.get(path.name)
        digest = entries[path.name].sha256
        if published is not None and digest != published:
            notice(
                f"{path.name} passed the checks but is not the version this project knows: "
                f"SHA-256 {digest}"
            )
