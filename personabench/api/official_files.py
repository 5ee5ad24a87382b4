"""The benchmark's own files: references, predictions and submissions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

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
