"""The benchmark's own files: references, predictions and submissions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from personabench.api.dataset import Dataset
from personabench.api.downloads import hash_file, is_intact, read_manifest
from personabench.api.interface import Interface
from personabench.errors import DataError
from personabench.types import Sample


class OfficialFiles(Interface):
    """Reads official reference and prediction files, to score predictions made elsewhere."""

    interface_methods = ("read_references",)

    @abstractmethod
    def read_references(self, path: Path) -> dict[str, Sample]:
        """Read samples, by id, from a reference file: enough of each to score an answer."""

    def recognizes(self, path: Path) -> bool:
        """Whether a file of a folder that holds several tasks' files is this task's references."""
        return False

    def read_predictions(self, path: Path) -> tuple[str | None, list[tuple[str, str | None]]]:
        """Read a prediction file: its task name, if any, and (id, output) pairs in file order."""
        raise DataError(f'{path}: expected JSON lines of {{"id", "output"}}, ids as strings')


class SubmissionFile(Interface):
    """Writes a run's answers as the benchmark's own submission file."""

    interface_methods = ("submission",)

    @abstractmethod
    def submission(self, outputs: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Yield the submission file in pieces, for (sample id, output) pairs."""


# Folders above the data in which its manifest may be.
_LEVELS = 4


def is_official(dataset: Dataset, data: Path, published: Mapping[str, str]) -> bool:
    """Whether a dataset was opened from the benchmark's files, by their hashes.

    Args:
        published: SHA-256 of published files, by name.  Other files are official if `download` has
            checked them and they are as its manifest records them.
    """
    published_hash = published.get(Path(dataset.source).name)
    if published_hash is not None:
        return hash_file(Path(dataset.source)) == published_hash
    folder = data if data.is_dir() else data.parent
    source = Path(dataset.source)
    part = (source if source.is_dir() else source.parent).resolve()
    for candidate in (folder, *folder.resolve().parents[:_LEVELS]):
        try:
            entries = read_manifest(candidate)
        except DataError:
            continue
        if not entries:
            continue
        # Only the files beside the opened one: those of all tasks may be gigabytes.
        paths = {name: (candidate / name).resolve() for name in entries}
        read = [name for name, path in paths.items() if part in path.parents] or list(entries)
        return all(is_intact(paths[name], entries[name]) for name in read)
    return False
