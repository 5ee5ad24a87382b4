"""Progress on stderr: a live bar on a terminal, a plain line every few seconds elsewhere.

The display reads counters from its own thread, so that the engine never waits for it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from personabench.run.quiet import WITHHELD

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from personabench.api import downloads
    from personabench.models.client import Client
    from personabench.run.progress import Progress
    from personabench.run.runner import Watch

# Seconds between plain lines: often enough to see a run is alive, seldom enough for a log file.
PLAIN_EVERY = 10.0


def watching(console: Console) -> Watch:
    """Return a `watch` for `runner.run` that shows progress on a console."""

    def watch(title: str, progress: Progress, client: Client) -> AbstractContextManager[None]:
        return (_live if console.is_terminal else _plain)(console, title, progress, client)

    return watch


@contextlib.contextmanager
def _live(console: Console, title: str, counts: Progress, client: Client) -> Iterator[None]:
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.text import Text

    from personabench.run.progress import CommandProgress

    bar = Progress(
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[times]}"),
    )
    bar_id = bar.add_task("", total=counts.total, times="")
    heading = Text(no_wrap=True, overflow="ellipsis")
    detail = Text(style="dim", no_wrap=True, overflow="ellipsis")

    def update() -> None:
        command = counts.command or CommandProgress()
        completed, total = counts.before + counts.done, counts.total
        elapsed = command.elapsed or time.monotonic() - counts.started
        heading.plain = title
        if len(command.runs) > 1:
            number, runs = command.place(counts)
            heading.plain += f": {completed}/{total}, run {number} of {runs}"
            completed, total = command.completed, command.total
        times = f"{format_duration(elapsed)}, {_describe_eta(counts)}"
        bar.update(bar_id, completed=completed, total=total, times=times)
        detail.plain = f"  {_detail(counts, client)}"

    live = Live(Group(heading, bar, detail), console=console, refresh_per_second=4, transient=True)
    with live, _every(0.25, update):
        yield
    # One line stays of each run: one bar at a time shows all that is left of the command.
    console.print(_describe_end(title, counts), markup=False, soft_wrap=True)


@contextlib.contextmanager
def _plain(console: Console, title: str, counts: Progress, client: Client) -> Iterator[None]:
    printed = time.monotonic()
    is_trouble_printed = False

    def print_line() -> None:
        done, total = counts.before + counts.done, counts.total
        command = counts.command
        of_all = ""
        if command is not None and len(command.runs) > 1:
            of_all = f" ({command.completed}/{command.total} of all runs)"
        eta = _describe_eta(counts) if done < total else ""
        parts = [f"{title}: {done}/{total}{of_all}", *([eta] if eta else [])]
        console.print(
            f"{', '.join(parts)}; {_detail(counts, client)}", markup=False, soft_wrap=True
        )

    def tick() -> None:
        nonlocal printed, is_trouble_printed
        # The first error is shown at once: it may be all that will ever come.
        is_new_trouble = bool(client.traffic.trouble) and not is_trouble_printed
        if is_new_trouble or time.monotonic() - printed >= PLAIN_EVERY:
            printed = time.monotonic()
            is_trouble_printed = is_trouble_printed or is_new_trouble
            print_line()

    with _every(0.5, tick):
        yield
    print_line()


def _describe_eta(counts: Progress) -> str:
    """The time that is left of the command, of all its runs; empty before anything is known."""
    command = counts.command
    remaining = command.remaining() if command is not None else None
    if remaining is None:
        done, total = counts.done, counts.total - counts.before
        if not done:
            return "ETA unknown yet"
        remaining = (time.monotonic() - counts.started) / done * (total - done)
    bound = "at least " if command is not None and command.is_open else ""
    return f"ETA {bound}{format_duration(remaining)}"


def format_duration(seconds: float) -> str:
    """Format a duration in two units at most: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 100 else f"{hours // 24} days {hours % 24} h"


def _describe_end(title: str, counts: Progress) -> str:
    seconds = format_duration(time.monotonic() - counts.started)
    parts = [f"{title}: {counts.before + counts.done}/{counts.total}", seconds]
    score = counts.score() if counts.score is not None else ""
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    if score and not counts.before:
        parts.append(score)
    return ", ".join(parts)


def _detail(counts: Progress, client: Client) -> str:
    traffic = client.traffic
    rate = counts.done / max(time.monotonic() - counts.started, 1e-9)
    score = counts.score() if counts.score is not None else ""
    parts = [
        *([score] if score else []),
        f"{rate:.1f}/s" if rate >= 1 else f"{rate:.2f}/s",
        f"{traffic.paid} calls",
        f"{traffic.cached} cached",
        f"{traffic.input_tokens + traffic.output_tokens:,} tokens",
    ]
    budget = client.budget
    if budget is not None and budget.prices:
        parts.append(f"{budget.spent:.4g} spent")
    if client.limiter.width < client.limiter.most:
        parts.append(f"{client.limiter.width} at once")
    if traffic.retries:
        parts.append(f"{traffic.retries} retries")
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    if traffic.trouble:
        parts.append(f"the last error: {_describe_trouble(counts, client)}")
    if counts.stopping and counts.before + counts.done < counts.total:
        parts = ["stopping after the calls in flight; press Ctrl-C again to drop them"]
    return ", ".join(parts)


def _describe_trouble(counts: Progress, client: Client) -> str:
    """The error of the last retry; its kind alone for a task whose texts it might quote."""
    traffic = client.traffic
    return f"{traffic.trouble_kind}; {WITHHELD}" if counts.sensitive else traffic.trouble


@contextlib.contextmanager
def downloading(console: Console) -> Iterator[downloads.Progress]:
    """Yield a progress callback for `downloads.fetch` that shows files on a console."""
    with (_bars if console.is_terminal else _lines)(console) as progress:
        yield progress


@contextlib.contextmanager
def _bars(console: Console) -> Iterator[downloads.Progress]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        DownloadColumn(),
    )
    with Bars(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console) as bars:
        bar_ids: dict[str, TaskID] = {}

        def show(url: str, done: int, total: int | None) -> None:
            if url not in bar_ids:
                bar_ids[url] = bars.add_task(url.rsplit("/", 1)[-1])
            bars.update(bar_ids[url], completed=done, total=total)

        yield show


@contextlib.contextmanager
def _lines(console: Console) -> Iterator[downloads.Progress]:
    latest: dict[str, tuple[int, int | None]] = {}
    printed = time.monotonic()

    def print_line(url: str) -> None:
        done, total = latest.pop(url)
        name = url.rsplit("/", 1)[-1]
        size = "" if total is None else f" of {total / 1e6:.1f} MB"
        console.print(f"{name}: {done / 1e6:.1f} MB{size}", markup=False, soft_wrap=True)

    def show(url: str, done: int, total: int | None) -> None:
        nonlocal printed
        # The last line of a file must show all of it, so it is printed before the next file begins.
        for finished in [name for name in latest if name != url]:
            print_line(finished)
        latest[url] = done, total
        if time.monotonic() - printed >= PLAIN_EVERY:
            printed = time.monotonic()
            print_line(url)

    yield show
    for url in [*latest]:
        print_line(url)


@contextlib.contextmanager
def _every(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Call a function regularly while the block runs, and once at its end."""
    stopped = threading.Event()

    def loop() -> None:
        while not stopped.wait(seconds):
            act()

    thread = threading.Thread(target=loop, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        act()
