"""Exceptions, each with the exit code of a command that it ends.

The command line prints the message without a traceback, so a message names the problem, its
location (file, record, field, option) and the remedy.
"""

from __future__ import annotations

import re

# Line breaks and tabs are text. Characters that reverse the direction of text can disguise it.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""Write control characters as escapes (`\x1b`), so that a text cannot act on a terminal."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


class PersonabenchError(Exception):
    """Base of all errors that a command reports as one message."""

    exit_code = 1


class UsageError(PersonabenchError):
    """An option, name or combination that cannot work."""

    exit_code = 2


class MisfitError(UsageError):
    """A method that finds out during a run that it cannot work; other runs of the command go on."""


class DataError(PersonabenchError):
    """A missing, broken or inconsistent file or record."""

    exit_code = 2


class RunError(PersonabenchError):
    """A run that had to stop; its finished samples are on disk."""


class BackendError(PersonabenchError):
    """A model call that failed for good; it ends the sample, not the run."""


class BackendDown(RunError):
    """The model cannot be reached or refuses every call; it ends the run."""


class Refused(BackendError):
    """A model call rejected with a 4xx `status`; a repetition would fail as well.

    Attributes:
        text: the server's whole words, of which the message quotes the start.
        model: the backend that refused, if the call was made for a method or a role.
    """

    def __init__(self, message: str, status: int, text: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.text = text or message
        self.model: object = None


class Filtered(Refused):
    """A prompt that a content filter refused, or for which it withheld the reply."""


class TransientError(BackendError):
    """A model call that may succeed when repeated (transport, 408, 409, 429, 5xx).

    Attributes:
        retry_after: seconds from the server's Retry-After header, if present.
        kind: the fault's name in a run's counters, as `retried_<kind>`.
    """

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        kind: str = "other",
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.kind = kind


class Throttled(TransientError):
    """The server limits the rate of calls."""


class BrokenOff(TransientError):
    """A reply that ended neither whole nor at its allowance, for another reason than a refusal."""


class BudgetExceeded(RunError):
    """The next call might have passed `--max-cost`."""


class CacheMiss(BackendError):
    """A request that `--cache only` did not find in the response cache."""


class PluginError(PersonabenchError):
    """A fault in the code of a method or a task: it costs its sample, or ends a command early."""

    exit_code = 2
