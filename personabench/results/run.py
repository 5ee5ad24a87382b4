"""A finished run as readers get it: its summary, its spec and its folder or published file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from personabench.errors import DataError
from personabench.results.spec import RunSpec
from personabench.results.summary import Summary
from personabench.types import from_json


@dataclass(frozen=True)
class Run:
    """A finished run: its summary, and the run folder or published file that it was read from."""

    summary: Summary
    path: Path
    published_spec: RunSpec | None = None

    @property
    def published(self) -> bool:
        """Whether only a published file is at hand, without answers."""
        return self.path.suffix == ".json"

    @cached_property
    def spec(self) -> RunSpec | None:
        """The run's `spec.json`; None if only the summary is left.

        Raises:
            DataError: the file is damaged.
        """
        # Read on first use: listing runs needs summaries only.
        return self.published_spec or _read_spec(self.path / "spec.json")

    @property
    def task_hash(self) -> str:
        """Hash of the task's source; empty if unknown."""
        return self.spec.task_hash if self.spec else ""

    @property
    def task_params(self) -> dict[str, Any]:
        """Options of the task; empty if unknown."""
        return dict(self.spec.task_params) if self.spec else {}


def _read_spec(path: Path) -> RunSpec | None:
    try:
        return from_json(path.read_bytes(), RunSpec)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); move the run's folder away and repeat its "
            "command"
        ) from error
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{path} is damaged ({error}); move the run's folder away and repeat its command"
        ) from error
