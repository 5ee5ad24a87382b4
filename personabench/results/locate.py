"""Find the task and data of a finished run, which may have moved or changed since."""

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
    """Find a run's task, with the run's options.

    Args:
        source: the recorded hash of the task's source; decides whether a task from a file is the
            run's.

    Returns:
        None if no such task, or none that takes these options, is installed.
    """
    try:
        cls = registry.load_recorded("task", name, source)
        task: Task = cls(cls.Params(**params))
        return task
    except (PersonabenchError, TypeError, ValueError):
        return None


def load_named_task(file: str, specs: Iterable[RunSpec]) -> str:
    """Load a task from a file, so that runs of it are read with their own task; return its name.

    Args:
        specs: of the runs to read.

    Raises:
        UsageError: no run is of that task, or its code has changed since all of them.
    """
    cls = registry.load_class("task", file)
    specs = list(specs)
    sources = {spec.task_hash for spec in specs if spec.task == cls.name}
    if not sources:
        tasks = ", ".join(sorted({spec.task for spec in specs})) or "no task"
        raise UsageError(f"--task {file} is '{cls.name}'; there are runs of {tasks}")
    if registry.source_hash(cls) not in sources:
        # Raises the error that explains the mismatch.
        registry.load_recorded("task", cls.name, min(sources))
    return str(cls.name)


def find_dataset(task: Task, run: Summary | RunSpec, folder: str | None) -> Dataset | None:
    """Open a run's data, if it is still in its folder and unchanged.

    Args:
        folder: the data folder that the run was given; None for the example data.
    """
    # Splits of some tasks are named without their separation, and some tasks have one split only.
    candidates = (
        f"{run.separation}/{run.split}",
        run.split,
        task.default_split,
    )
    for split in candidates:
        try:
            dataset = open_split(task, split, Path(folder) if folder else None)
        except PersonabenchError:
            continue
        if dataset.hash == run.data_hash:
            return dataset
    return None
