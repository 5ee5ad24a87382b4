"""Which server a secret goes to: a key, and the headers that go with it, to one origin (scheme, host, port) only.

The variables of a backend belong to the server of the model under test.  OPENAI_API_KEY, where the model under test
has no need of it, belongs to OpenAI's own API.  The simulator, the judge and the embedder have variables of their own,
such as JUDGE_API_KEY; on another server they are sent no other key.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from personabench.models.backends.base import BackendOptions

OPENAI, AZURE, VLLM = "OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "VLLM_API_KEY"
API = "https://api.openai.com/v1"
_PORTS = {"http": 80, "https": 443}
Origin = tuple[str, str, int | None]
_Name = TypeVar("_Name", bound=str)


def origin(url: str) -> Origin:
    """Scheme, host and port of an address; of one that is none, something that no other address has."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return "", url, None


def nearby(url: str) -> bool:
    """Whether a server is this machine or on its network."""
    host = origin(url)[1]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))
    return address.is_private or address.is_loopback or address.is_link_local


def openai_url(options: BackendOptions) -> str | None:
    """Where `openai` finds its API; None for an Azure resource that is not named."""
    if options.api_version is not None:
        return options.base_url or os.environ.get("AZURE_OPENAI_ENDPOINT")
    return options.base_url or os.environ.get("OPENAI_BASE_URL") or API


def servers(backend: str, options: BackendOptions) -> list[str]:
    """The addresses that a backend attaches to; none where it starts its server or needs none."""
    if backend == "openai":
        return [url for url in [openai_url(options)] if url]
    if backend == "vllm":
        return [
            url
            for part in (options.base_url or "", *options.replicas)
            for url in part.split(",")
            if url
        ]
    return []


def variables(backend: str, options: BackendOptions) -> tuple[str, ...]:
    """The environment variables that may hold the key of a backend's server; the first that is set does."""
    if options.keys is not None:
        return options.keys
    if backend == "vllm":
        return (VLLM,)
    if backend != "openai":
        return ()
    if options.api_version is None:
        return (OPENAI,)
    return (AZURE,) if _set(AZURE) else (AZURE, OPENAI)


def read_key(names: Sequence[str]) -> tuple[str, str]:
    """The variable that holds a key and the key; where none is set, the last of them, or --header, and nothing."""
    held = next((name for name in names if _set(name)), None)
    return (held, os.environ[held].strip()) if held else (names[-1] if names else "--header", "")


def share(
    backend: str, under: BackendOptions, roles: Mapping[_Name, tuple[str, BackendOptions]]
) -> tuple[BackendOptions, dict[_Name, tuple[str, BackendOptions]]]:
    """Options of the model under test and of the roles, with the secrets that each server may be sent.

    A model under test on this machine or its network leaves OPENAI_API_KEY to a role at OpenAI's own API that has no
    key of its own: servers here rarely need one, and it goes to one origin only.
    """
    here = servers(backend, under)
    if (
        OPENAI in variables(backend, under)
        and _default() not in map(origin, here)
        and all(map(nearby, here))
    ):
        embedder = ("openai", BackendOptions(base_url=under.embedder_url or under.base_url))
        parties: list[tuple[str, tuple[str, BackendOptions]]] = [
            ("embedder", embedder),
            *roles.items(),
        ]
        if any(
            _origins(*party) == {_default()} and not _set(_own(name)) for name, party in parties
        ):
            under = replace(under, keys=())
    return under, {
        name: (kind, _allowed(name, kind, own, backend, under))
        for name, (kind, own) in roles.items()
    }


def embedding(backend: str, under: BackendOptions) -> BackendOptions:
    """Address and secrets of the server that embeds: the one named for it, else that of the model under test."""
    return _allowed(
        "embedder",
        "openai",
        BackendOptions(base_url=under.embedder_url or under.base_url),
        backend,
        under,
    )


def _allowed(
    name: str, kind: str, own: BackendOptions, backend: str, under: BackendOptions
) -> BackendOptions:
    there = _origins(kind, own)
    if not there or own.keys is not None:
        return own
    if there <= _origins(backend, under):
        keys = (_own(name), *variables(backend, under))
        return replace(own, keys=keys, headers={**under.headers, **own.headers})
    free = there == {_default()} and OPENAI not in variables(backend, under)
    return replace(own, keys=(_own(name), OPENAI) if free else (_own(name),))


def _origins(backend: str, options: BackendOptions) -> set[Origin]:
    return set(map(origin, servers(backend, options)))


def _default() -> Origin:
    return origin(os.environ.get("OPENAI_BASE_URL") or API)


def unsent(variable: str, key: str) -> dict[str, Any]:
    """What keeps the SDK from sending a server what the environment has for the owner of OPENAI_API_KEY alone.

    Args:
        variable: the one that the server's key is from.
        key: the key.
    """
    from openai import Omit

    if variable == OPENAI:
        return {}
    names = ["OpenAI-Organization", "OpenAI-Project", *custom_headers()]
    return {
        name: f"Bearer {key or 'none'}" if name.lower() == "authorization" else Omit()
        for name in names
    }


def custom_headers() -> dict[str, str]:
    """The headers that the SDK takes from OPENAI_CUSTOM_HEADERS."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _own(name: str) -> str:
    return f"{name.upper()}_API_KEY"


def _set(name: str) -> bool:
    return bool(os.environ.get(name, "").strip())
