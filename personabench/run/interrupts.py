"""Interrupts during model calls: the first winds down, further ones drop calls in flight."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GRACE = 20.0
"""Seconds that calls in flight get after the first interrupt."""


@contextmanager
def on_interrupt(first: Callable[[], None], again: Callable[[], None]) -> Iterator[None]:
    """Call `first` at the first SIGINT or SIGTERM while the block runs, `again` at every further
    one.

    If the running loop cannot handle signals, as in a thread, nothing is called.
    """
    loop = asyncio.get_running_loop()
    interrupted = False
    handled: list[signal.Signals] = []

    def handle() -> None:
        nonlocal interrupted
        callback = again if interrupted else first
        interrupted = True
        callback()

    for name in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(name, handle)
        except (NotImplementedError, RuntimeError, ValueError):
            # Windows has no signal handlers in loops, and threads other than the main one none at
            # all.
            continue
        handled.append(name)

    try:
        yield
    finally:
        for name in handled:
            loop.remove_signal_handler(name)
