"""Download of LongLaMP from the Hugging Face hub, one task and split at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from personabench.api.hub_files import download_files_of
from personabench.errors import DataError, UsageError
from personabench.tasks.longlamp.forms import FORMS, SPLITS, parse_split
from personabench.tasks.longlamp.records import find_files, read_samples

REPOSITORY = "LongLaMP/LongLaMP"
REMEDY = "Without a network, copy the repository's files yourself and name their folder with --data"


def download(
    task: str,
    split: str,
    target: Path,
    *,
    base_url: str | None = None,
    notice: Callable[[str], None] = warnings.warn,
    **_: Any,
) -> None:
    """Fetch a split of one setting into `target/longlamp`, and read every row.

    Args:
        task: name of the task.
        split: `SETTING/SPLIT`.
        base_url: a hub endpoint other than the public one.
        notice: called if a file has another number of rows than published.

    Raises:
        UsageError: no such split, licensed data, or another download is writing to the folder.
        DataError: the hub cannot be reached, or the content is not the data.
    """
    form = FORMS[task]
    setting, name = parse_split(task, split)
    if task == "longlamp_email":
        raise UsageError(
            "the emails of LongLaMP are from the Avocado Research Email Collection, which needs a "
            "licence (LDC2015T03); make the files with the benchmark's scripts, and name their "
            f"folder, such as {form.config}_{setting}/{name}.json, with --data"
        )
    config = f"{form.config}_{setting}"

    def check(folder: Path) -> dict[Path, int]:
        counts = {}
        for path in find_files(folder, form, setting, name):
            counts[path] = sum(1 for _ in read_samples([path], form, setting, name))
        total = sum(counts.values())
        if not total:
            raise DataError(f"{config}/{name} has no rows")
        published = form.sizes[list(SPLITS).index(name)] if form.sizes else total
        if setting == "user" and total != published:
            notice(f"{config}/{name} has {total} rows, published are {published}")
        return counts

    download_files_of(
        REPOSITORY,
        target / "longlamp",
        ["README.md", f"*{config}*", f"*{config}*/*"],
        check,
        remedy=REMEDY,
        base_url=base_url,
    )
