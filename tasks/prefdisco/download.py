"""The released record files from their hub, kept only when they are what they should be.

A set is one file, `benchmark_1k/<task>/train.jsonl` or `benchmark_5k/...`; images are not sent to models and
not fetched.  The commit that the main branch names at the first download is kept in the manifest's addresses, and later
downloads into the folder ask for the same one, so that sets of different versions never mix.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from personabench.api import downloads
from personabench.errors import DataError, UsageError
from personabench.tasks.prefdisco.data import RELEASED
from personabench.tasks.prefdisco.files import LARGE, read
from personabench.tasks.prefdisco.sources import SOURCES

BASE_URL = "https://huggingface.co"
DATASET = "stellalisy/prefq-bench"
REMEDY = "Check the address, or pass your own copy of the file with --data DIR."


def download(
    split: str,
    target: Path,
    *,
    base_url: str = BASE_URL,
    revision: str | None = None,
    expected: int | None = None,
    progress: downloads.Progress | None = None,
    notice: Callable[[str], None] = warnings.warn,
    wait: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Fetch and check a set into `target/prefdisco`; a file that is there and intact is kept.

    Args:
        split: `math` or any other of the ten tasks, or `5k/medqa` and the three others of that size.
        base_url: the hub, or a mirror with its layout.
        revision: the commit of the dataset, instead of the folder's or the newest.
        expected: number of records, instead of the released one.
        progress: called with (url, bytes so far, bytes in total or None).
        notice: told what does not stop the download; wait: how to wait between attempts, in seconds.

    Raises:
        UsageError: no such set, or another download is at work in the folder.
        DataError: what came back is not the data; the message names address and remedy.
    """
    size, _, task = split.rpartition("/")
    size = size or "1k"
    if (size, task) not in {*(("1k", name) for name in SOURCES), *(("5k", name) for name in LARGE)}:
        raise UsageError(
            f"prefdisco has no set '{split}' to fetch; choose --split {', '.join(SOURCES)}, "
            f"or of the large ones {', '.join(f'5k/{name}' for name in LARGE)}"
        )
    folder = target / "prefdisco"
    name = f"benchmark_{size}/{task}/train.jsonl"
    final = folder / name
    with downloads.exclusive(folder):
        manifest = downloads.read_manifest(folder)
        if downloads.intact(final, manifest.get(name)):
            return [final]
        if final.exists():
            raise DataError(
                f"{final} is there but not what the manifest says; move it away to have it fetched"
            )
        pinned = revision or _pinned(manifest) or _newest(base_url, notice)
        url = f"{base_url.rstrip('/')}/datasets/{DATASET}/resolve/{pinned}/{name}"
        part = final.with_name(f"{final.name}.part")
        try:
            downloads.fetch(url, part, opening=b"{", progress=progress, wait=wait)
        except DataError as error:
            raise DataError(f"{str(error).rstrip('.')}. {REMEDY}") from error
        try:
            loaded = read(part)
        except DataError as error:
            downloads.discard(part)
            raise DataError(f"{url}: not the data: {error}. Nothing was kept. {REMEDY}") from error
        problems, personas = RELEASED[size]
        wanted = expected or problems * personas
        if len(loaded.entries) != wanted:
            notice(f"{name} has {len(loaded.entries):,} usable records, {wanted:,} were expected")
        entry = downloads.describe(part, url, len(loaded.entries), tuple(loaded.warnings()))
        downloads.publish(part, final)
        downloads.write_manifest(folder, {**manifest, name: entry})
    return [final]


def _pinned(manifest: Mapping[str, downloads.Entry]) -> str | None:
    """The commit of the sets that are there already."""
    found = (re.search(r"/resolve/([0-9a-f]{40})/", entry.url) for entry in manifest.values())
    return next((commit[1] for commit in found if commit), None)


def _newest(base_url: str, notice: Callable[[str], None]) -> str:
    """The commit of the main branch; the branch itself, told, where the address does not know commits."""
    import huggingface_hub

    try:
        return str(
            huggingface_hub.HfApi(endpoint=base_url.rstrip("/"))
            .dataset_info(DATASET, timeout=30)
            .sha
        )
    except Exception as error:
        notice(
            f"{base_url} names no commit of {DATASET} ({type(error).__name__}); its branch main is fetched"
        )
        return "main"
