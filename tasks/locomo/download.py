"""Download of LoCoMo's official file, with checks of its numbers of conversations and questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from personabench.api import downloads
from personabench.errors import DataError, UsageError
from personabench.tasks.locomo.files import FILE, read_conversations

ROOT = "https://raw.githubusercontent.com/snap-research/locomo/main/data"
SPLIT = "all"
# Published numbers of conversations and questions.
SIZE = (10, 1986)
REMEDY = f"Check the address, or pass your own copy of {FILE} with --data FILE."


def download(
    split: str,
    target: Path,
    *,
    base_url: str = ROOT,
    expected: tuple[int, int] = SIZE,
    **options: Unpack[downloads.TransferOptions],
) -> list[Path]:
    """Fetch and check the file into `target/locomo`.

    The data are CC BY-NC 4.0.  A file that is already present is never overwritten: it counts if it
    passes the same checks.

    Args:
        split: "all", the only one.
        base_url: the address above the file.
        expected: numbers of conversations and questions.
        options: see `TransferOptions`.

    Raises:
        UsageError: no such split, or another download is writing to the folder.
        DataError: the content is not the data; the message names the address and a remedy.
    """
    if split != SPLIT:
        raise UsageError(f"locomo has no split '{split}'; it has: {SPLIT}")

    def check(paths: Sequence[Path]) -> downloads.CheckedFile:
        conversations = list(read_conversations(paths[-1]))
        count = sum(len(conversation.questions) for conversation in conversations)
        if (len(conversations), count) != expected:
            raise DataError(
                f"{len(conversations)} conversations with {count:,} questions, but LoCoMo has "
                f"{expected[0]} with {expected[1]:,}"
            )
        return downloads.CheckedFile(count)

    return downloads.download_files(
        target / "locomo",
        {FILE: b"["},
        lambda _: base_url,
        check,
        remedy=REMEDY,
        **options,
    )
