"""Run a command and end it, with all processes it started, as soon as standard input closes.

A program that starts a server through this script holds the other end of that pipe, so the server
ends with the program however that ends: normally, by an error, by a signal, by kill -9.  The
command gets a session of its own, which shields it from the terminal's Ctrl-C; processes that it
leaves behind are adopted (Linux) and ended too.  It runs as a script, in any interpreter, so it
uses the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""

# PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER of Linux's prctl.h.
_DEATH_SIGNAL = 1
_ADOPT_ORPHANS = 36


def main(command: Sequence[str]) -> int:
    """Run a command until it ends or standard input closes; return its exit code."""
    end = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, lambda *_: end.set())
    _prctl(_ADOPT_ORPHANS, 1)

    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        # Should this process be killed, the child goes as well.
        preexec_fn=lambda: _prctl(_DEATH_SIGNAL, signal.SIGKILL),
    )
    threading.Thread(target=_await_end_of_input, args=(end,), daemon=True).start()
    while child.poll() is None and not end.wait(0.1):
        pass

    if child.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
    # Even after a normal end: the command may have left processes of its group.
    _signal_group(child.pid, signal.SIGKILL)
    code = child.wait()

    _kill_orphans()
    # The shell's convention for a command that a signal ended.
    return code if code >= 0 else 128 - code


def _kill_orphans() -> None:
    # In rounds: the children of a killed process become this one's.
    while True:
        children = list(_children())
        if not children:
            return
        for process in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)


def _await_end_of_input(end: threading.Event) -> None:
    sys.stdin.buffer.read()
    end.set()


def _signal_group(group: int, name: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, name)


def _children() -> Iterator[int]:
    """Yield the child processes of this one, from Linux's /proc; none on other systems."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The second field, a program's name in parentheses, may hold spaces.
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                yield int(stat.parent.name)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    # Daemon thread and interpreter exit would otherwise meet at standard input's lock.
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
