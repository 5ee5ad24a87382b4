"""Refuse access to the data of tasks while a method runs, to find methods that read gold answers.

A method gets wording and views of samples.  Python cannot keep it from importing a task and opening
its data, so `personabench check method` makes that raise and reports the call.
"""

from __future__ import annotations

import functools
import inspect
import linecache
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn
from unittest.mock import patch

from personabench.api.dataset import Dataset, Wrapped
from personabench.api.task import Task
from personabench.api.wording import WordingView
from personabench.types import Sample, User

# The functions that return samples with their references.
_READERS: dict[type[Any], tuple[str, ...]] = {
    Task: ("open", "load", "read_references"),
    Dataset: ("load", "samples"),
}


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
        yield calls


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
        is_engine = module.startswith("personabench.") and not module.startswith(
            "personabench.methods."
        )
        if not is_engine:
            file, number = frame.f_code.co_filename, frame.f_lineno
            # The file may have been edited since its last lines were read.
            linecache.checkcache(file)
            return f"in {file}, line {number}: `{linecache.getline(file, number).strip()}`"
        frame = frame.f_back
    return "from the engine"
