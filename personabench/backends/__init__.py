"""Where answers come from.

A backend turns a `Request` into a `Response` and nothing more: retries, caching and accounting are the client's.
Backends are named here and imported when chosen.
"""

from __future__ import annotations

import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from personabench.errors import UsageError
from personabench.limits import Limiter
from personabench.task import Tokens
from personabench.types import Request, Response

BACKENDS = {
    "local": ("personabench.backends.local:Local", "a GGUF model in this process, through llama.cpp (default)"),
    "openai": ("personabench.backends.openai:OpenAI", "any OpenAI-compatible API, through the openai SDK"),
    "vllm": ("personabench.backends.vllm:VLLM", "vLLM: started for the run (--model), or running servers (--base-url)"),
    "scripted": ("personabench.backends.scripted:Scripted", "answers computed from the prompt; for tests and dry runs"),
}
USER = "{user_id}"
_ONLY = {
    "several --base-url": ("vllm", "replicas"),
    "--vllm-args": ("vllm", "vllm_args"),
    "--adapter": ("vllm", "adapter"),
    "--rpm": ("openai", "rpm"),
    "--tpm": ("openai", "tpm"),
    "--api-version": ("openai", "api_version"),
    "--omit": ("openai", "omit"),
    "--batch": ("openai", "batch"),
}
_HEADER = re.compile(r"[!#$%&'*+.^_`|~\w-]+", re.ASCII)


@dataclass(frozen=True)
class BackendOptions:
    """What the command line says about a backend.

    Attributes:
        model: a model's name or path; None for the backend's default.
        base_url: where an API lives.
        window: the context window in tokens, where the backend cannot know it.
        timeout: seconds one call may take.
        headers: extra HTTP headers; their values are secrets.
        keys: environment variables that may hold the server's key, the first that is set does; None for the backend's.
        rpm, tpm: calls and tokens per minute at most; for `openai`.
        api_version: makes `openai` speak to an Azure resource.
        batch: gather calls into batch jobs, those that are out being noted in this folder; for `openai`.
        omit: sampling fields that `openai` does not send, for models that refuse them; part of the identity.
        replicas: where further servers of the same model live; for `vllm`.
        vllm_args: arguments of the server that `vllm` starts; start_timeout: seconds it may take to come up.
        adapter: the served adapter that answers for a user, "{user_id}" standing for the user; for `vllm`.
        embedder_url: where an embedding server lives; None for `base_url`.
    """

    model: str | None = None
    base_url: str | None = None
    window: int | None = None
    timeout: float = 600.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    replicas: tuple[str, ...] = ()
    vllm_args: tuple[str, ...] = ()
    start_timeout: float = 1800.0
    adapter: str | None = None
    embedder_url: str | None = None
    rpm: float | None = None
    tpm: float | None = None
    api_version: str | None = None
    omit: tuple[str, ...] = ()
    batch: Path | None = None
    keys: tuple[str, ...] | None = None


class Backend(ABC):
    """A model, reachable.

    Attributes:
        identity: what names the model in every key, free of place and time, with "name" for people; valid after
            `identify`.
        window: the context window in tokens, or None when unknown; tokens: the model's token counter; both valid
            after `open`.
        concurrency: how many calls it takes at once unless the user says otherwise.
        weighs_replies: whether it says how likely a given reply is: the last message of a request with `max_tokens` 0.
    """

    identity: Mapping[str, str]
    window: int | None = None
    tokens: Tokens
    concurrency: int = 32
    weighs_replies: bool = False

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

    async def prefix_counts(self) -> tuple[int, int] | None:
        """Prompt tokens found in and looked up in the model's prefix cache so far; None when nobody says."""
        return None

    def adapter(self, user: str) -> str | msgspec.UnsetType:
        """The adapter that answers for a user; unset for the model itself, as for work of no user ("")."""
        template = self.options.adapter
        if template is None or (USER in template and not user):
            return msgspec.UNSET
        return template.replace(USER, user)

    def limiter(self, most: int) -> Limiter:
        """The gate through which a client's calls go, `most` in flight."""
        return Limiter(most)

    async def aclose(self) -> None:
        """Let go of everything."""


class EstimatedTokens(Tokens):
    """A cautious guess, three bytes to a token, for models whose tokenizer is out of reach."""

    exact = False

    def count(self, text: str) -> int:
        return -(-len(text.encode()) // 3)

    def cut(self, text: str, limit: int) -> str:
        return text.encode()[: 3 * max(limit, 0)].decode(errors="ignore")


def read_headers(lines: Sequence[str], option: str = "--header") -> dict[str, str]:
    """HTTP headers from lines of `Name: value`, given with an option.

    Raises:
        UsageError: a line that is no header; the message does not repeat it.
    """
    found = {}
    for number, line in enumerate(lines, 1):
        name, colon, value = line.partition(":")
        if not colon or not _HEADER.fullmatch(name.strip()):
            raise UsageError(f"{option} number {number} is not of the form 'Name: value'")
        found[name.strip()] = value.strip()
        if not (value.isascii() and value.strip().isprintable()):
            raise UsageError(f"{option} {name.strip()} holds a character that none can have; copy it again")
    return found


def check_url(url: str, key: str) -> None:
    """See that a `--base-url` is an address and holds no secret; `key` is the variable that secrets belong in.

    Raises:
        UsageError: what is wrong with it; a secret is not repeated.
    """
    scheme, _, rest = url.partition("://")
    if "@" in rest.partition("/")[0]:
        raise UsageError(f"--base-url holds a name or password; leave them out and set {key}")
    if "?" in rest:
        raise UsageError(f"--base-url holds a query, from '?' on; leave it out and set {key} or --header")
    if scheme not in ("http", "https"):
        raise UsageError(f"--base-url {url}: it has to start with http:// or https:// and usually ends in /v1")
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        raise UsageError(f"--base-url {url}: no host, or no port from 1 to 65535; write http://HOST:PORT/v1")


def create(name: str, options: BackendOptions) -> Backend:
    """A backend by name, not yet opened.

    Raises:
        UsageError: no backend has that name.
    """
    if name not in BACKENDS:
        close = difflib.get_close_matches(name, BACKENDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(BACKENDS)}"
        raise UsageError(f"no backend named '{name}'; {hint}")
    for option, (owner, attribute) in _ONLY.items():
        if name != owner and getattr(options, attribute):
            raise UsageError(f"{option}: only with --backend {owner}, not {name}")
    if options.adapter is not None and (not options.adapter or "{" in options.adapter.replace(USER, "")):
        raise UsageError(f"--adapter '{options.adapter}': write a served adapter's name, {USER} standing for the user")
    module, _, attribute = BACKENDS[name][0].partition(":")
    backend: Backend = getattr(import_module(module), attribute)(options)
    return backend
