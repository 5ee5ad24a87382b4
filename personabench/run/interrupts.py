"""Interrupts: the first winds down, the second drops calls in flight and always ends the process.

Plugin code may block the event loop or swallow its cancellation.  Nothing here therefore waits for
it without a limit: handlers run between two instructions of whatever is running, and a thread ends
a command that does not end after its second interrupt.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from personabench.api.guard import (
    TRACEBACKS,
    describe_error,
    find_plugin_call,
    is_fault,
    stack_of,
)
from personabench.run.watchdog import warn

T = TypeVar("T")
Handler = Callable[[int, FrameType | None], None]

GRACE = 20.0
"""Seconds that calls in flight get after the first interrupt."""

PATIENCE = 1.0
"""Seconds that a cancelled task gets to end."""

FORCED = 1.5
"""Seconds between the second interrupt and the end of a command's process."""

TERMINATED = GRACE + 10.0
"""Seconds between a SIGTERM and the end of a command's process: schedulers send only one."""

abandoned: list[asyncio.Task[Any]] = []
"""Tasks that swallow their cancellation.  A process with any can end by `os._exit` alone."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Command:
    """The interrupts of a command so far.

    Args:
        farewell: the last words of a process that is ended by force.
    """

    def __init__(self, farewell: str) -> None:
        self.farewell = farewell
        self.interrupts = 0
        self._main_thread = threading.get_ident()
        self._closed = threading.Event()

    def count(self) -> None:
        """Count an interrupt; the second one starts the clock."""
        self.interrupts += 1
        if self.interrupts >= 2:
            self.end_in(FORCED)

    def end_in(self, delay: float) -> None:
        """End the process in `delay` seconds, unless the command has ended by then."""
        threading.Thread(target=self._end_unless_closed, args=(delay,), daemon=True).start()

    def close(self) -> None:
        """Note that the command has ended: its process may go on, as that of a plugin's tests."""
        self._closed.set()

    def _end_unless_closed(self, delay: float) -> None:
        if self._closed.wait(delay):
            return
        try:
            frames = sys._current_frames()
            culprit = find_plugin_call(stack_of(frames.get(self._main_thread)))
            # Written to the descriptor: the main thread may hold the lock of the stream.
            text = f"{culprit} does not stop\n" if culprit else ""
            os.write(2, f"{text}{self.farewell}\n".encode(errors="replace"))
        finally:
            os._exit(130)


_command: _Command | None = None


@contextmanager
def on_interrupt(first: Callable[[], None], again: Callable[[], None]) -> Iterator[None]:
    """Call `first` at the first SIGINT or SIGTERM in the block, `again` at every further one.

    The calls are made by the running loop.  Outside of the main thread nothing is called.
    """
    loop = asyncio.get_running_loop()
    interrupted = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        callback = again if interrupted else first
        interrupted = True
        if _command is not None:
            _command.count()
        loop.call_soon_threadsafe(callback)

    with _handling(handle):
        yield


@contextmanager
def ending_command(farewell: str) -> Iterator[None]:
    """End the process within `FORCED` seconds of the second interrupt while the block runs.

    The first one raises KeyboardInterrupt outside of `on_interrupt`.
    """
    global _command
    before = _command
    command = _command = _Command(farewell)

    def handle(number: int, frame: FrameType | None) -> None:
        command.count()
        # Raised by Python's own handler, so that no plugin is taken for its origin.
        signal.default_int_handler(number, frame)

    try:
        with _handling(handle), _watching_signals(command):
            yield
    finally:
        command.close()
        _command = before


def run_command(main: Coroutine[Any, Any, T], farewell: str) -> T:
    """Run the coroutine of a command, as `asyncio.run` does.

    The second interrupt ends the process within `FORCED` seconds, whatever the command is doing.

    Raises:
        KeyboardInterrupt: interrupted outside of `on_interrupt`.
    """
    runner = asyncio.Runner()
    loop = runner.get_loop()
    task = loop.create_task(main)

    def handle(number: int, frame: FrameType | None) -> None:
        command = _require_command()
        command.count()
        if command.interrupts == 1 and not task.done():
            loop.call_soon_threadsafe(task.cancel)
            return
        signal.default_int_handler(number, frame)

    with ending_command(farewell), _handling(handle):
        try:
            return _run_past_exits(loop, task)
        except asyncio.CancelledError:
            if _require_command().interrupts:
                raise KeyboardInterrupt from None
            raise
        finally:
            _close(runner)


def _run_past_exits(loop: asyncio.AbstractEventLoop, main: asyncio.Task[T]) -> T:
    """Run a loop until its main task ends.

    An exit in a task or callback of a plugin ends every loop.  Here the loop goes on; whoever
    awaits that task gets the exception.
    """
    report = _background_reporter()
    loop.set_exception_handler(lambda _, context: report(context.get("exception")))
    while True:
        try:
            return loop.run_until_complete(main)
        except (SystemExit, KeyboardInterrupt) as error:
            if main.done() or not is_fault(error):
                raise
            report(error)


def _background_reporter() -> Callable[[BaseException | None], None]:
    """Return a function that reports an exception of a background task, one of a kind once."""
    reported = set()

    def report(error: BaseException | None) -> None:
        if error is None:
            return
        TRACEBACKS.error("a background task", exc_info=error)
        file, line, *_ = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{file}, line {line}: a background task raised {describe_error(error)}"
        if message not in reported:
            reported.add(message)
            warn(message)

    return report


def _require_command() -> _Command:
    assert _command is not None, "inside of ending_command"
    return _command


async def cancel_all(tasks: Collection[asyncio.Task[Any]]) -> list[str]:
    """Cancel tasks and wait until they end, or abandon them.

    Returns:
        the calls in plugins that have swallowed their cancellation.
    """
    if not tasks:
        return []

    for task in tasks:
        task.cancel()
    done, pending = await asyncio.wait(tasks, timeout=PATIENCE)
    for task in done:
        # Read once, since asyncio complains of exceptions that nobody reads.
        if not task.cancelled():
            task.exception()

    abandoned.extend(task for task in pending if task not in abandoned)
    calls = [find_plugin_call(suspended_stack(task)) for task in pending]
    return sorted({call or "a task" for call in calls})


def suspended_stack(task: asyncio.Task[Any]) -> list[FrameType]:
    """Return the frames of a suspended task, innermost first."""
    frames: list[FrameType] = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            frames.append(frame)
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return frames[::-1]


def _close(runner: asyncio.Runner) -> None:
    """Close a runner's loop, unless a task of it swallows its cancellation."""
    loop = runner.get_loop()
    rest = [task for task in asyncio.all_tasks(loop) if task not in abandoned]
    loop.run_until_complete(cancel_all(rest))
    if not any(task.get_loop() is loop for task in abandoned):
        runner.close()


@contextmanager
def _handling(handle: Handler) -> Iterator[None]:
    """Handle interrupts by a function while the block runs."""
    # Python delivers signals to the main thread only.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    before = {name: signal.signal(name, handle) for name in _SIGNALS}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _watching_signals(command: _Command) -> Iterator[None]:
    """Count signals in a thread as well: handlers cannot run while the main thread is in C code."""
    # Windows takes no pipe here, and its loop has the place for itself.
    on_main_thread = threading.current_thread() is threading.main_thread()
    if sys.platform == "win32" or not on_main_thread:
        yield
        return

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        interrupts = 0
        with contextlib.suppress(OSError):
            while data := os.read(reader, 64):
                interrupts += sum(number in _SIGNALS for number in data)
                if interrupts >= 2:
                    command.end_in(FORCED)
                elif signal.SIGTERM in data:
                    command.end_in(TERMINATED)
        os.close(reader)

    threading.Thread(target=watch, name="interrupts", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
