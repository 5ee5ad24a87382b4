"""Rules for secrets: a key, and the headers sent with it, go to one origin only.

An origin is a scheme, host and port.

A backend's environment variables belong to the server of the model under test.  If that server does
not need OPENAI_API_KEY, the key belongs to OpenAI's own API.  The simulator, the judge and the
embedder have variables of their own, such as JUDGE_API_KEY; on another server they are sent no
other key.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from personabench.errors import UsageError
from personabench.models.backends.base import BackendOptions

OPENAI = "OPENAI_API_KEY"
AZURE = "AZURE_OPENAI_API_KEY"
VLLM = "VLLM_API_KEY"
API = "https://api.openai.com/v1"
_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int | None]
_RoleName = TypeVar("_RoleName", bound=str)


def origin(url: str) -> Origin:
    """Return scheme, host and port of an address; a unique value for a malformed one."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return "", url, None
    return parts.scheme, parts.hostname or "", port


def nearby(url: str) -> bool:
    """Whether a server is this machine or on its network."""
    host = origin(url)[1]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))
    return address.is_private or address.is_loopback or address.is_link_local


def openai_url(options: BackendOptions) -> str | None:
    """Return the address that `openai` uses; None for an Azure resource without a name."""
    if options.api_version is not None:
        return options.base_url or os.environ.get("AZURE_OPENAI_ENDPOINT")
    return options.base_url or _default_url()


def servers(backend: str, options: BackendOptions) -> list[str]:
    """Return the addresses that a backend attaches to, if it needs any."""
    if backend == "openai":
        url = openai_url(options)
        return [url] if url else []

    if backend == "vllm":
        addresses = (options.base_url or "", *options.replicas)
        return [url for address in addresses for url in address.split(",") if url]
    return []


def variables(backend: str, options: BackendOptions) -> tuple[str, ...]:
    """Return the environment variables for the key of a backend's server, preferred first."""
    if options.keys is not None:
        return options.keys
    if backend == "vllm":
        return (VLLM,)
    if backend != "openai":
        return ()
    if options.api_version is None:
        return (OPENAI,)

    # Once Azure has a key of its own, OpenAI's must not be sent there.
    return (AZURE,) if _is_set(AZURE) else (AZURE, OPENAI)


def read_key(variables: Sequence[str]) -> tuple[str, str]:
    """Return the variable that holds a key, and the key.

    If none is set, the first item is the last variable (or --header), for messages, and the key is
    empty.
    """
    for variable in variables:
        if _is_set(variable):
            return variable, os.environ[variable].strip()
    return (variables[-1] if variables else "--header"), ""


def assign_secrets(
    backend: str,
    under: BackendOptions,
    roles: Mapping[_RoleName, tuple[str, BackendOptions]],
) -> tuple[BackendOptions, dict[_RoleName, tuple[str, BackendOptions]]]:
    """Return the options of the model under test and of the roles, each with its own secrets.

    A model under test on this machine or its network leaves OPENAI_API_KEY to a role at OpenAI's
    own API that has no key of its own: servers here rarely need one, and it goes to one origin
    only.
    """
    if _can_spare_openai_key(backend, under) and _is_openai_key_needed(under, roles):
        under = replace(under, keys=())

    allowed = {}
    for role, (role_backend, options) in roles.items():
        role_options = _allow_secrets(role, role_backend, options, backend, under)
        allowed[role] = (role_backend, role_options)
    return under, allowed


def _can_spare_openai_key(backend: str, under: BackendOptions) -> bool:
    if OPENAI not in variables(backend, under):
        return False

    urls = servers(backend, under)
    is_default = _default_origin() in map(origin, urls)
    return not is_default and all(map(nearby, urls))


def _is_openai_key_needed(
    under: BackendOptions, roles: Mapping[_RoleName, tuple[str, BackendOptions]]
) -> bool:
    clients: list[tuple[str, str, BackendOptions]] = [
        ("embedder", "openai", _embedder_options(under))
    ]
    for role, (backend, options) in roles.items():
        clients.append((role, backend, options))

    for name, backend, options in clients:
        has_own_key = _is_set(_own_variable(name))
        if not has_own_key and _origins(backend, options) == {_default_origin()}:
            return True
    return False


def embedder_options(backend: str, under: BackendOptions) -> BackendOptions:
    """Return address and secrets of the embedding server, by default the model's own server."""
    return _allow_secrets("embedder", "openai", _embedder_options(under), backend, under)


def _embedder_options(under: BackendOptions) -> BackendOptions:
    return BackendOptions(base_url=under.embedder_url or under.base_url)


def _allow_secrets(
    name: str,
    backend: str,
    options: BackendOptions,
    tested_backend: str,
    under: BackendOptions,
) -> BackendOptions:
    """Return a role's options with the variables and headers that its server may receive."""
    own_variable = _own_variable(name)
    origins = _origins(backend, options)
    if not origins or options.keys is not None:
        return options

    # The server of the model under test already receives these secrets.
    if origins <= _origins(tested_backend, under):
        return replace(
            options,
            keys=(own_variable, *variables(tested_backend, under)),
            headers={**under.headers, **options.headers},
        )

    is_openai_key_free = OPENAI not in variables(tested_backend, under)
    if origins == {_default_origin()} and is_openai_key_free:
        return replace(options, keys=(own_variable, OPENAI))
    return replace(options, keys=(own_variable,))


def _origins(backend: str, options: BackendOptions) -> set[Origin]:
    return set(map(origin, servers(backend, options)))


def _default_url() -> str:
    return os.environ.get("OPENAI_BASE_URL") or API


def _default_origin() -> Origin:
    return origin(_default_url())


def openai_headers(variable: str, key: str, options: BackendOptions) -> dict[str, str]:
    """Return the headers with the secrets of an OpenAI-compatible server.

    Those that the environment has for OpenAI (organization, project, OPENAI_CUSTOM_HEADERS) belong
    to the owner of OPENAI_API_KEY.

    Args:
        variable: the variable that holds the server's key.
        key: the key; may be empty.
    """
    headers: dict[str, str] = {}
    if key:
        if options.api_version is not None:
            headers["api-key"] = key
        else:
            headers["Authorization"] = f"Bearer {key}"

    if variable == OPENAI:
        for name, account in (
            ("OpenAI-Organization", "OPENAI_ORG_ID"),
            ("OpenAI-Project", "OPENAI_PROJECT_ID"),
        ):
            if _is_set(account):
                headers[name] = os.environ[account].strip()
        headers |= custom_headers()
    return headers | dict(options.headers)


def check_headers(headers: Mapping[str, str], variable: str) -> None:
    """Check that headers can be sent; the message repeats no value.

    Raises:
        UsageError: one holds a character that headers cannot contain.
    """
    for name, value in headers.items():
        header = name + value
        if not (header.isascii() and header.isprintable()):
            raise UsageError(
                f"{variable} or a header holds a character "
                "that headers cannot contain; copy it again"
            )


def openai_secrets(key: str, options: BackendOptions) -> list[str]:
    """Return the values in `openai_headers` that must not be repeated."""
    accounts = [os.environ.get(name, "") for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID")]
    return [key, *accounts, *custom_headers().values(), *options.headers.values()]


def suppressed_headers(variable: str, key: str) -> dict[str, Any]:
    """Return headers that keep the SDK from sending data of the owner of OPENAI_API_KEY.

    Args:
        variable: the variable that holds the server's key.
        key: the key.
    """
    from openai import Omit

    if variable == OPENAI:
        return {}

    headers: dict[str, Any] = {}
    for name in ("OpenAI-Organization", "OpenAI-Project", *custom_headers()):
        # The SDK needs an Authorization header; a custom one is replaced by that of this server's
        # key.
        if name.lower() == "authorization":
            headers[name] = f"Bearer {key or 'none'}"
        else:
            headers[name] = Omit()
    return headers


def custom_headers() -> dict[str, str]:
    """Return the headers that the SDK reads from OPENAI_CUSTOM_HEADERS."""
    headers = {}
    for line in os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers


def _own_variable(role: str) -> str:
    return f"{role.upper()}_API_KEY"


def _is_set(name: str) -> bool:
    return bool(os.environ.get(name, "").strip())
