"""The `personabench` command called in this process, with the promises that every command keeps."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from personabench.cli.app import main

LIMIT = 60.0
"""Seconds of a command on a busy machine; those that hang do so for ever."""


@dataclass(frozen=True)
class Ended:
    """A command that ended: its exit code and what it printed."""

    code: int
    out: str
    err: str


def call(*words: object) -> Ended:
    """Call a command; it must end with an exit code that is documented and without a traceback."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["personabench", *map(str, words)]
    code = 0
    try:
        with _time_limit(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before

    ended = Ended(code, out.getvalue(), err.getvalue())
    assert code in (0, 1, 2), (words, ended)
    for trace in ("Traceback", "did not expect"):
        assert trace not in ended.err, (words, ended.err)
    assert code == 0 or (ended.out + ended.err).strip(), words
    return ended


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError("the command hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
