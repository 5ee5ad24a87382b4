"""Download of LaMP-QA from the Hugging Face hub, one split at a time, with checks of its rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from personabench.api.hub_files import download_files_of
from personabench.errors import DataError
from personabench.tasks.lampqa.files import (
    CONFIGS,
    SIZES,
    SPLITS,
    Part,
    find_parts,
    parse_split,
    read_part,
)

REPOSITORY = "alireza7/LaMP-QA"
REMEDY = "Without a network, copy the repository's files yourself and name their folder with --data"


def download(
    split: str,
    target: Path,
    *,
    base_url: str | None = None,
    sizes: Mapping[str, tuple[int, int, int]] = SIZES,
    notice: Callable[[str], None] = warnings.warn,
    **_: Any,
) -> None:
    """Fetch a split of one subset or of all into `target/lampqa`, and read every row.

    Args:
        split: `[SUBSET/]SPLIT`.
        base_url: a hub endpoint other than the public one.
        sizes: the published numbers of rows of train, validation and test.
        notice: called if a file has another number of rows.

    Raises:
        UsageError: no such split, or another download is writing to the folder.
        DataError: the hub cannot be reached, or the content is not the data.
    """
    config, name = parse_split(split)
    position = list(SPLITS).index(name)
    configs = (config,) if config else CONFIGS

    def check(folder: Path) -> dict[Path, int]:
        counts = {}
        for wanted in configs:
            (part,) = find_parts(folder, wanted, name)
            total = 0
            for path in part.paths:
                counts[path] = sum(1 for _ in read_part(Part(wanted, [path])))
                total += counts[path]
            if not total:
                raise DataError(f"{wanted}/{name} has no rows")
            if total != sizes[wanted][position]:
                notice(f"{wanted}/{name} has {total} rows, published are {sizes[wanted][position]}")
        return counts

    patterns = [f"*{wanted}*" for wanted in configs]
    patterns += [f"*{wanted}*/*" for wanted in configs]
    download_files_of(
        REPOSITORY,
        target / "lampqa",
        ["README.md", *patterns],
        check,
        remedy=REMEDY,
        base_url=base_url,
    )
