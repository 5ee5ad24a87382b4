"""Download of PrefDisco's released record files, checked before they are kept.

A set is one file, `benchmark_1k/<task>/train.jsonl` or `benchmark_5k/...`.  Images are not fetched,
because no model is sent any.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from personabench.api import downloads
from personabench.errors import UsageError
from personabench.tasks.prefdisco.data import RELEASED
from personabench.tasks.prefdisco.files import LARGE, read_records
from personabench.tasks.prefdisco.sources import SOURCES

DATASET = "stellalisy/prefq-bench"
REMEDY = "Check the address, or pass your own copy of the file with --data DIR."


def download(
    split: str,
    target: Path,
    *,
    base_url: str = downloads.HUB,
    revision: str | None = None,
    expected: int | None = None,
    progress: downloads.Progress | None = None,
    notice: Callable[[str], None] = warnings.warn,
    wait: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Fetch and check a set into `target/prefdisco`; an intact file is not fetched again.

    Args:
        split: `math` or any other of the ten tasks, or `5k/medqa` and the three others of that
            size.
        target: the folder that receives `prefdisco/`.
        base_url: the hub, or a mirror with its layout.
        revision: commit of the dataset (default: the folder's, else the newest).
        expected: number of records (default: of the released set).
        progress: called with (url, bytes so far, bytes in total or None).
        notice: receives warnings that do not stop the download.
        wait: sleeps between attempts, in seconds.

    Raises:
        UsageError: there is no such set, or another download is writing to the folder.
        DataError: the response is not the data; the message names address and remedy.
    """
    size, task = _split_name(split)
    name = f"benchmark_{size}/{task}/train.jsonl"
    problems, personas = RELEASED[size]
    expected_count = expected or problems * personas

    def find_root(manifest: Mapping[str, downloads.ManifestEntry]) -> str:
        # All sets of a folder come from one commit, so that versions never mix in a comparison.
        commit = revision or downloads.pinned_commit(manifest.values())
        if commit is None:
            commit = _find_newest(base_url, notice)
        return f"{base_url.rstrip('/')}/datasets/{DATASET}/resolve/{commit}"

    def check(paths: Sequence[Path]) -> downloads.CheckedFile:
        records = read_records(paths[-1])
        count = len(records.entries)
        if count != expected_count:
            notice(f"{name} has {count:,} usable records; expected {expected_count:,}")
        return downloads.CheckedFile(count, tuple(records.warnings()))

    return downloads.download_files(
        target / "prefdisco",
        {name: b"{"},
        find_root,
        check,
        remedy=REMEDY,
        adopt=False,
        progress=progress,
        notice=notice,
        wait=wait,
    )


def _split_name(split: str) -> tuple[str, str]:
    """Size and task of a released set.

    Raises:
        UsageError: there is no such set.
    """
    size, _, task = split.rpartition("/")
    if task in SOURCES and size in ("", "1k"):
        return "1k", task
    if task in LARGE and size == "5k":
        return size, task

    small = ", ".join(SOURCES)
    large = ", ".join(f"5k/{name}" for name in LARGE)
    raise UsageError(
        f"prefdisco has no set '{split}' to fetch; choose --split {small}, "
        f"or of the large ones {large}"
    )


def _find_newest(base_url: str, notice: Callable[[str], None]) -> str:
    """Commit of the main branch, or the name of the branch if the address serves no commits."""
    try:
        return downloads.newest_commit(DATASET, base_url)
    except Exception as error:
        # A plain mirror serves files but has no API; its files can still be checked.
        notice(
            f"{base_url} names no commit of {DATASET} ({type(error).__name__}); "
            "fetching its branch main instead"
        )
        return "main"
