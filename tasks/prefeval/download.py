"""Download of PrefEval's files, with checks of topics, rows and filler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

import msgspec

from personabench.api import downloads
from personabench.errors import DataError, UsageError
from personabench.tasks.prefeval.files import (
    FILLER,
    FORM_FOLDERS,
    OPTIONS_FOLDER,
    TOPICS,
    read_filler,
    read_topic,
)

ROOT = "https://raw.githubusercontent.com/amazon-science/PrefEval/main/benchmark_dataset"
SPLIT = "all"
# Published number of exchanges.
FILLER_SIZE = 316
REMEDY = "Check the address, or pass your own copy of benchmark_dataset with --data DIR."


def download(
    task: str,
    split: str,
    target: Path,
    *,
    base_url: str = ROOT,
    topics: Mapping[str, int] = TOPICS,
    filler: int = FILLER_SIZE,
    **options: Unpack[downloads.TransferOptions],
) -> list[Path]:
    """Fetch and check all forms of all topics, and the filler, into `target/prefeval`.

    The data are CC BY-NC 4.0, and the filler is from LMSYS-Chat-1M, which has its own terms.

    Args:
        task: name of the task, for messages.
        split: "all", the only one.
        base_url: the address above the files.
        topics: the topics and their numbers of rows.
        filler: the number of exchanges of filler.
        options: see `TransferOptions`.

    Raises:
        UsageError: no such split, or another download is writing to the folder.
        DataError: the content is not the data; the message names the address and a remedy.
    """
    if split != SPLIT:
        raise UsageError(f"{task} has no split '{split}'; it has: {SPLIT}")

    folders = [OPTIONS_FOLDER, *FORM_FOLDERS.values()]
    names = [f"{folder}/{topic}.json" for topic in topics for folder in folders]

    def check(paths: Sequence[Path]) -> downloads.CheckedFile:
        # Fetched files do not have their final names yet, so their form is checked at the end.
        if len(paths) <= len(names):
            return downloads.CheckedFile(_count_rows(paths[-1], topics))
        return downloads.CheckedFile(filler)

    folder = target / "prefeval"
    paths = downloads.download_files(
        folder,
        {**dict.fromkeys(names, b"["), FILLER: b"["},
        lambda _: base_url,
        check,
        remedy=REMEDY,
        **options,
    )
    for topic in topics:
        for form in FORM_FOLDERS:
            list(read_topic(folder, topic, form))
    read_filler(folder, filler)
    return paths


def _count_rows(path: Path, topics: Mapping[str, int]) -> int:
    try:
        count = len(msgspec.json.decode(path.read_bytes(), type=list[msgspec.Raw]))
    except msgspec.MsgspecError as error:
        raise DataError(f"it is not a JSON list ({error})") from error
    topic = path.name.partition(".")[0]
    if count != topics[topic]:
        raise DataError(f"{count} rows, but {topic} has {topics[topic]}")
    return count
