"""Boards and curves as tables for a terminal, with the columns that fit its width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from personabench.leaderboard import Board
    from personabench.leaderboard.curves import Point


def print_boards(
    boards: Sequence[Board],
    console: Console,
    wide: bool = False,
    wide_command: str = "personabench leaderboard --wide",
) -> None:
    """Print boards as tables, without columns that are equal or zero in every row.

    The plain table shows as many columns as fit the terminal, the most important first.

    Args:
        wide_command: shows the columns that are hidden.
    """
    from rich.text import Text

    from personabench.cli.board_layout import Layout

    for number, board in enumerate(boards):
        layout = Layout(board, console.width, wide)
        if number:
            console.print()
        console.print(Text(layout.title, "bold"))
        console.print()
        for line in layout.lines():
            console.print(line, soft_wrap=True)
        console.print()
        if layout.hidden:
            columns = f"{layout.hidden} column{'s' * (layout.hidden > 1)} hidden"
            console.print(f" {columns}, {wide_command}", markup=False, style="dim")
        for note in board.list_notes(layout.shown):
            console.print(f" {note}", markup=False, style="dim")


def curve_text(points: Sequence[Point], form: str) -> str:
    """Format curves as "json", "csv", "md" or "latex", or else as lines for a terminal.

    Raises:
        UsageError: there are no points, which only JSON can express.
    """
    from personabench.errors import UsageError
    from personabench.leaderboard.formats import (
        curves_as_csv,
        curves_as_latex,
        curves_as_markdown,
        curves_as_text,
    )

    if form == "json":
        import msgspec

        encoded = msgspec.json.encode(points)
        return msgspec.json.format(encoded, indent=2).decode()
    if not points:
        raise UsageError(
            "no curve: no two runs differ in the history's size or one parameter alone"
        )

    formats = {
        "csv": curves_as_csv,
        "md": curves_as_markdown,
        "latex": curves_as_latex,
    }
    format_curves = formats.get(form, curves_as_text)
    return format_curves(points)


def board_text(boards: Sequence[Board], wide: bool) -> str:
    """Format boards as `print_boards` does on a wide terminal."""
    import io

    from rich.console import Console

    file = io.StringIO()
    width = 400 if wide else 200
    console = Console(file=file, width=width, highlight=False)
    print_boards(boards, console, wide, "--wide")

    printed = file.getvalue()
    stripped = [line.rstrip() for line in printed.splitlines()]
    return "\n".join(stripped)
