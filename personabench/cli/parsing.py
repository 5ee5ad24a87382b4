"""Parse option values that several verbs share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from personabench.cli.options import Reading
    from personabench.models.backends.base import BackendOptions
    from personabench.models.roles import RoleName
    from personabench.types import Sampling


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


def read_extra(values: Sequence[str], option: str = "--extra") -> dict[str, Any]:
    """Read further fields of requests, each of the form `key=json`.

    Raises:
        UsageError: a value is not of that form, or its key is the harness's own.
    """
    import msgspec

    from personabench.errors import UsageError
    from personabench.models.backends.dialect import RESERVED

    fields: dict[str, Any] = {}
    for text in values:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not (key and equals):
            raise UsageError(
                f"{option} {text}: write KEY=JSON, such as {option} 'service_tier=\"flex\"'"
            )
        if key in RESERVED:
            raise UsageError(f"{option} {key}: this field is set by personabench{RESERVED[key]}")
        try:
            fields[key] = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise UsageError(
                f"{option} {text}: {value!r} is not JSON ({error}); text needs double quotes, "
                f"as in {option} '{key}=\"TEXT\"'"
            ) from error
    return fields


def read_reasoning(level: str | None, option: str = "--reasoning") -> str | None:
    """Read a level of reasoning.

    Raises:
        UsageError: it is none.
    """
    from personabench.models.backends.reasoning import check_level

    return None if level is None else check_level(level, option)


def read_sampling(
    temperature: float, top_p: float, max_tokens: int | None, reading: Reading
) -> Sampling:
    """Return the sampling of a run and the reading of its replies."""
    import msgspec

    from personabench.types import Sampling

    return Sampling(temperature, top_p, max_tokens, "raw" if reading == "raw" else msgspec.UNSET)


class RoleArguments(NamedTuple):
    """The options of a role, as given on the command line."""

    backend: str | None = None
    model: str | None = None
    base_url: str | None = None
    headers: Sequence[str] | None = None
    temperature: float | None = None
    omit: str | None = None
    extra: Sequence[str] | None = None
    reasoning: str | None = None


def role_backends(
    backend: str, under: BackendOptions, **roles: RoleArguments
) -> dict[RoleName, tuple[str, BackendOptions]]:
    """Backend and options of each role that has its own backend, model or server.

    Args:
        backend: backend of the model under test.
        under: its options, which are the defaults of a role's backend and server.
        roles: the arguments of each role.

    Raises:
        UsageError: a malformed option, or options of a role that the model under test plays.
    """
    backends: dict[str, tuple[str, BackendOptions]] = {}
    for role, arguments in roles.items():
        options = role_options(role, arguments, under.timeout)
        if not (arguments.backend or arguments.model or arguments.base_url):
            _require_no_options(role, arguments)
            continue

        # Secrets of the model's server go to a role only if the role calls the same server.
        if arguments.base_url is None and arguments.backend in (None, backend):
            options = replace(
                options,
                base_url=under.base_url,
                headers={**under.headers, **options.headers},
                api_version=under.api_version,
            )
        backends[role] = (arguments.backend or backend, options)
    return cast("dict[RoleName, tuple[str, BackendOptions]]", backends)


def role_options(role: str, arguments: RoleArguments, timeout: float) -> BackendOptions:
    """Return the options of a role's backend.

    Raises:
        UsageError: a malformed option.
    """
    from personabench.models.backends import read_headers
    from personabench.models.backends.base import BackendOptions

    return BackendOptions(
        arguments.model,
        arguments.base_url,
        timeout=timeout,
        headers=read_headers(arguments.headers or (), f"--{role}-header"),
        role=role,
        omit=tuple(split_names(arguments.omit or "")),
        extra=read_extra(arguments.extra or (), f"--{role}-extra"),
        reasoning=read_reasoning(arguments.reasoning, f"--{role}-reasoning"),
        temperature=arguments.temperature,
    )


def _require_no_options(role: str, arguments: RoleArguments) -> None:
    """Refuse options of a role that the model under test plays.

    Raises:
        UsageError: there are some.
    """
    from personabench.errors import UsageError

    arguments_of = {
        "header": arguments.headers,
        "temperature": arguments.temperature is not None,
        "omit-params": arguments.omit,
        "extra": arguments.extra,
        "reasoning": arguments.reasoning,
    }
    for option, is_used in arguments_of.items():
        if is_used:
            raise UsageError(
                f"--{role}-{option}: the {role} is the model under test; "
                f"name another with --{role}-model"
            )
