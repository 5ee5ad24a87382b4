"""Parse option values that several verbs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from personabench.cli.options import Reading, Refusals
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
    temperature: float,
    top_p: float,
    max_tokens: int | None,
    reading: Reading,
    refusals: Refusals,
    memory_tokens: int | None = None,
) -> Sampling:
    """Return the sampling of a run, the reading of its replies and the limit of its memory."""
    import msgspec

    from personabench.types import Sampling

    return Sampling(
        temperature,
        top_p,
        max_tokens,
        reading="raw" if reading == "raw" else msgspec.UNSET,
        refusals="empty" if refusals == "empty" else msgspec.UNSET,
        memory_tokens=msgspec.UNSET if memory_tokens is None else memory_tokens,
    )
