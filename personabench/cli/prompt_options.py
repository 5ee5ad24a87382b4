"""Options that choose the texts of methods' prompts, and how much of a memory they show."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personabench.cli.help import METHOD_PANEL

if TYPE_CHECKING:
    from personabench.api.prompts import Replacements
    from personabench.api.wording import WordingName


class WordingChoice(StrEnum):
    """The wordings of methods' prompts."""

    full = "full"
    compact = "compact"


Wording = Annotated[
    WordingChoice | None,
    typer.Option(
        "--wording",
        metavar="full|compact",
        help="Wording of prompts (default: compact for the packaged model, otherwise full).",
        show_default=False,
        rich_help_panel=METHOD_PANEL,
    ),
]
PromptsFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        "--prompts-file",
        metavar="FILE",
        help="TOML or YAML texts that replace those of methods; see `show --prompts`.",
        show_default=False,
        rich_help_panel=METHOD_PANEL,
    ),
]
MemoryTokens = Annotated[
    int | None,
    typer.Option(
        "--memory-tokens",
        min=1,
        metavar="TOKENS",
        help="Tokens that records and notes may take in a request for an answer.",
        rich_help_panel=METHOD_PANEL,
    ),
]


def read_wording(choice: WordingChoice | None) -> WordingName | None:
    """Return the wording of an option; None for the one that suits the model."""
    if choice is None:
        return None
    return "full" if choice is WordingChoice.full else "compact"


def read_texts(path: Path | None) -> Replacements | None:
    """Read the texts of `--prompts`; None without it.

    Raises:
        UsageError: the file cannot be read, or is no table of methods, stages and texts.
    """
    # Imported late: `--help` must stay fast.
    from personabench.api.prompts import read_replacements

    return None if path is None else read_replacements(path)
