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
from personabench.results.spec import RunSpec
from personabench.results.summary import Summary


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


def named(file: str, specs: Iterable[RunSpec]) -> str:
    """Load the task whose file a person named, so that runs of it are read with their own task; returns its name.

    Raises:
        UsageError: no run is of that task, or its code has changed since all of them.
    """
    cls = registry.load("task", file)
    specs = list(specs)
    sources = {spec.task_hash for spec in specs if spec.task == cls.name}
    if not sources:
        there = ", ".join(sorted({spec.task for spec in specs})) or "no task"
        raise UsageError(f"--task {file} is '{cls.name}'; there are runs of {there}")
    if registry.source_hash(cls) not in sources:
        registry.recorded("task", cls.name, min(sources))
    return str(cls.name)


def find_dataset(task: Task, run: Summary | RunSpec, place: str | None) -> Dataset | None:
    """A run's data, where it still lies at its place unchanged.

    Args:
        run: its `separation`, `split` and `data_hash`.
        place: the folder that the run was given; None for the bundled sample.
    """
    for split in (f"{run.separation}/{run.split}", run.split, task.default_split):
        try:
            opened = open_split(task, split, Path(place) if place else None)
        except PersonabenchError:
            continue
        if opened.hash == run.data_hash:
            return opened
    return None
