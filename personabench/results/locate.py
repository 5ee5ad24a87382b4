"""Where a finished run's task and data are now: what people look up about a run long after it was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from personabench.api import registry
from personabench.api.dataset import Dataset
from personabench.api.task import Task
from personabench.api.users import open_split
from personabench.errors import PersonabenchError, UsageError
from personabench.results.index import Run, spec


def find_task(name: str, params: Mapping[str, Any], source: str) -> Task | None:
    """A run's task with the run's options; None where no such task, or none that takes them, is installed any more.

    `source` is the recorded hash of the task's source: it decides whether a file that was named is the run's.
    """
    try:
        kind = registry.recorded("task", name, source)
        task: Task = kind(kind.Params(**params))
        return task
    except (PersonabenchError, TypeError, ValueError):
        return None


def named(file: str, runs: Iterable[Run]) -> str:
    """Load the task whose file a person named, so that runs of it are read with their own task; returns its name.

    Raises:
        UsageError: no run is of that task, or its code has changed since all of them.
    """
    cls = registry.load("task", file)
    recorded = [(run["task"], spec(run).get("task_hash", "")) for run in runs]
    sources = {source for task, source in recorded if task == cls.name}
    if not sources:
        there = ", ".join(sorted({task for task, _ in recorded})) or "no task"
        raise UsageError(f"--task {file} is '{cls.name}'; there are runs of {there}")
    if registry.source_hash(cls) not in sources:
        registry.recorded("task", cls.name, min(sources))
    return str(cls.name)


def find_dataset(task: Task, run: Mapping[str, Any], place: str | None) -> Dataset | None:
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
