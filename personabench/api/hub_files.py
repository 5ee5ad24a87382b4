"""Datasets of the Hugging Face hub that have a configuration and splits: find, read and download.

A copy is read whatever its tree: parquet as the hub serves it, JSON or JSON lines, in folders or in
files of the configuration's name.  A download is pinned to one commit, and its files are in the
manifest only after the task has opened them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from personabench.api.downloads import (
    HUB,
    describe,
    lock_folder,
    newest_commit,
    pinned_commit,
    read_manifest,
    write_manifest,
)
from personabench.api.rows import read_rows
from personabench.errors import DataError

_ENDINGS = (".parquet", ".json", ".jsonl", ".json.gz", ".jsonl.gz")
_BATCH = 64


class StoredRow(NamedTuple):
    """A row of a file, and its location for messages."""

    location: str
    fields: Mapping[str, Any]


def find_split_files(root: Path, config: str, splits: Sequence[str]) -> list[Path]:
    """Find the files of a configuration's split below a folder, in the order of their names.

    Args:
        config: the name of a folder, or a part of a file's name.
        splits: the names that the split may have in files, such as val and validation.
    """
    is_config = re.compile(rf"(?:^|[/_.-]){re.escape(config)}(?=[/_.-])")
    names = "|".join(map(re.escape, splits))
    is_split = re.compile(rf"(?:^|[/_.-])(?:{names})(?=[/_.-])")
    paths = []
    for path in sorted(root.rglob("*")):
        if not path.name.endswith(_ENDINGS) or not path.is_file():
            continue
        # The folder itself may be that of the configuration.
        name = f"{root.resolve().name}/{path.relative_to(root).as_posix()}"
        match = is_config.search(name)
        if match and is_split.search(name[match.end() :]):
            paths.append(path)
    return paths


def read_stored_rows(paths: Sequence[Path]) -> Iterator[StoredRow]:
    """Yield the rows of files, a few at a time; records of columns become lists of records.

    Raises:
        DataError: a file is broken; the message names it.
    """
    for path in paths:
        if path.suffix == ".parquet":
            yield from _read_parquet(path)
            continue
        for row in read_rows(path):
            yield StoredRow(row.location, row)


def _read_parquet(path: Path) -> Iterator[StoredRow]:
    # Imported here: only real data are stored in this form.
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=_BATCH):
            for row in batch.to_pylist():
                number += 1
                fields = {name: _restore_records(value) for name, value in row.items()}
                yield StoredRow(f"{path}, row {number}", fields)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error


def _restore_records(value: Any) -> Any:
    """Convert a record of columns, as `datasets` stores lists of records, back into a list."""
    if not isinstance(value, Mapping) or not value:
        return value
    if not all(isinstance(column, list) for column in value.values()):
        return value
    rows = zip(*value.values(), strict=True)
    return [dict(zip(value, row, strict=True)) for row in rows]


def download_files_of(
    repository: str,
    folder: Path,
    patterns: Sequence[str],
    check: Callable[[Path], Mapping[Path, int]],
    *,
    remedy: str,
    base_url: str | None = None,
) -> None:
    """Fetch files of a dataset repository at one commit, check them, and write the manifest.

    A later call into the same folder fetches the same commit, so that a copy never mixes versions.

    Args:
        repository: owner and name on the hub.
        folder: receives the files and the manifest.
        patterns: of the files to fetch, as of `snapshot_download`.
        check: opens the fetched files; returns the number of rows of each, or raises DataError.
        remedy: advice that ends every error message.
        base_url: a hub endpoint other than the public one.

    Raises:
        UsageError: another download is writing to the folder.
        DataError: the hub cannot be reached, or the content is not the data.
    """
    endpoint = (base_url or HUB).rstrip("/")
    with lock_folder(folder):
        entries = read_manifest(folder)
        try:
            commit = pinned_commit(entries.values()) or newest_commit(repository, base_url)
            # Imported here: the client takes long to import, and only this command needs it.
            import huggingface_hub

            huggingface_hub.snapshot_download(
                repository,
                repo_type="dataset",
                revision=commit,
                endpoint=base_url,
                local_dir=folder,
                allow_patterns=[*patterns],
            )
        except Exception as error:
            # The client raises errors of several libraries, so the type is part of the message.
            raise DataError(
                f"{repository} could not be fetched: {type(error).__name__}: {error}\n{remedy}"
            ) from error

        try:
            counts = check(folder)
        except DataError as error:
            raise DataError(f"{repository} is not the data: {error}\n{remedy}") from error
        for path, count in counts.items():
            name = path.relative_to(folder).as_posix()
            url = f"{endpoint}/datasets/{repository}/resolve/{commit}/{name}"
            entries[name] = describe(path, url, count)
        write_manifest(folder, entries)
