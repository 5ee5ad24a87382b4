"""What the code of a method or a task gets wrong: one message for people, the traceback for the run's log."""

from __future__ import annotations

import dataclasses
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from personabench.errors import PersonabenchError, UsageError

TRACEBACKS = logging.getLogger("personabench.engine")
"""Where tracebacks go: into the log of a run, and outside of one nowhere, not even to stderr."""
TRACEBACKS.addHandler(logging.NullHandler())


@contextmanager
def plugin_guard(cls: type[Any], stage: str, kind: type[PersonabenchError]) -> Iterator[None]:
    """Name the class, its file and line, and the stage when its code raises; the log has the traceback.

    Raises:
        PersonabenchError: of the kind given, or the code's own.
    """
    try:
        yield
    except PersonabenchError:
        raise
    except Exception as error:
        TRACEBACKS.exception("%s.%s", cls.__name__, stage)
        file = _file(cls)
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == file
        ]
        where = f"{file}, line {lines[-1]}" if lines else file
        raise kind(
            f"{cls.__name__}.{stage} fails ({where}): {type(error).__name__}: {error}"
        ) from error


def params_of(cls: type[Any]) -> type[Any]:
    """The class of a method's or a task's parameters.

    Raises:
        UsageError: it is no dataclass.
    """
    if not (isinstance(cls.Params, type) and dataclasses.is_dataclass(cls.Params)):
        raise UsageError(
            f"{cls.__name__}.Params is no dataclass ({_file(cls)}): put @dataclass(frozen=True) above it"
        )
    return cls.Params


def create(cls: type[Any], *params: Any) -> Any:
    """A method or a task, with its default parameters unless some are given.

    Raises:
        UsageError: its own code fails.
    """
    params_of(cls)
    with plugin_guard(cls, "__init__", UsageError):
        return cls(*params)


def _file(cls: type[Any]) -> str:
    return str(getattr(sys.modules.get(cls.__module__), "__file__", cls.__module__))
