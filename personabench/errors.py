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


class Refused(BackendError):
    """A model call that the server turned down with a 4xx `status`: repeating it changes nothing."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class TransientError(BackendError):
    """A model call that may succeed when repeated (transport, 408, 409, 429, 5xx).

    `retry_after` is the server's own wish in seconds, if it gave one; `kind` names the fault in a run's counters, as
    `retried_<kind>`.
    """

    def __init__(self, message: str, retry_after: float | None = None, kind: str = "other") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.kind = kind


class Throttled(TransientError):
    """The server asks for fewer calls."""


class BrokenOff(TransientError):
    """A reply that ended neither whole nor at its allowance, for another reason than a refusal."""


class BudgetExceeded(RunError):
    """The next call might have passed `--max-cost`."""


class CacheMiss(BackendError):
    """`--cache only` met a request that is not stored."""
