"""Where answers come from.

A backend turns a `Request` into a `Response` and nothing more: retries, caching and accounting are the client's.
Backends are named here and imported when chosen.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from personabench.errors import UsageError
from personabench.task import Tokens
from personabench.types import Request, Response

BACKENDS = {
    "local": ("personabench.backends.local:Local", "a GGUF model in this process, through llama.cpp (default)"),
    "openai": ("personabench.backends.openai:OpenAI", "any OpenAI-compatible API, through the openai SDK"),
    "vllm": ("personabench.backends.vllm:VLLM", "vLLM: started for the run (--model), or running servers (--base-url)"),
    "scripted": ("personabench.backends.scripted:Scripted", "answers computed from the prompt; for tests and dry runs"),
}


@dataclass(frozen=True)
class BackendOptions:
    """What the command line says about a backend.

    Attributes:
        model: a model's name or path; None for the backend's default.
        base_url: where an API lives.
        window: the context window in tokens, where the backend cannot know it.
        timeout: seconds one call may take.
        headers: extra HTTP headers.
        replicas: where further servers of the same model live; for `vllm`.
        vllm_args: arguments of the server that `vllm` starts; start_timeout: seconds it may take to come up.
    """

    model: str | None = None
    base_url: str | None = None
    window: int | None = None
    timeout: float = 600.0
    headers: Mapping[str, str] = field(default_factory=dict)
    replicas: tuple[str, ...] = ()
    vllm_args: tuple[str, ...] = ()
    start_timeout: float = 1800.0


class Backend(ABC):
    """A model, reachable.

    Attributes:
        identity: what names the model in every key, free of place and time, with "name" for people; valid after
            `identify`.
        window: the context window in tokens, or None when unknown; tokens: the model's token counter; both valid
            after `open`.
        concurrency: how many calls it takes at once unless the user says otherwise.
    """

    identity: Mapping[str, str]
    window: int | None = None
    tokens: Tokens
    concurrency: int = 32

    def __init__(self, options: BackendOptions) -> None:
        self.options = options

    @abstractmethod
    async def identify(self) -> None:
        """Find out which model this is, without loading it.

        Raises:
            UsageError: no such model, no key, an unreadable file.
            BackendDown: nobody answers.
        """

    async def open(self, log: Path | None = None) -> None:
        """Get ready to answer; `log` is a file for the model's own messages.

        Raises:
            UsageError: the model does not load.
        """

    @abstractmethod
    async def complete(self, request: Request, group: str) -> Response:
        """Answer one request; requests of one `group` (a user) share a prefix worth keeping warm.

        Raises:
            TransientError: worth another try.
            BackendError: this request failed for good.
            BackendDown: no request will succeed.
        """

    async def aclose(self) -> None:
        """Let go of everything."""


class EstimatedTokens(Tokens):
    """A cautious guess, three bytes to a token, for models whose tokenizer is out of reach."""

    exact = False

    def count(self, text: str) -> int:
        return -(-len(text.encode()) // 3)

    def cut(self, text: str, limit: int) -> str:
        return text.encode()[: 3 * max(limit, 0)].decode(errors="ignore")


def create(name: str, options: BackendOptions) -> Backend:
    """A backend by name, not yet opened.

    Raises:
        UsageError: no backend has that name.
    """
    if name not in BACKENDS:
        close = difflib.get_close_matches(name, BACKENDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(BACKENDS)}"
        raise UsageError(f"no backend named '{name}'; {hint}")
    if name != "vllm" and (options.replicas or options.vllm_args):
        option = "several --base-url" if options.replicas else "--vllm-args"
        raise UsageError(f"{option}: only with --backend vllm, not {name}")
    module, _, attribute = BACKENDS[name][0].partition(":")
    backend: Backend = getattr(import_module(module), attribute)(options)
    return backend
