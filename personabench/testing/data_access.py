"""Refuse access to the data of tasks while a method runs, to find methods that read gold answers.

A method gets wording and views of samples.  Python cannot keep it from importing a task and opening
its data, or from reading the files of the example data, so `personabench check method` makes that
raise and reports the call.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import linecache
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from unittest.mock import patch

from personabench.api.dataset import Dataset, Wrapped
from personabench.api.guard import is_library
from personabench.api.rows import read_rows
from personabench.api.task import Task, list_example_paths
from personabench.api.wording import WordingView
from personabench.types import Sample, User

# The functions that return samples with their references.
_READERS: dict[type[Any], tuple[str, ...]] = {
    Task: ("open", "load", "read_references"),
    Dataset: ("load", "samples"),
}


_TASKS = "personabench.tasks"
_METHODS = "personabench.methods."


class DataAccessError(Exception):
    """A method reads a task's data."""


class Loaded(Wrapped):
    """A dataset that was read to its end, which the engine can use while data access is refused."""

    def __init__(self, inner: Dataset) -> None:
        super().__init__(inner)
        count = len(inner.index())
        self._index = list(inner.index())
        self._samples = list(inner.samples())
        self._flags = [dict(inner.flags(position)) for position in range(count)]
        self._users = list(inner.population())
        self._counts = dict(inner.user_counts())

    def index(self) -> Sequence[tuple[str, str]]:
        return self._index

    def load(self, position: int) -> Sample:
        return self._samples[position]

    def samples(self) -> Iterator[Sample]:
        return iter(self._samples)

    def flags(self, position: int) -> dict[str, float]:
        return self._flags[position]

    def population(self) -> Iterator[User]:
        return iter(self._users)

    def user_counts(self) -> dict[str, int]:
        return self._counts


@contextmanager
def refuse_data_access() -> Iterator[list[str]]:
    """Make every task's data access raise in the block; yield the calls that were refused.

    The list also has calls whose exception the method caught.  Classes that are defined in the
    block are covered as well; `Loaded` datasets stay readable.
    """
    calls: list[str] = []
    with ExitStack() as patches:

        def refuse_in(cls: type[Any], names: Sequence[str]) -> None:
            for name in names:
                function = vars(cls).get(name)
                if function is None or getattr(function, "__isabstractmethod__", False):
                    continue
                patches.enter_context(patch.object(cls, name, _refusal(cls, name, calls)))

        for base, names in _READERS.items():
            for cls in (base, *_subclasses(base)):
                refuse_in(cls, names)
            hook = _extend_hook(base, functools.partial(refuse_in, names=names))
            patches.enter_context(patch.object(base, "__init_subclass__", hook))

        # The wording has no data; a method that looks for some is named all the same.
        explain = WordingView.__getattr__

        def refuse_attribute(view: WordingView, name: str) -> NoReturn:
            if hasattr(Task, name):
                calls.append(f"ctx.task.{name} is read {_locate_caller()}")
            explain(view, name)

        patches.enter_context(patch.object(WordingView, "__getattr__", refuse_attribute))

        def refuse_file(path: Path) -> None:
            location = _locate_reader() if is_example_data(path) else ""
            if location:
                calls.append(f"{path} is opened {location}")
                raise DataAccessError(f"a method must not read the data of a task: {calls[-1]}")

        patches.enter_context(_watch_files(refuse_file))
        yield calls


_watchers: list[Callable[[Path], None]] = []


@contextmanager
def _watch_files(watch: Callable[[Path], None]) -> Iterator[None]:
    """Call a function with every file that this process opens in the block."""
    _add_audit_hook()
    _watchers.append(watch)
    try:
        yield
    finally:
        _watchers.remove(watch)


@functools.cache
def _add_audit_hook() -> None:
    """Add the hook that tells `_watchers` of files; Python cannot remove it again."""

    def report(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not _watchers:
            return
        name = arguments[0]
        if isinstance(name, str | bytes):
            path = Path(os.path.realpath(os.fsdecode(name)))
            for watch in list(_watchers):
                watch(path)

    sys.addaudithook(report)


def is_example_data(path: Path) -> bool:
    """Whether a file belongs to the example data of a task that is built in or loaded."""
    # Code is no data: a method may import what it shares with a task.
    if path.suffix in (".py", ".pyc"):
        return False
    folders = list(_built_in_folders())
    for cls in _subclasses(Task):
        folders += [example.resolve() for example in list_example_paths(cls)]
    return any(folder == path or folder in path.parents for folder in folders)


@functools.cache
def _built_in_folders() -> tuple[Path, ...]:
    spec = importlib.util.find_spec(_TASKS)
    locations = spec.submodule_search_locations if spec else None
    return tuple(Path(folder).resolve() for folder in locations or ())


def _extend_hook(
    base: type[Any],
    refuse_in: Callable[[type[Any]], None],
) -> Any:
    """Return an `__init_subclass__` that also handles classes which the block defines."""
    original = vars(base).get("__init_subclass__")

    def extended(cls: type[Any], /, **options: Any) -> None:
        if original is not None:
            original.__func__(cls, **options)
        refuse_in(cls)

    return classmethod(extended)


def _refusal(cls: type[Any], name: str, calls: list[str]) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        call = f"{cls.__name__}.{name} is called {_locate_caller()}"
        calls.append(call)
        raise DataAccessError(f"a method must not read the data of a task: {call}")

    return refuse


def _subclasses(base: type[Any]) -> Iterator[type[Any]]:
    for cls in base.__subclasses__():
        if cls is not Loaded:
            yield cls
        yield from _subclasses(cls)


def _locate_caller() -> str:
    """Name file, line and text of the innermost call from outside the engine and the tasks."""
    frame = inspect.currentframe()
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        is_engine = module.startswith("personabench.") and not module.startswith(_METHODS)
        if not is_engine:
            return _describe_line(frame)
        frame = frame.f_back
    return "from the engine"


def _locate_reader() -> str:
    """Name the line that reads a file, as `_locate_caller` does; empty if a task's or the engine's.

    Libraries read for their callers, and so does `read_rows`.
    """
    frame = inspect.currentframe()
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        is_inner = module in (__name__, read_rows.__module__)
        is_engine = module.startswith("personabench.") and not module.startswith(_METHODS)
        if is_engine and not is_inner:
            return ""
        if not is_library(Path(frame.f_code.co_filename)):
            return _describe_line(frame)
        frame = frame.f_back
    return ""


def _describe_line(frame: FrameType) -> str:
    file, number = frame.f_code.co_filename, frame.f_lineno
    # The file may have been edited since its last lines were read.
    linecache.checkcache(file)
    return f"in {file}, line {number}: `{linecache.getline(file, number).strip()}`"
