"""Download of U-SafeBench v1.1, with checks of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

from personabench.api import downloads
from personabench.errors import DataError, UsageError
from personabench.tasks.usafebench.files import ROWS, read_rows

# The commit that added v1.1; later ones may hold another version.
COMMIT = "63871dbe82dcac5c274d07de3706a70614d04f3e"
ROOT = f"https://raw.githubusercontent.com/yeonjun-in/U-SafeBench/{COMMIT}/data"
SPLIT = "v1.1"
REMEDY = "Check the address, or pass your own copy of the folder with --data DIR."


def download(
    task: str,
    split: str,
    target: Path,
    *,
    base_url: str = ROOT,
    rows: Mapping[str, int] = ROWS,
    **options: Unpack[downloads.TransferOptions],
) -> list[Path]:
    """Fetch and check both files, into `target/usafebench`.

    Args:
        task: name of the task, for messages.
        split: "v1.1", the only one.
        base_url: the address above the files.
        rows: the files and their numbers of rows.
        options: see `TransferOptions`.

    Raises:
        UsageError: no such split, or another download is writing to the folder.
        DataError: the content is not the data; the message names the address and a remedy.
    """
    if split != SPLIT:
        raise UsageError(f"{task} has no split '{split}'; it has: {SPLIT}")

    names = list(rows)

    def check(paths: Sequence[Path]) -> downloads.CheckedFile:
        # A fetched file does not have its final name yet, so its place tells which one it is.
        name = names[len(paths) - 1]
        count = len(read_rows(paths[-1]))
        if count != rows[name]:
            raise DataError(f"{count} rows, but {name} has {rows[name]}")
        return downloads.CheckedFile(count)

    return downloads.download_files(
        target / "usafebench",
        dict.fromkeys(names, b"["),
        lambda _: base_url,
        check,
        remedy=REMEDY,
        **options,
    )
