"""Download of the published review data from the Hugging Face hub, one category at a time.

Both repositories are fetched at the commit of their main branch; later calls into the same folder
fetch that commit again, so that a copy never mixes versions. The manifest lists the files only
after they open as the split they should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from personabench.api.downloads import (
    HUB,
    ManifestEntry,
    Progress,
    describe,
    lock_folder,
    newest_commit,
    pinned_commit,
    read_manifest,
    write_manifest,
)
from personabench.errors import DataError, UsageError
from personabench.tasks.reviews import hub
from personabench.tasks.reviews.records import ReviewData

OWNER = "SnowCharmQ"
CATEGORIES = ("Books", "Movies_and_TV", "CDs_and_Vinyl")


def download(
    category: str,
    split: str,
    target: Path,
    *,
    base_url: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Fetch `target`/DPL-main/CATEGORY and `target`/DPL-meta/CATEGORY and check them.

    Args:
        base_url: a hub endpoint other than the public one.
        progress: never called; the hub's client shows its own progress.

    Raises:
        UsageError: the category is missing or not published.
        DataError: the hub cannot be reached, or the content is not the data.
    """
    if category not in CATEGORIES:
        raise UsageError(
            f"name one of the published categories: --split {'|'.join(CATEGORIES)}/{split}"
        )

    with lock_folder(target):
        entries = read_manifest(target)
        commits = {}
        for name in (hub.MAIN, hub.META):
            commit = _find_commit(entries, name, category, target, base_url)
            _fetch_files(name, category, target, commit, base_url)
            commits[name] = commit

        counts = _check_splits(target, category)
        for name, commit in commits.items():
            endpoint = (base_url or HUB).rstrip("/")
            url = f"{endpoint}/datasets/{OWNER}/{name}/resolve/{commit}"
            entries |= _describe_files(target, name, category, url, counts)
        write_manifest(target, entries)


def _find_commit(
    entries: Mapping[str, ManifestEntry],
    name: str,
    category: str,
    target: Path,
    endpoint: str | None,
) -> str:
    """Return the commit of a repository's files in the manifest, or else the newest."""
    stored = (entry for key, entry in entries.items() if key.startswith(name))
    commit = pinned_commit(stored)
    if commit is not None:
        return commit

    repository = f"{OWNER}/{name}"
    try:
        return newest_commit(repository, endpoint)
    except Exception as error:
        raise _explain_failure(repository, category, target / name, error) from error


def _fetch_files(
    name: str,
    category: str,
    target: Path,
    commit: str,
    endpoint: str | None,
) -> None:
    # Imported here: the client takes long to import, and only this command needs it.
    import huggingface_hub

    repository = f"{OWNER}/{name}"
    try:
        huggingface_hub.snapshot_download(
            repository,
            repo_type="dataset",
            revision=commit,
            endpoint=endpoint,
            local_dir=target / name,
            allow_patterns=[f"{category}/*", "README.md"],
        )
    except Exception as error:
        raise _explain_failure(repository, category, target / name, error) from error


def _explain_failure(repository: str, category: str, folder: Path, error: Exception) -> DataError:
    # The client raises errors of several libraries, so the type is part of the message.
    return DataError(
        f"{repository} could not be fetched: {type(error).__name__}: {error}\n"
        f"Without a network, copy the repository's folder {category} to {folder / category} "
        "yourself and pass its parent with --data"
    )


def _check_splits(target: Path, category: str) -> dict[str, int]:
    """Open every split; returns the numbers of rows."""
    counts = {}
    for split in hub.SPLITS:
        content = hub.read_split(target, category, split)
        ReviewData(content, category, split)
        counts[split] = len(content.rows)
    return counts


def _describe_files(
    target: Path,
    name: str,
    category: str,
    url: str,
    counts: Mapping[str, int],
) -> dict[str, ManifestEntry]:
    """Make the manifest entries of a repository's files."""
    entries = {}
    for path in sorted((target / name / category).rglob("*.*")):
        key = path.relative_to(target).as_posix()
        file_url = f"{url}/{path.relative_to(target / name).as_posix()}"
        entries[key] = describe(path, file_url, _find_count(path, counts))
    return entries


def _find_count(path: Path, counts: Mapping[str, int]) -> int:
    # The split is in the file's name or, for copies of `save_to_disk`, in the folder's.
    for split, count in counts.items():
        if path.name.startswith(split) or path.parent.name == split:
            return count
    return 0
