"""Download of LongMemEval's cleaned files, with a check of the number of questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from personabench.api import downloads
from personabench.errors import DataError
from personabench.tasks.longmemeval.files import FILES, Questions, check_split

DATASET = "xiaowu0162/longmemeval-cleaned"
SIZE = 500
REMEDY = "Check the address, or pass your own copy of the official file with --data FILE."


def download(
    split: str,
    target: Path,
    *,
    base_url: str = downloads.HUB,
    expected: int = SIZE,
    **options: Unpack[downloads.TransferOptions],
) -> list[Path]:
    """Fetch and check the file of a split into `target/longmemeval`.

    Args:
        split: "oracle" (15 MB), "s" (277 MB) or "m" (2.7 GB).
        base_url: the hub, or a mirror with its layout.
        expected: the number of questions.
        options: see `TransferOptions`.

    Raises:
        UsageError: no such split, or another download is writing to the folder.
        DataError: the content is not the data; the message names the address and a remedy.
    """
    check_split(split)

    def check(paths: Sequence[Path]) -> downloads.CheckedFile:
        questions = Questions(paths[-1])
        if len(questions) != expected:
            raise DataError(f"{len(questions):,} questions, but LongMemEval has {expected:,}")
        # Decodes every entry, one at a time.
        for _ in questions:
            pass
        return downloads.CheckedFile(len(questions))

    return downloads.download_files(
        target / "longmemeval",
        {FILES[split]: b"["},
        lambda _: f"{base_url.rstrip('/')}/datasets/{DATASET}/resolve/main",
        check,
        remedy=REMEDY,
        **options,
    )
