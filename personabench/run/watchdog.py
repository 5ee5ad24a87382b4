"""A watchdog for plugins that block the event loop, as `time.sleep` or a long computation does."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from personabench.api.guard import find_plugin_call, stack_of
from personabench.errors import visible
from personabench.types import Sample

LIMIT = 30.0
"""Seconds after which a blocked loop is reported."""

_log = logging.getLogger("personabench.engine")


def warn(message: str) -> None:
    """Write a warning to the run's log and to the terminal."""
    _log.warning("%s", message)
    print(f"warning: {visible(message)}", file=sys.stderr)


@contextmanager
def watch_opening(limit: float = LIMIT, report: Callable[[str], None] = warn) -> Iterator[None]:
    """Report plugin code that reads data for longer than `limit` seconds, once.

    The data is opened without a loop, so that `load` is the call that this thread is in.
    """
    thread = threading.get_ident()
    ended = threading.Event()

    def watch() -> None:
        if ended.wait(limit):
            return
        call = find_plugin_call(stack_of(sys._current_frames().get(thread)))
        if call:
            report(f"{call} has been reading data for {limit:.0f} s; press Ctrl-C to end it")

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def watch_loop(limit: float = LIMIT, report: Callable[[str], None] = warn) -> Iterator[None]:
    """Report plugin code that blocks the running loop for longer than `limit` seconds, once."""
    loop = asyncio.get_running_loop()
    loop_thread = threading.get_ident()
    last_beat = time.monotonic()
    timer: asyncio.TimerHandle | None = None
    stop = threading.Event()

    def beat() -> None:
        nonlocal last_beat, timer
        last_beat = time.monotonic()
        timer = loop.call_later(limit / 4, beat)

    def watch() -> None:
        reported = None
        while not stop.wait(limit / 4):
            blocked_since = last_beat
            seconds = time.monotonic() - blocked_since
            if seconds < limit or blocked_since == reported:
                continue
            reported = blocked_since
            frames = sys._current_frames()
            message = _describe(frames.get(loop_thread), seconds)
            if message:
                report(message)

    beat()
    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        stop.set()
        if timer is not None:
            timer.cancel()


def _describe(frame: FrameType | None, seconds: float) -> str:
    """Name the call that blocks the loop; empty if it is in no plugin."""
    stack = stack_of(frame)
    call = find_plugin_call(stack)
    if call is None:
        return ""

    sample_id = _find_sample(stack)
    at_sample = f" at sample {sample_id}" if sample_id else ""
    return (
        f"{call} has blocked the event loop for {seconds:.0f} s{at_sample}, so all samples wait; "
        "use `await asyncio.sleep(...)`, or `await asyncio.to_thread(...)` for long computations"
    )


def _find_sample(stack: list[FrameType]) -> str | None:
    """Return the id of the sample that the innermost frame with one works on."""
    for frame in stack:
        for value in list(frame.f_locals.values()):
            if isinstance(value, Sample):
                return value.id
    return None
