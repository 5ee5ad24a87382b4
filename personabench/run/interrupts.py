"""Ctrl-C while calls are in flight: the first lets them finish for a while, the second drops them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GRACE = 20.0
"""Seconds that calls in flight get after the first interrupt."""


@contextmanager
def on_interrupt(first: Callable[[], None], again: Callable[[], None]) -> Iterator[None]:
    """Call `first` at the first interrupt (SIGINT, SIGTERM) while the block runs, `again` at every further one.

    Where the running loop cannot listen to signals, as in a thread, nothing is called.
    """
    loop = asyncio.get_running_loop()
    waiting = [first]
    handled = []

    def interrupted() -> None:
        (waiting.pop() if waiting else again)()

    for name in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(name, interrupted)
            handled.append(name)
        except (NotImplementedError, RuntimeError, ValueError):
            continue
    try:
        yield
    finally:
        for name in handled:
            loop.remove_signal_handler(name)
