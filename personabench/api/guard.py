"""Guards around plugin code: one message for the user, the traceback for the run's log."""

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
# Without a handler, logging prints errors to stderr; outside a run's log the one message is enough.
TRACEBACKS.addHandler(logging.NullHandler())


@contextmanager
def plugin_guard(
    cls: type[Any],
    stage: str,
    kind: type[PersonabenchError],
) -> Iterator[None]:
    """Turn an exception of a plugin's code into one error that names class, file, line and stage.

    Raises:
        PersonabenchError: of the given kind, or the code's own.
    """
    try:
        yield
    except PersonabenchError:
        raise
    except Exception as error:
        TRACEBACKS.exception("%s.%s", cls.__name__, stage)
        location = _locate_failure(cls, error)
        raise kind(
            f"{cls.__name__}.{stage} fails ({location}): {type(error).__name__}: {error}"
        ) from error


def params_of(cls: type[Any]) -> type[Any]:
    """Return the parameter class of a method or a task.

    Raises:
        UsageError: it is not a dataclass.
    """
    if not (isinstance(cls.Params, type) and dataclasses.is_dataclass(cls.Params)):
        raise UsageError(
            f"{cls.__name__}.Params is not a dataclass ({_source_file(cls)}): "
            "put @dataclass(frozen=True) above it"
        )
    return cls.Params


def create(cls: type[Any], *params: Any) -> Any:
    """Create a method or a task, with its default parameters unless some are given.

    Raises:
        UsageError: its own code fails.
    """
    params_of(cls)
    with plugin_guard(cls, "__init__", UsageError):
        return cls(*params)


def _locate_failure(cls: type[Any], error: Exception) -> str:
    file = _source_file(cls)
    frames = traceback.extract_tb(error.__traceback__)
    line_numbers = [frame.lineno for frame in frames if frame.filename == file]
    # The innermost line of the plugin's own file: deeper frames belong to libraries that it calls.
    return f"{file}, line {line_numbers[-1]}" if line_numbers else file


def _source_file(cls: type[Any]) -> str:
    module = sys.modules.get(cls.__module__)
    return str(getattr(module, "__file__", cls.__module__))
