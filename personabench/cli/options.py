"""Options that several verbs share, spelled once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

Results = Annotated[Path, typer.Option("--results", help="Folder of runs, cache and leaderboards.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with the benchmark's files (or a copy of its official tree)."),
]
Split = Annotated[str | None, typer.Option("--split", help="separation/split, such as user/dev.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Parameter as [method.]key=value or task.key=value; repeatable.", show_default=False),
]
RESULTS = Path("results")


class CachePolicy(StrEnum):
    """What to do with stored responses."""

    use = "use"
    refresh = "refresh"
    off = "off"
    only = "only"


def names(text: str) -> list[str]:
    """A comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def emit(value: Any) -> None:
    """Print a value as indented JSON."""
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
