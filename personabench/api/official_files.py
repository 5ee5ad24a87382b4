"""The benchmark's own files: references, predictions and submissions."""

from __future__ import annotations

import hashlib
import itertools
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from personabench.api.dataset import Dataset, Wrapped
from personabench.api.downloads import is_intact, read_manifest
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


def is_official(dataset: Dataset, data: Path) -> bool:
    """Whether an opened dataset's files are, by their hashes, those that `download` has checked."""
    while isinstance(dataset, Wrapped):
        dataset = dataset.inner

    folder = data if data.is_dir() else data.parent
    for candidate in (folder, *folder.resolve().parents[:_LEVELS]):
        try:
            entries = read_manifest(candidate)
        except DataError:
            continue
        if not entries:
            continue
        hashes = [bytes.fromhex(entry.sha256) for entry in entries.values()]
        if dataset.hash in _combine(hashes):
            return True
        # The hash of some datasets covers more than their files.
        return all(is_intact(candidate / name, entry) for name, entry in entries.items())
    return False


def _combine(hashes: list[bytes]) -> set[str]:
    """The hashes of datasets of one or two of the files, as `digest_files` makes them."""
    combinations = [*itertools.permutations(hashes, 1), *itertools.permutations(hashes, 2)]
    return {hashlib.sha256(b"".join(files)).hexdigest() for files in combinations}
