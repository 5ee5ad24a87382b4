"""Errors and logs of tasks whose texts are sensitive: what failed and where, in nobody's words.

A server that refuses a prompt often quotes it, and so may an exception of a plugin.  Of a failure
its kind, its status and the line of code stay, beside the sample's id, by which `show` prints the
texts on request.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

from personabench.errors import BackendDown, Refused, TransientError

WITHHELD = "its words are withheld, since the texts of this task are sensitive"


def withhold(error: BaseException) -> str:
    """Describe an error without its words, which may quote a text of the task."""
    if isinstance(error, BackendDown):
        return (
            f"the model cannot be reached or refuses every call; {WITHHELD}: run the same model "
            "on another task to read them"
        )
    # What a guard has explained is told by its cause.
    cause = error.__cause__ or error
    return f"{type(cause).__name__}{_find_facts(cause)}; {WITHHELD}"


def _find_facts(error: BaseException) -> str:
    if isinstance(error, Refused):
        return f", status {error.status}"
    if isinstance(error, TransientError):
        return f" ({error.kind})"
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def describe(error: BaseException, *, sensitive: bool) -> str:
    """Describe an error by its text, or without its words if the task is sensitive."""
    return withhold(error) if sensitive else str(error)


class WordlessTracebacks(logging.Filter):
    """Keeps the lines of code of a traceback in a log, and of its exception the type alone."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = "".join(traceback.format_tb(error.__traceback__))
            record.exc_text = f"{frames}{withhold(error)}"
            record.exc_info = None
        return True
