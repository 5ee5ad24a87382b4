"""Where a finished run's task and data are now: what people look up about a run long after it was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from personabench import registry
from personabench.errors import PersonabenchError
from personabench.people import open_split
from personabench.task import Dataset, Task


def task_of(name: str, params: Mapping[str, Any]) -> Task | None:
    """A run's task with the run's options; None where no such task, or none that takes them, is installed any more."""
    try:
        kind = registry.load("task", name)
        task: Task = kind(kind.Params(**params))
        return task
    except (PersonabenchError, TypeError, ValueError):
        return None


def data_of(task: Task, run: Mapping[str, Any], place: str | None) -> Dataset | None:
    """A run's data, where it still lies at its place unchanged.

    Args:
        run: its `separation`, `split` and `data_hash`.
        place: the folder that the run was given; None for the bundled sample.
    """
    for split in (f"{run['separation']}/{run['split']}", run["split"], task.default_split):
        try:
            opened = open_split(task, split, Path(place) if place else None)
        except PersonabenchError:
            continue
        if opened.hash == run["data_hash"]:
            return opened
    return None
