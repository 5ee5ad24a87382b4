"""Download of PersonaMem-v2: the table, then the histories of a split that it lists, no others.

The folder of histories holds those of a thousand personas, and the table names 200 of them.  Each
file gets its final name as soon as it has passed its check, so that an interrupted download
continues with the next one.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from personabench.api import downloads
from personabench.errors import DataError
from personabench.tasks.personamem_v2.files import (
    FILE,
    FOLDER,
    PUBLISHED_HASHES,
    check_split,
    read_history,
    read_rows,
)

DATASET = "bowen-upenn/PersonaMem-v2"
# Published numbers of questions and personas.
SIZE = (5000, 200)
REMEDY = "Check the address, or pass your own copy of the dataset with --data DIR."


def download(
    split: str,
    target: Path,
    *,
    base_url: str = downloads.HUB,
    revision: str = "main",
    expected: tuple[int, int] = SIZE,
    progress: downloads.Progress | None = None,
    notice: Callable[[str], None] = warnings.warn,
    wait: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Fetch and check the table and the histories of a split into `target/personamem_v2`.

    The data are CC BY 4.0.  SHA-256, size and origin of every file are recorded in the folder's
    `manifest.json` when it is fetched.

    Args:
        split: "32k" (42 MB of table, about 34 MB of histories) or "128k" (about 130 MB).
        base_url: the hub, or a mirror with its layout.
        revision: branch or commit of the dataset.
        expected: numbers of questions and personas.
        progress: called with (url, bytes so far, bytes in total or None).
        notice: called with warnings, such as an unknown version of the table.
        wait: called with the seconds to wait between attempts.

    Raises:
        UsageError: no such split, or another download is writing to the folder.
        DataError: the content is not the data; the message names the address and a remedy.
    """
    check_split(split)
    folder = target / "personamem_v2"
    address = f"{base_url.rstrip('/')}/datasets/{DATASET}/resolve/{revision}"

    def fetch(
        name: str, opening: bytes, check: Callable[[Sequence[Path]], downloads.CheckedFile]
    ) -> Path:
        (path,) = downloads.download_files(
            folder,
            {name: opening},
            lambda _: address,
            check,
            remedy=REMEDY,
            progress=progress,
            notice=notice,
            wait=wait,
        )
        return path

    def check_table(paths: Sequence[Path]) -> downloads.CheckedFile:
        rows = read_rows(paths[-1], split)
        size = len(rows), len({row.persona for row in rows})
        if size != expected:
            raise DataError(
                f"{size[0]:,} questions of {size[1]} personas, but PersonaMem-v2 has "
                f"{expected[0]:,} of {expected[1]}"
            )
        return downloads.CheckedFile(len(rows))

    name = str(FOLDER / FILE)
    # The first character of a table: of the name of a column, or a quote around it.
    path = fetch(name, b'cpst"_', check_table)
    _warn_of_version(folder, name, notice)
    links = dict.fromkeys(row.link for row in read_rows(path, split))
    histories = [fetch(link, b"{[", _check_history) for link in links]
    return [path, *histories]


def _check_history(paths: Sequence[Path]) -> downloads.CheckedFile:
    history = read_history(paths[-1])
    notes: tuple[str, ...] = ()
    if history.rejected:
        positions = ", ".join(map(str, history.rejected[:5]))
        notes = (f"{len(history.rejected)} broken messages, at {positions}",)
    return downloads.CheckedFile(len(history.turns), notes)


def _warn_of_version(folder: Path, name: str, notice: Callable[[str], None]) -> None:
    digest = downloads.read_manifest(folder)[name].sha256
    if digest != PUBLISHED_HASHES[FILE]:
        notice(
            f"{name} passed the checks but is not the version this project knows: SHA-256 {digest}"
        )
