"""Where answers come from.

A backend turns a `Request` into a `Response` and nothing more: retries, caching and accounting are the client's.
Backends are named here and imported when chosen.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from importlib import import_module
from urllib.parse import urlsplit

from personabench.errors import UsageError
from personabench.models.backends.base import USER, Backend, BackendOptions
from personabench.models.rate_limit import Limiter as Limiter
from personabench.models.tokens import Tokens as Tokens
from personabench.types import Request as Request
from personabench.types import Response as Response

BACKENDS = {
    "local": (
        "personabench.models.backends.local:Local",
        "a GGUF model in this process, through llama.cpp (default)",
    ),
    "openai": (
        "personabench.models.backends.openai:OpenAI",
        "any OpenAI-compatible API, through the openai SDK",
    ),
    "vllm": (
        "personabench.models.backends.vllm:VLLM",
        "vLLM: started for the run (--model), or running servers (--base-url)",
    ),
    "scripted": (
        "personabench.models.backends.scripted:Scripted",
        "answers computed from the prompt; for tests and dry runs",
    ),
}
_ONLY = {
    "several --base-url": ("vllm", "replicas"),
    "--vllm-args": ("vllm", "vllm_args"),
    "--adapter": ("vllm", "adapter"),
    "--rpm": ("openai", "rpm"),
    "--tpm": ("openai", "tpm"),
    "--api-version": ("openai", "api_version"),
    "--omit-params": ("openai", "omit"),
    "--batch": ("openai", "batch"),
}
_HEADER = re.compile(r"[!#$%&'*+.^_`|~\w-]+", re.ASCII)


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
            raise UsageError(
                f"{option} {name.strip()} holds a character that none can have; copy it again"
            )
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
        raise UsageError(
            f"--base-url holds a query, from '?' on; leave it out and set {key} or --header"
        )
    if scheme not in ("http", "https"):
        raise UsageError(
            f"--base-url {url}: it has to start with http:// or https:// and usually ends in /v1"
        )
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        raise UsageError(
            f"--base-url {url}: no host, or no port from 1 to 65535; write http://HOST:PORT/v1"
        )


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
    if options.adapter is not None and (
        not options.adapter or "{" in options.adapter.replace(USER, "")
    ):
        raise UsageError(
            f"--adapter '{options.adapter}': write a served adapter's name, {USER} standing for the user"
        )
    module, _, attribute = BACKENDS[name][0].partition(":")
    backend: Backend = getattr(import_module(module), attribute)(options)
    return backend
