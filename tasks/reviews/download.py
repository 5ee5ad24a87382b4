"""Fetching the published review data from the Hugging Face hub, one category at a time.

Both repositories are asked for at the commit that their main branch names at that moment; later calls into the same
folder ask for that commit again, so that a copy never mixes versions.  The files must open as the split they claim to
be before the manifest names them.
"""

from __future__ import annotations

import re
from pathlib import Path

from personabench.api.downloads import Progress, describe, exclusive, read_manifest, write_manifest
from personabench.errors import DataError, UsageError
from personabench.tasks.reviews import hub
from personabench.tasks.reviews.records import ReviewData

OWNER = "SnowCharmQ"
CATEGORIES = ("Books", "Movies_and_TV", "CDs_and_Vinyl")
_COMMIT = re.compile(r"/resolve/([0-9a-f]{40})/")


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
        progress: not called; the hub's client shows its own.

    Raises:
        UsageError: no category was named.
        DataError: the hub cannot be reached, or what came is not the data.
    """
    if category not in CATEGORIES:
        raise UsageError(
            f"name one of the published categories: --split {'|'.join(CATEGORIES)}/{split}"
        )
    with exclusive(target):
        entries = read_manifest(target)
        urls: dict[str, str] = {}
        for name in (hub.MAIN, hub.META):
            known = {
                found[1]
                for key, each in entries.items()
                if key.startswith(name)
                for found in [_COMMIT.search(each.url)]
                if found
            }
            commit = _fetch(
                f"{OWNER}/{name}", category, target / name, known.pop() if known else None, base_url
            )
            urls[name] = (
                f"{(base_url or 'https://huggingface.co').rstrip('/')}/datasets/{OWNER}/{name}/resolve/{commit}"
            )
        found = {part: hub.read(target, category, part) for part in hub.SPLITS}
        for part, rows in found.items():
            ReviewData(rows, category, part)
        for name, url in urls.items():
            for path in sorted((target / name / category).rglob("*.*")):
                key = path.relative_to(target).as_posix()
                part = next(
                    (
                        each
                        for each in found
                        if path.name.startswith(each) or path.parent.name == each
                    ),
                    "",
                )
                count = len(found[part].rows) if part else 0
                entries[key] = describe(
                    path, f"{url}/{path.relative_to(target / name).as_posix()}", count
                )
        write_manifest(target, entries)


def _fetch(
    repository: str, category: str, folder: Path, commit: str | None, endpoint: str | None
) -> str:
    """Bring a category's files into a folder; returns the commit they are of."""
    import huggingface_hub

    try:
        if commit is None:
            api = huggingface_hub.HfApi(endpoint=endpoint)
            commit = str(api.dataset_info(repository).sha)
        huggingface_hub.snapshot_download(
            repository,
            repo_type="dataset",
            revision=commit,
            endpoint=endpoint,
            local_dir=folder,
            allow_patterns=[f"{category}/*", "README.md"],
        )
    except Exception as error:
        raise DataError(
            f"{repository} could not be fetched: {type(error).__name__}: {error}\nWhere there is no network, copy "
            f"the repository's folder {category} to {folder / category} yourself and pass its parent with --data"
        ) from error
    return commit
