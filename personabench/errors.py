"""Errors written for the person who meets them.

`DataError` and `UsageError` end a command with exit code 2, `RunError` with exit code 1; the command line prints the
message alone, never a traceback.  A message says what is wrong, where (file, record, field, option) and what to do.
"""

from __future__ import annotations


class PersonabenchError(Exception):
    """Base of every error a command reports as one message."""

    exit_code = 1


class UsageError(PersonabenchError):
    """An option, name or combination that cannot work."""

    exit_code = 2


class DataError(PersonabenchError):
    """A file or record that is not what it should be."""

    exit_code = 2


class RunError(PersonabenchError):
    """A run that had to stop; what it had finished is on disk."""


class BackendError(PersonabenchError):
    """A model call that failed for good; ends the sample, not the run."""


class BackendDown(RunError):
    """The model cannot be reached or refuses every call; ends the run."""


class TransientError(BackendError):
    """A model call that may succeed when repeated (transport, 408, 409, 429, 5xx).

    `retry_after` is the server's own wish in seconds, if it gave one.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CacheMiss(BackendError):
    """`--cache only` met a request that is not stored."""
