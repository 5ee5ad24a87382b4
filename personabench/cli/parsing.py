"""Parse option values that several verbs share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from personabench.models.backends.base import BackendOptions
    from personabench.models.roles import RoleName


def split_names(text: str) -> list[str]:
    """Split a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def split_vllm_args(vllm_args: str | None) -> tuple[str, ...]:
    """Split the value of `--vllm-args` as a shell would.

    Raises:
        UsageError: a quote is not closed.
    """
    import shlex

    from personabench.errors import UsageError

    try:
        return tuple(shlex.split(vllm_args or ""))
    except ValueError as error:
        raise UsageError(f"--vllm-args: {error}") from error


def role_backends(
    backend: str,
    under: BackendOptions,
    headers: Mapping[str, Sequence[str] | None] | None = None,
    **roles: tuple[str | None, str | None, str | None],
) -> dict[RoleName, tuple[str, BackendOptions]]:
    """Backend and options of each role that has its own backend, model or server.

    Args:
        backend: backend of the model under test.
        under: its options, which are the defaults of a role's backend and server.
        headers: `Name: value` lines for each role's server.
        roles: backend, model and URL of each role, as given on the command line.

    Raises:
        UsageError: a malformed header, or headers of a role that the model under test plays.
    """
    from personabench.errors import UsageError
    from personabench.models.backends import read_headers
    from personabench.models.backends.base import BackendOptions

    backends: dict[str, tuple[str, BackendOptions]] = {}
    for role, (role_backend, model, url) in roles.items():
        header_lines = (headers or {}).get(role) or ()
        role_headers = read_headers(header_lines, f"--{role}-header")

        if not (role_backend or model or url):
            if header_lines:
                raise UsageError(
                    f"--{role}-header: the {role} is the model under test; "
                    f"name another with --{role}-model"
                )
            continue

        options = BackendOptions(model, url, timeout=under.timeout, headers=role_headers)
        # Secrets of the model's server go to a role only if the role calls the same server.
        if url is None and role_backend in (None, backend):
            options = replace(
                options,
                base_url=under.base_url,
                headers={**under.headers, **role_headers},
                api_version=under.api_version,
            )
        backends[role] = (role_backend or backend, options)
    return cast("dict[RoleName, tuple[str, BackendOptions]]", backends)
