"""Whole submissions: the files of several tasks in a folder or zip file, matched by task."""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from personabench.api.guard import create
from personabench.api.id_check import list_few
from personabench.api.official_files import OfficialFiles
from personabench.api.registry import list_entries, load_class
from personabench.api.task import Task
from personabench.errors import DataError, PersonabenchError, UsageError
from personabench.run.answer_file import read_lines, unpacked
from personabench.run.score_file import References, read_predictions, read_references

_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".arrow", ".gz")


class Part(NamedTuple):
    """A task of a submission with its predictions and references."""

    task: Task
    predictions: Path
    references: References


def is_submission(path: Path) -> bool:
    """Whether a path is a folder of files, not a run, or a zip file."""
    if path.is_dir():
        return not (path / "spec.json").exists()
    return path.suffix == ".zip"


@contextmanager
def opened_folder(path: Path) -> Iterator[Path]:
    """Give a folder or zip file as a folder.

    Raises:
        DataError: the path is neither.
    """
    if path.is_dir():
        yield path
        return
    if path.suffix != ".zip" or not path.is_file():
        raise DataError(f"{path}: expected a folder or a zip file with one file per task")

    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
        except (zipfile.BadZipFile, OSError, RuntimeError, zlib.error) as error:
            raise DataError(f"{path} cannot be unpacked: {error}") from error
        try:
            yield Path(folder)
        except PersonabenchError as error:
            raise type(error)(str(error).replace(folder, str(path))) from error


def candidate_tasks(task_names: Sequence[str]) -> list[Task]:
    """Load the named tasks, or every installed one that reads official files.

    Raises:
        UsageError: unknown task, or one without official files.
    """
    tasks: list[Task] = [
        create(load_class("task", name)) for name in task_names or list_entries("task")
    ]
    readers: list[Task] = [task for task in tasks if isinstance(task, OfficialFiles)]
    if task_names and len(readers) < len(tasks):
        unsuitable = [task.name for task in tasks if not isinstance(task, OfficialFiles)]
        raise UsageError(f"without official files: {', '.join(unsuitable)}; score them one by one")
    return readers


def find_references(folder: Path, tasks: Sequence[Task]) -> dict[Task, References]:
    """Find the reference file of each task that has one in a folder.

    Raises:
        DataError: there are none, or two of one task.
    """
    paths: dict[Task, Path] = {}
    for path in _list_files(folder):
        for task in tasks:
            if not _is_reference(task, path):
                continue
            if task in paths:
                raise DataError(
                    f"{paths[task]} and {path} are both references of {task.name}; "
                    "name a folder with one of them"
                )
            paths[task] = path

    if not paths:
        listing = ", ".join(task.name for task in tasks)
        raise DataError(f"{folder} has no reference file of {listing}")
    return {task: read_references(task, path) for task, path in paths.items()}


def match_predictions(
    folder: Path, references: dict[Task, References], selected: bool = False
) -> list[Part]:
    """Assign each prediction file in a folder to a task.

    A file that names its task belongs to that task, another one (JSON lines) to the task whose ids
    it has.

    Args:
        selected: the tasks are a selection, so files of further tasks are left out.

    Raises:
        DataError: a file belongs to no task or to several, or a task has two.
    """
    parts: dict[str, Part] = {}
    for path in _list_files(folder):
        owners = [task for task in references if _belongs(path, task, references[task])]
        if selected and not owners:
            continue
        if len(owners) != 1:
            listing = ", ".join(task.name for task in owners or references)
            problem = "may be of" if owners else "is of none of"
            raise DataError(f"{path} {problem} {listing}; score it by itself with --task")

        (task,) = owners
        if task.name in parts:
            raise DataError(
                f"{parts[task.name].predictions} and {path} are both predictions of {task.name}"
            )
        parts[task.name] = Part(task, path, references[task])
    if not parts:
        listing = ", ".join(task.name for task in references)
        raise DataError(f"{folder} has no prediction files of {listing} ({', '.join(_SUFFIXES)})")
    return [parts[name] for name in sorted(parts)]


def describe_uncovered(parts: Sequence[Part], references: dict[Task, References]) -> str | None:
    """Name the tasks that have references but no predictions; None if there are none."""
    covered = {part.task.name for part in parts}
    uncovered = [task.name for task in references if task.name not in covered]
    return f"no predictions for {list_few(uncovered, 8)}" if uncovered else None


def _list_files(folder: Path) -> list[Path]:
    """The data files of a folder, without those that systems hide in zip files."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix in _SUFFIXES
        and not path.name.startswith(".")
        and "__MACOSX" not in path.parts
    ]


def _is_reference(task: Task, path: Path) -> bool:
    assert isinstance(task, OfficialFiles)
    with unpacked(path) as file:
        return task.recognizes(file)


def _belongs(path: Path, task: Task, references: References) -> bool:
    with unpacked(path) as file:
        answers = read_lines(file)
    if answers is not None:
        return any(answer.id in references.samples for answer in answers)
    try:
        named_task, _ = read_predictions(task, path)
    except DataError:
        return False
    return named_task == task.name
