"""Data of a task: download the official files, generate new sets, audit an opened split."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from personabench.api.dataset import Dataset
from personabench.api.interface import Interface
from personabench.models.roles import Role


class Downloadable(Interface):
    """Downloads the official data."""

    interface_methods = ("download",)

    @abstractmethod
    def download(self, split: str, target: Path, **options: Any) -> None:
        """Fetch the official files after checking their content.

        Options are `progress`, called as `personabench.api.downloads.Progress`, and `base_url`, a
        mirror.

        Raises:
            UsageError: the split cannot be downloaded.
            DataError: the server returned something other than the data.
        """


class Generative(Interface):
    """Generates new sets of the task's form."""

    interface_methods = ("generate",)

    @abstractmethod
    async def generate(
        self, source: str, target: Path, models: Sequence[Role], **options: Any
    ) -> Path:
        """Write a new set into a folder, with models as its authors; return the file.

        Raises:
            UsageError: an option cannot work.
            DataError: the source cannot be used, or no record was produced.
            BackendError: a call failed for good.
        """


class Audited(Interface):
    """Audits its data for answers that can be looked up."""

    interface_methods = ("audit",)

    @abstractmethod
    def audit(self, dataset: Dataset) -> list[str]:
        """List the leaks of an opened split, one line each."""

    def counts(self, dataset: Dataset) -> list[str]:
        """List facts about the data that are no leaks, such as lost evidence, one line each."""
        return []
