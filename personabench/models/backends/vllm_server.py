"""A vLLM server started for a run: its command line, start-up messages, and its end.

The server's output goes to the log of the attempt, from which its stage and, when it fails, the
relevant lines are read.  It runs under `supervisor.py`, so that it never outlives this process.
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

from personabench.errors import UsageError, visible
from personabench.models.backends import supervisor
from personabench.models.backends.vllm_arguments import option_name

COMMAND = "PERSONABENCH_VLLM"
POLL = 0.2
STILL = 30.0
"""Seconds without a new stage after which the current one is reported again."""

# Arguments that only this module may set, with the reason and the alternative.
_RESERVED = {
    "--host": "cannot be set here",
    "--port": "cannot be set here",
    "--model": "cannot be set here; use the option --model beside --vllm-args",
    "--uds": "cannot be set here",
    "--api-key": "cannot be set here; set VLLM_API_KEY",
    "--hf-token": "a secret must not be an argument; set HF_TOKEN",
}

# Latest stage first, since a line may fit several patterns.
_STAGE_PATTERNS = {
    "opening the API": r"Uvicorn running|Starting vLLM (API )?server|Application startup",
    "capturing graphs": r"captur\w+ (\w+ )?graph",
    "warming up": r"warming up",
    "sizing the KV cache": r"KV cache (size|memory)|num_gpu_blocks|# (GPU|CPU) blocks",
    "compiling": r"torch\.compile|Compiling a graph|Dynamo bytecode",
    "loading weights": r"Start\w+ to load model|Loading (\w+ )?(checkpoint|weights|model)",
    "downloading the model": r"Downloading|Fetching \d+ files",
    "starting the engine": r"Initializing a V1|EngineCore|engine core",
}
_STAGES = {stage: re.compile(pattern, re.I) for stage, pattern in _STAGE_PATTERNS.items()}

_ERROR = re.compile(
    r"(\b\w*(Error|Exception)\b: |\berror: |out of memory|No module named|command not found)"
)
_NO_ERROR = re.compile(r"(\([^)]*pid=\d+\) ?)?(INFO|WARNING) ")
_PREFIX = re.compile(
    r"^(\([^)]*pid=\d+\) ?)?((ERROR|CRITICAL|INFO|WARNING) \d\d-\d\d [\d:.]+ )?(\[[^]]*:\d+\] ?)?"
)


def check_arguments(arguments: Sequence[str], source: str = "--vllm-args") -> None:
    """Check that serving arguments set nothing that is reserved and hold no secret.

    Raises:
        UsageError: an argument does; its value is not repeated.
    """
    for argument in arguments:
        name = option_name(argument)
        for option, reason in _RESERVED.items():
            # vLLM accepts abbreviations of its options.
            if name.startswith("--") and option.startswith(name):
                raise UsageError(f"{source} {name}: {reason}")


def named_command() -> list[str]:
    """Return the words of PERSONABENCH_VLLM.

    Raises:
        UsageError: a quotation mark in it is not closed.
    """
    try:
        return shlex.split(os.environ.get(COMMAND, ""))
    except ValueError as error:
        raise UsageError(f"{COMMAND}: {error}") from error


def named_arguments() -> list[str]:
    """Return the serving arguments that follow the program in PERSONABENCH_VLLM.

    Raises:
        UsageError: a quotation mark in it is not closed, or an argument holds a secret.
    """
    words = named_command()
    arguments: list[str] = []
    for index, word in enumerate(words):
        # Everything up to the last of these words starts the program.
        if word == "serve" or word.endswith("api_server"):
            arguments = words[index + 1 :]
    check_arguments(arguments, COMMAND)
    return arguments


def command(model: str, arguments: Sequence[str], window: int | None, port: int) -> list[str]:
    """Return the command that serves a model on a loopback port.

    Raises:
        UsageError: there is no vLLM, or an argument is reserved.
    """
    check_arguments(arguments)
    words = _program(model)
    words += ["--host", "127.0.0.1", "--port", str(port), "--uvicorn-log-level", "warning"]
    words.append("--enable-prefix-caching")
    if window:
        words += ["--max-model-len", str(window)]
    return [*words, *arguments]


def _program(model: str) -> list[str]:
    """Return the start of the command line, with the model.

    vLLM is the program named by the variable PERSONABENCH_VLLM (a command line, such as
    "/opt/vllm/bin/python -m vllm.entrypoints.openai.api_server"), else `vllm serve` beside this
    interpreter or on the PATH, else this interpreter's `vllm` module.
    """
    named = named_command()
    if named:
        if shutil.which(named[0]) is None:
            raise UsageError(f"{COMMAND} names {named[0]}, which is not a program on this machine")
        # `vllm serve` takes the model as its first argument, the module as an option.
        return [*named, model] if named[-1] == "serve" else [*named, "--model", model]

    beside_interpreter = shutil.which("vllm", path=str(Path(sys.executable).parent))
    program = beside_interpreter or shutil.which("vllm")
    if program:
        return [program, "serve", model]
    if find_spec("vllm"):
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    raise UsageError(
        "vLLM is not installed: pip install 'personabench-harness[vllm]', or set its command in "
        f"{COMMAND}, or attach to a running server with --base-url"
    )


def free_port() -> int:
    """Return a loopback port that no program uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def print_status(line: str) -> None:
    """Print a status line of the server to the terminal."""
    print(f"vllm   {visible(line)}", file=sys.stderr, flush=True)


class Server:
    """A running server process.

    Args:
        words: its command line.
        log: a file that its output is appended to; None for a file that is deleted at the end.
        report: is called with each stage of its start-up.
    """

    def __init__(
        self,
        words: Sequence[str],
        log: Path | None,
        report: Callable[[str], None] = print_status,
    ) -> None:
        self._is_log_temporary = log is None
        if log is None:
            handle, name = tempfile.mkstemp(prefix="vllm-", suffix=".log")
            os.close(handle)
            log = Path(name)
        self.log = log
        self._report = report
        self._start = time.monotonic()
        self._stage = "starting"

        with log.open("ab") as output:
            # The log may hold earlier attempts, which say nothing about this server.
            self._log_start = output.tell()
            self._log_position = self._log_start
            output.write(f"starting {shlex.join(words)}\n".encode())
            output.flush()

            supervisor_script = str(Path(supervisor.__file__).resolve())
            self._process = subprocess.Popen(
                [sys.executable, supervisor_script, *words],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                # Buffered, the stage of start-up would reach the log too late.
                # The server is ours alone, so it may load the adapters of the run.
                env={
                    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
                    **os.environ,
                    "PYTHONUNBUFFERED": "1",
                },
            )

    @property
    def ended(self) -> bool:
        """Whether the server process has ended."""
        return self._process.poll() is not None

    async def wait(self, healthy: Callable[[], Awaitable[bool]], deadline: float) -> None:
        """Wait until `healthy()` is true; `deadline` is in seconds from the start.

        Raises:
            UsageError: the server ended or was too slow; the message has the relevant lines of its
                log.
        """
        last_report = 0.0
        self._report(f"{self._stage}; log in {self.log}")
        while not await healthy():
            elapsed = time.monotonic() - self._start
            if self.ended:
                raise UsageError(
                    f"vllm ended with exit code {self._process.returncode} before it was ready"
                    f"{self.describe_failure()}"
                )
            if elapsed > deadline:
                raise UsageError(
                    f"vllm was not ready after {deadline:.0f} s, last seen {self._stage}; "
                    f"allow more time with --start-timeout{self.describe_failure()}"
                )

            if self._read_stage() or elapsed - last_report > STILL:
                last_report = elapsed
                self._report(f"{self._stage} ({elapsed:.0f} s)")
            await asyncio.sleep(POLL)
        self._report(f"ready after {time.monotonic() - self._start:.0f} s")

    def describe_failure(self) -> str:
        """Return the lines of the log that explain a failure, as the end of a message."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            text = file.read().decode(errors="replace")
        # The first line is the command.
        lines = text.splitlines()[1:]

        excerpt = _find_errors(lines)
        if not excerpt:
            # Without an error message, the end of the log is the best explanation.
            stripped = [_PREFIX.sub("", line.rstrip()) for line in lines]
            excerpt = [line for line in stripped if line][-8:]
        if not excerpt:
            return ""

        source = "" if self._is_log_temporary else f" (complete in {self.log})"
        indented = "\n".join(f"  {line[:300]}" for line in excerpt)
        return f"; from its log{source}:\n{indented}"

    async def stop(self) -> None:
        """End the server and all processes it started; return when they have ended."""
        assert self._process.stdin is not None
        # The supervisor's signal to end.
        self._process.stdin.close()
        deadline = time.monotonic() + supervisor.GRACE + 10
        while not self.ended and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

        if not self.ended:
            self._process.kill()
            self._process.wait()
        if self._is_log_temporary:
            self.log.unlink(missing_ok=True)

    def _read_stage(self) -> bool:
        """Read the new lines of the log; return whether the server has reached another stage."""
        with self.log.open("rb") as file:
            file.seek(self._log_position)
            content = file.read()

        # A line may be half written; its rest is read next time.
        complete = content.rfind(b"\n") + 1
        self._log_position += complete

        stage_before = self._stage
        for line in content[:complete].decode(errors="replace").splitlines():
            self._stage = _find_stage(_PREFIX.sub("", line)) or self._stage
        return self._stage != stage_before


def _find_stage(line: str) -> str | None:
    for stage, pattern in _STAGES.items():
        if pattern.search(line):
            return stage
    return None


def _find_errors(lines: Sequence[str]) -> list[str]:
    """Return the error messages of a log: the first four (the cause) and the last two."""
    errors = []
    for line in lines:
        if _NO_ERROR.match(line):
            continue
        message = _PREFIX.sub("", line.rstrip())
        if _ERROR.search(message):
            errors.append(message.strip())

    # Each process of a server repeats the error of the first.
    distinct = list(dict.fromkeys(errors))
    return distinct[:4] + distinct[4:][-2:]
