"""A command in a process of its own, whose model counts calls and kills the process at one of them.

The processes are forked from a server that has imported the package, which takes a fraction of a
second where a new interpreter takes several.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from personabench.hashing import digest
from personabench.models.backends.scripted import Scripted, echo, fill_schema
from personabench.types import Request, Response

_FORK = multiprocessing.get_context("forkserver")
_FORK.set_forkserver_preload(
    [
        "personabench.cli.app",
        "personabench.run.runner",
        "personabench.leaderboard",
        "personabench.leaderboard.stats.resample",
        "personabench.methods.cipher",
        "personabench.methods.summary",
        "personabench.tasks.lamp",
        "personabench.tasks.prefdisco",
        "personabench.tasks.prelude",
        "numpy",
        "rouge_score.rouge_scorer",
    ]
)


@dataclass(frozen=True)
class Ended:
    """A command that ended: its exit code (negative: the signal), output and calls by request."""

    code: int
    output: str
    calls: Counter[str]


def in_form(request: Request) -> str:
    """A reply in the requested form, which depends on nothing but the request."""
    return echo(request) if request.schema is None else fill_schema(request.schema)


def run_counted(
    words: Sequence[str],
    folder: Path,
    *,
    kill_at: int = 0,
    signal_number: int = 0,
    seed: int = 0,
) -> Ended:
    """Run a command in a folder; send it a signal at a call if `kill_at` is not 0."""
    calls, output = folder / "calls.txt", folder / "output.txt"
    for path in (calls, output):
        path.write_text("")
    process = _FORK.Process(
        target=_run, args=(list(words), str(folder), kill_at, signal_number, seed)
    )
    process.start()
    process.join(90)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError(f"the command hangs: {words}, {output.read_text()}")
    return Ended(process.exitcode or 0, output.read_text(), Counter(calls.read_text().split()))


def _run(words: list[str], folder: str, kill_at: int, signal_number: int, seed: int) -> None:
    os.chdir(folder)
    log = os.open("output.txt", os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    calls = os.open("calls.txt", os.O_WRONLY | os.O_APPEND)
    delays = random.Random(seed)
    begun = 0

    async def complete(self: Scripted, request: Request, group: str) -> Response:
        nonlocal begun
        begun += 1
        os.write(calls, f"{digest(request)[:16]} ".encode())
        if begun == kill_at:
            os.kill(os.getpid(), signal_number)
        await asyncio.sleep(delays.random() / 100)
        return await original(self, request, group)

    original = Scripted.complete
    Scripted.complete = complete  # type: ignore[method-assign]
    Scripted.__init__.__defaults__ = (None, in_form, 0.0, None)  # type: ignore[attr-defined]

    from personabench.cli.app import main

    sys.argv = ["personabench", *words]
    try:
        main()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
    sys.stdout.flush()
    os._exit(0)
