"""Find the task and data of a finished run, which may have moved or changed since."""

from __future__ import annotations

import contextlib
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


def load_tasks(file: str | None, specs: Iterable[RunSpec], results: Path) -> None:
    """Load the tasks of runs that are not installed, so that the runs are read with their own task.

    They are the task that `--task` names, and the declared tasks of the results folder, which hold
    no code.

    Args:
        file: the value of `--task`, or None.
        specs: of the runs to read.

    Raises:
        UsageError: no run is of the task of `file`, or its code has changed since all of them.
    """
    # Where `personabench pack` puts the data.
    packed = sorted((results / "data").glob("*"))
    search_data_in([*packed, *(path for folder in packed for path in sorted(folder.glob("*.*")))])
    declared = sorted((results / "tasks").glob("*.toml"))
    if not declared and file is None:
        return

    specs = list(specs)
    tasks = {(spec.task, spec.task_hash) for spec in specs}
    for path in declared:
        # A declaration of other runs, or a damaged one, is of no use here.
        with contextlib.suppress(PersonabenchError):
            registry.load_if(path, tasks)
    if file is not None:
        load_named_task(file, specs)


def load_chosen_task(task: str | None, specs: Iterable[RunSpec], results: Path) -> str | None:
    """Load tasks as `load_tasks`; return the name of the one that `--task` selects runs by.

    Args:
        task: a name, a file or None for the runs of all tasks.

    Raises:
        UsageError: as `load_tasks`.
    """
    specs = list(specs)
    load_tasks(None, specs, results)
    if task is None or not registry.is_file(task):
        return task
    return load_named_task(task, specs)


def load_named_task(file: str, specs: Iterable[RunSpec]) -> str:
    """Load a task from a file; return its name.

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


# Data that the user named for this process, to be searched for the data of runs that has moved.
_given_data: list[Path] = []


def search_data_in(paths: Iterable[Path]) -> None:
    """Search these files and folders for the data of runs, too."""
    _given_data.extend(path for path in paths if path not in _given_data)


def find_dataset(task: Task, run: Summary | RunSpec, folder: str | None) -> Dataset | None:
    """Open a run's data, if it is unchanged, from its folder or from one of `search_data_in`.

    Args:
        folder: the data folder that the run was given; None for the example data.
    """
    for path in (Path(folder) if folder else None, *_given_data):
        for split in _list_splits(task, run):
            try:
                dataset = open_split(task, split, path)
            except PersonabenchError:
                continue
            if dataset.hash == run.data_hash:
                return dataset
    return None


def find_place(dataset: Dataset, folder: str | None) -> Path:
    """Return the folder or file that `find_dataset` opened; else the file that the data names."""
    source = Path(dataset.source).absolute()
    for path in (Path(folder) if folder else None, *_given_data):
        if path is not None and source.is_relative_to(path.absolute()):
            return path
    return source


def _list_splits(task: Task, run: Summary | RunSpec) -> list[str]:
    # Splits of some tasks are named without their separation, and some tasks have one split only.
    names = (f"{run.separation}/{run.split}", run.split, task.default_split)
    return list(dict.fromkeys(names))


def explain_missing_data(task: Task | None, run: Summary) -> str:
    """Say why `find_dataset` did not find a run's data, and what to do."""
    if task is None:
        return (
            f"task {run.task} is not installed here, or does not take the run's options; "
            "--task FILE names its file"
        )
    folders = [Path(run.data)] if run.data else []
    existing = [path for path in (*folders, *_given_data) if path.exists()]
    if not run.data and run.sample:
        return f"the example data of {run.task} has changed since the run"
    if not existing:
        location = run.data or run.source
        return f"the data is no longer in {location}; name its place with --data"
    listed = " and ".join(map(str, existing))
    return (
        f"the data in {listed} is not what the run read (data hash {run.data_hash[:8]}): it has "
        "changed, or is another split; --data names another place"
    )
