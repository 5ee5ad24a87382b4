"""A vLLM server of our own: its command line, its start-up as people see it, and its end.

The server's output goes to the attempt's log, from which the stage it is in and, when it fails, the lines that say
why are read.  It runs under `warden.py`, so no way of leaving this process leaves the server behind.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from personabench.errors import UsageError
from personabench.models.backends import supervisor
from personabench.models.backends.vllm_arguments import option_name

COMMAND = "PERSONABENCH_VLLM"
POLL = 0.2
STILL = 30.0
_OURS = {
    "--host": "that is not chosen here",
    "--port": "that is not chosen here",
    "--model": "that is not chosen here; it goes beside --vllm-args",
    "--uds": "that is not chosen here",
    "--api-key": "that is not chosen here; set VLLM_API_KEY",
    "--hf-token": "a secret is no argument; set HF_TOKEN",
}
_STAGES = (
    (
        re.compile(r"Uvicorn running|Starting vLLM (API )?server|Application startup", re.I),
        "opening the API",
    ),
    (re.compile(r"captur\w+ (\w+ )?graph", re.I), "capturing graphs"),
    (re.compile(r"warming up", re.I), "warming up"),
    (
        re.compile(r"KV cache (size|memory)|num_gpu_blocks|# (GPU|CPU) blocks", re.I),
        "sizing the KV cache",
    ),
    (re.compile(r"torch\.compile|Compiling a graph|Dynamo bytecode", re.I), "compiling"),
    (
        re.compile(r"Start\w+ to load model|Loading (\w+ )?(checkpoint|weights|model)", re.I),
        "loading weights",
    ),
    (re.compile(r"Downloading|Fetching \d+ files", re.I), "downloading the model"),
    (re.compile(r"Initializing a V1|EngineCore|engine core", re.I), "starting the engine"),
)
_TELLING = re.compile(
    r"(\b\w*(Error|Exception)\b: |\berror: |out of memory|No module named|command not found)"
)
_MILD = re.compile(r"(\([^)]*pid=\d+\) ?)?(INFO|WARNING) ")
_PREFIX = re.compile(
    r"^(\([^)]*pid=\d+\) ?)?((ERROR|CRITICAL|INFO|WARNING) \d\d-\d\d [\d:.]+ )?(\[[^]]*:\d+\] ?)?"
)


def check_arguments(arguments: Sequence[str], where: str = "--vllm-args") -> None:
    """See that serving arguments choose nothing that is chosen here and hold no secret.

    Raises:
        UsageError: one does; its value is not repeated.
    """
    for argument in arguments:
        name = option_name(argument)
        # vLLM takes the start of an option's name for it.
        for option, why in _OURS.items():
            if name.startswith("--") and option.startswith(name):
                raise UsageError(f"{where} {name}: {why}")


def named_command() -> list[str]:
    """The words of PERSONABENCH_VLLM.

    Raises:
        UsageError: a quote in it is not closed.
    """
    try:
        return shlex.split(os.environ.get(COMMAND, ""))
    except ValueError as error:
        raise UsageError(f"{COMMAND}: {error}") from error


def named_arguments() -> list[str]:
    """The serving arguments that PERSONABENCH_VLLM has behind its program.

    Raises:
        UsageError: a quote in it is not closed, or one of them holds a secret.
    """
    words = named_command()
    ends = [
        end for end, word in enumerate(words, 1) if word == "serve" or word.endswith("api_server")
    ]
    arguments = words[ends[-1] :] if ends else []
    check_arguments(arguments, COMMAND)
    return arguments


def command(model: str, arguments: Sequence[str], window: int | None, port: int) -> list[str]:
    """The command that serves a model on a loopback port.

    vLLM is the program named by the variable PERSONABENCH_VLLM (a command line, such as
    "/opt/vllm/bin/python -m vllm.entrypoints.openai.api_server"), else `vllm serve` beside this interpreter or on the
    PATH, else this interpreter's `vllm` module.

    Raises:
        UsageError: no vLLM anywhere, or an argument that is not the user's to choose.
    """
    check_arguments(arguments)
    beside = shutil.which("vllm", path=str(Path(sys.executable).parent)) or shutil.which("vllm")
    if named := named_command():
        if shutil.which(named[0]) is None:
            raise UsageError(f"{COMMAND} names {named[0]}, which is no program here")
        start = [*named, "--model", model] if named[-1] != "serve" else [*named, model]
    elif beside:
        start = [beside, "serve", model]
    elif find_spec("vllm"):
        start = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    else:
        raise UsageError(
            f"no vllm here: pip install 'personabench-harness[vllm]', or name its command in {COMMAND}, "
            "or attach to a running server with --base-url"
        )
    limits = ["--max-model-len", str(window)] if window else []
    fixed = ["--host", "127.0.0.1", "--port", str(port), "--uvicorn-log-level", "warning"]
    return [*start, *fixed, "--enable-prefix-caching", *limits, *arguments]


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tell(line: str) -> None:
    """Say something to the person at the terminal."""
    print(f"vllm   {line}", file=sys.stderr, flush=True)


class Server:
    """A running server process.

    Args:
        words: its command line.
        log: a file that its output is appended to; None for a file that is deleted at the end.
        say: where stages of its start-up go.
    """

    def __init__(
        self, words: Sequence[str], log: Path | None, say: Callable[[str], None] = tell
    ) -> None:
        self._own_log = log is None
        if log is None:
            handle, name = tempfile.mkstemp(prefix="vllm-", suffix=".log")
            os.close(handle)
            log = Path(name)
        self.log = log
        self._say = say
        self._began = time.monotonic()
        self._stage = "starting"
        with log.open("ab") as output:
            self._from = self._read = output.tell()
            output.write(f"starting {shlex.join(words)}\n".encode())
            output.flush()
            self._process = subprocess.Popen(
                [sys.executable, str(Path(supervisor.__file__).resolve()), *words],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def ended(self) -> bool:
        """Whether the server is gone."""
        return self._process.poll() is not None

    async def wait(self, healthy: Callable[[], Awaitable[bool]], deadline: float) -> None:
        """Return when `healthy()` says so; `deadline` is in seconds from the start.

        Raises:
            UsageError: the server ended or was too slow; the message has the lines of its log that say why.
        """
        said = 0.0
        self._say(f"{self._stage}; log in {self.log}")
        while not await healthy():
            passed = time.monotonic() - self._began
            if self.ended:
                raise UsageError(
                    f"vllm ended with exit code {self._process.returncode} before it was ready{self.why()}"
                )
            if passed > deadline:
                raise UsageError(
                    f"vllm was not ready after {deadline:.0f} s, last seen {self._stage}; "
                    f"allow it more with --start-timeout{self.why()}"
                )
            if self._advance() or passed - said > STILL:
                said = passed
                self._say(f"{self._stage} ({passed:.0f} s)")
            await asyncio.sleep(POLL)
        self._say(f"ready after {time.monotonic() - self._began:.0f} s")

    def why(self) -> str:
        """The lines of the log that say what went wrong, indented, below a line that says where they are from."""
        with self.log.open("rb") as file:
            file.seek(self._from)
            raw = [line.rstrip() for line in file.read().decode(errors="replace").splitlines()[1:]]
        grave = [_PREFIX.sub("", line) for line in raw if not _MILD.match(line)]
        lines = list(filter(None, (_PREFIX.sub("", line) for line in raw)))
        telling = list(dict.fromkeys(line.strip() for line in grave if _TELLING.search(line)))
        shown = telling[:4] + telling[4:][-2:] if telling else lines[-8:]
        where = "" if self._own_log else f" (all of it in {self.log})"
        return (
            f"; its log says{where}:\n" + "\n".join(f"  {line[:300]}" for line in shown)
            if shown
            else ""
        )

    async def stop(self) -> None:
        """End the server and everything it started; returns when they are gone."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        until = time.monotonic() + supervisor.GRACE + 10
        while not self.ended and time.monotonic() < until:
            await asyncio.sleep(0.05)
        if not self.ended:
            self._process.kill()
            self._process.wait()
        if self._own_log:
            self.log.unlink(missing_ok=True)

    def _advance(self) -> bool:
        """Read on in the log; whether the server has come to another stage."""
        with self.log.open("rb") as file:
            file.seek(self._read)
            fresh = file.read()
        whole = fresh.rfind(b"\n") + 1
        self._read += whole
        before = self._stage
        for line in fresh[:whole].decode(errors="replace").splitlines():
            line = _PREFIX.sub("", line)
            self._stage = next(
                (words for pattern, words in _STAGES if pattern.search(line)), self._stage
            )
        return self._stage != before
