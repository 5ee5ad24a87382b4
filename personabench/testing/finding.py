"""The result of a check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        what: the checked property.
        holds: whether it holds; None if that cannot be checked here.
        detail: examples or figures.
    """

    what: str
    holds: bool | None
    detail: str = ""


def list_some(items: Sequence[str]) -> str:
    """List up to three items, and count the others."""
    examples = ", ".join(items[:3])
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return f"{examples}{more}"
