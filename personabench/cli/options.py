"""Options that several verbs share, spelled once."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Results = Annotated[Path, typer.Option("--results", help="Folder of runs and cache.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder with the benchmark's files, or a copy of its official tree; else the bundled sample.",
        exists=True,
        file_okay=False,
    ),
]
Split = Annotated[
    str | None, typer.Option("--split", help="Separation/split, such as user/dev or time/dev; else the task's own.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Parameter as [method.]key=value or task.key=value; repeatable."),
]
Method = Annotated[str, typer.Option("--method", "-m", help="Method or file.py[:Class].")]
Task = Annotated[str, typer.Option("--task", "-t", help="Task or file.py[:Class].")]
Backend = Annotated[str, typer.Option("--backend", "-b", help="local, openai, vllm or scripted.")]
Model = Annotated[str | None, typer.Option("--model", help="Model name; for local a .gguf file or a hub repository.")]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="An OpenAI-compatible server, such as http://localhost:8000/v1.")
]
Window = Annotated[
    int | None, typer.Option("--window", min=1, help="Context window in tokens, where the model cannot be asked.")
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of all randomness.")]
History = Annotated[str, typer.Option("--history", help="Control: own, none, shuffled (another user's) or size=N.")]
Temperature = Annotated[float, typer.Option("--temperature", min=0.0, help="Sampling temperature.")]
TopP = Annotated[float, typer.Option("--top-p", min=0.0, max=1.0, help="Nucleus sampling.")]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", min=1, help="Allowance of an answer; else the task's own.")
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


def screen() -> Console:
    """Standard output for people; as wide as it takes where it is no terminal, so that files are never cut."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    return Console(highlight=False, width=wide)
