"""Print to standard output: JSON for programs, tables for people."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


def emit(value: Any) -> None:
    """Print a value as indented JSON."""
    import msgspec

    encoded = msgspec.json.encode(value)
    typer.echo(msgspec.json.format(encoded, indent=2).decode())


def screen() -> Console:
    """Open a console on standard output."""
    from rich.console import Console

    # Without a terminal rich assumes 80 columns, which would truncate tables written to a file.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    return Console(highlight=False, width=width)
