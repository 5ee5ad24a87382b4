"""Print to a terminal or a file: text of people, models and data with its control characters shown.

Answers of models and names in data may hold escape sequences, which would rewrite the terminal.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

import typer

from personabench.errors import visible

if TYPE_CHECKING:
    from rich.console import Console

# JSON text escapes those below U+0020, but not these.
_RAW_IN_JSON = re.compile(r"[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def echo(text: object, *, err: bool = False) -> None:
    """Print a line."""
    typer.echo(visible(str(text)), err=err)


def emit(value: Any) -> None:
    """Print a value as indented JSON."""
    import msgspec

    encoded = msgspec.json.encode(value)
    text = msgspec.json.format(encoded, indent=2).decode()
    typer.echo(_RAW_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def screen(*, err: bool = False, quiet: bool = False) -> Console:
    """Open a console on standard output or standard error; a quiet one prints nothing."""
    from rich.console import Console, ConsoleOptions, RenderableType, RenderHook, RenderResult
    from rich.segment import Segment

    class Visible:
        """A renderable whose control characters are printed visibly."""

        def __init__(self, content: RenderableType) -> None:
            self._content = content

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            for segment in console.render(self._content, options):
                # Those of control move the cursor for a progress bar.
                if segment.control:
                    yield segment
                else:
                    yield Segment(visible(segment.text), segment.style)

    class ShowControls(RenderHook):
        def process_renderables(self, renderables: list[Any]) -> list[Any]:
            return [Visible(renderable) for renderable in renderables]

    # Without a terminal rich assumes 80 columns, which would truncate tables written to a file.
    is_narrow = err or sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(stderr=err, quiet=quiet, highlight=False, width=None if is_narrow else 200)
    console.push_render_hook(ShowControls())
    return console
