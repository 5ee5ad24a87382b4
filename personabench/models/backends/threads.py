"""The number of threads for a model in this process."""

from __future__ import annotations

import os

from personabench.errors import UsageError

THREADS = "PERSONABENCH_THREADS"
GLANCE = 0.2
"""Seconds over which the load of the machine is measured."""


def count_threads() -> int:
    """Return the number of threads: that of PERSONABENCH_THREADS, or else the free cores.

    It changes the last digits of long prompts, and with them some greedy answers, so answers that
    must be the same on a busy machine need a fixed number.

    Raises:
        UsageError: the variable holds no whole number above 0.
    """
    text = os.environ.get(THREADS, "").strip()
    if not text:
        return free_cores()
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{THREADS}={text}: write a whole number of threads, such as 2")
    return int(text)


def free_cores() -> int:
    """Choose the number of threads: all cores, fewer if other work fills more than half of them.

    With c cores of which a share l is busy, it is c - max(0, c l - c / 2), rounded, and never more
    than this process may run on: 2, 4 and 16 on idle machines of so many cores, half of them on
    machines that are full.
    """
    import psutil

    # Threads wait for each other at every layer, so on a busy machine one thread can be ten times
    # as fast as one per core.
    cores = os.cpu_count() or 1
    load = psutil.cpu_percent(interval=GLANCE) / 100
    excess: float = cores * load - cores / 2
    free = round(cores - max(0.0, excess))
    return max(1, min(_allowed_cores() or cores, free))


def _allowed_cores() -> int | None:
    """The cores that this process may run on, as set by `taskset` or a container; None if unknown.

    Only Linux knows.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    return len(os.sched_getaffinity(0))
