"""Model backends: turn a `Request` into a `Response`.

Retries, caching and accounting belong to the client (`client.py`).  Backends are registered here
and imported only when chosen, since each brings a large dependency.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from importlib import import_module
from urllib.parse import urlsplit

from personabench.errors import UsageError
from personabench.models.backends.base import USER, Backend, BackendOptions

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
    "transformers": (
        "personabench.models.backends.hf_transformers:Transformers",
        "a checkpoint in this process, with adapters of `personabench train` (extra train)",
    ),
    "scripted": (
        "personabench.models.backends.scripted:Scripted",
        "answers computed from the prompt; for tests and dry runs",
    ),
}
# Options that only some backends understand: ignoring them silently would change a run's meaning.
_EXCLUSIVE_OPTIONS = {
    "several --base-url": (("vllm",), "replicas"),
    "--vllm-args": (("vllm",), "vllm_args"),
    "--adapter": (("vllm",), "adapter"),
    "--adapter-map": (("vllm", "transformers", "local"), "adapter_map"),
    "--checkpoint": (("local",), "checkpoint"),
    "--rpm": (("openai",), "rpm"),
    "--tpm": (("openai",), "tpm"),
    "--api-version": (("openai",), "api_version"),
    "--batch": (("openai",), "batch"),
    "--omit-params": (("openai", "vllm"), "omit"),
    "--extra": (("openai", "vllm", "local"), "extra"),
    "--reasoning": (("openai", "vllm", "local"), "reasoning"),
}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~\w-]+", re.ASCII)


def read_headers(values: Sequence[str], option: str = "--header") -> dict[str, str]:
    """Read HTTP headers from the values of an option, each of the form `Name: value`.

    Raises:
        UsageError: a value is not a header; the message does not repeat it, since it may be a
            secret.
    """
    headers = {}
    for number, text in enumerate(values, 1):
        name, colon, value = text.partition(":")
        name = name.strip()
        if not colon or not _HEADER_NAME.fullmatch(name):
            raise UsageError(f"{option} number {number} is not of the form 'Name: value'")
        if not (value.isascii() and value.strip().isprintable()):
            raise UsageError(
                f"{option} {name} holds a character that headers cannot contain; copy it again"
            )
        headers[name] = value.strip()
    return headers


def check_url(url: str, key: str) -> None:
    """Check that a `--base-url` is an address without secrets, which belong in the variable `key`.

    Raises:
        UsageError: it is not; a secret is not repeated.
    """
    # Anywhere: a password may hold a slash, and the scheme may be missing.
    if "@" in url:
        raise UsageError(f"--base-url holds a name or password; leave them out and set {key}")
    if "?" in url or "#" in url:
        raise UsageError(
            f"--base-url holds a query, from '?' or '#' on; leave it out and set {key} or --header"
        )
    scheme = url.partition("://")[0]
    if scheme not in ("http", "https"):
        raise UsageError(
            f"--base-url {url}: it has to start with http:// or https:// and usually ends in /v1"
        )
    if not _has_host_and_port(url):
        raise UsageError(
            f"--base-url {url}: no host, or no port from 1 to 65535; write http://HOST:PORT/v1"
        )


def _has_host_and_port(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def create(name: str, options: BackendOptions) -> Backend:
    """Create a backend by name, not yet opened.

    Raises:
        UsageError: no backend has that name, or an option belongs to another backend.
    """
    if name not in BACKENDS:
        matches = difflib.get_close_matches(name, BACKENDS, n=1)
        hint = f"did you mean {matches[0]}?" if matches else f"known: {', '.join(BACKENDS)}"
        raise UsageError(f"no backend named '{name}'; {hint}")

    for option, (owners, attribute) in _EXCLUSIVE_OPTIONS.items():
        if name not in owners and getattr(options, attribute):
            raise UsageError(f"{option}: only with --backend {' or '.join(owners)}, not {name}")
    if options.adapter is not None and options.adapter_map:
        raise UsageError("--adapter and --adapter-map both name adapters; leave one of them out")
    if options.adapter is not None:
        _check_adapter(options.adapter)

    module, _, class_name = BACKENDS[name][0].partition(":")
    backend_class = getattr(import_module(module), class_name)
    backend: Backend = backend_class(options)
    return backend


def _check_adapter(adapter: str) -> None:
    # Another brace is a misspelt placeholder.
    if not adapter or "{" in adapter.replace(USER, ""):
        raise UsageError(
            f"--adapter '{adapter}': write the name of a served adapter, "
            f"with {USER} as placeholder for the user"
        )
