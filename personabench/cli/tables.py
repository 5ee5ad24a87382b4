"""Boards and curves as tables for a terminal, with the columns that fit its width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from personabench.leaderboard import Board
    from personabench.leaderboard.curves import Point


def print_boards(
    boards: Sequence[Board],
    console: Console,
    wide: bool = False,
) -> None:
    """Print boards as tables, without columns that are equal or zero in every row.

    The plain table shows as many columns as fit the terminal, the most important first.
    """
    for board in boards:
        _print_board(board, console, wide)
        for note in board.notes:
            console.print(f" {note}", markup=False, style="dim")


def _print_board(
    board: Board,
    console: Console,
    wide: bool,
) -> None:
    from rich.text import Text

    from personabench.leaderboard.formats import beaten, headed, raised, text

    visible = board.all_columns if wide else board.columns
    title, columns = headed(board, visible)
    cells = {}
    for name in columns:
        cells[name] = [text(name, row) for row in board.rows]

    # Marks of equal length keep the decimal points of the scores in one line.
    letters = [beaten(board, row) for row in board.rows]
    marks = [raised(row_letters) for row_letters in letters]
    longest = max(map(len, marks))
    marked = []
    for score, mark in zip(cells[board.primary], marks, strict=True):
        padded = mark.ljust(longest)
        marked.append(score + padded)
    cells[board.primary] = marked

    parts = [_fitting(columns, cells, board, console.width)]
    if wide:
        parts = _parts(columns, cells, console.width)

    for index, part in enumerate(parts):
        table = _table(board, part, cells)
        if index == 0:
            table.title = Text(title, "bold")
            table.title_justify = "left"
        console.print(table)


def _table(
    board: Board,
    columns: Mapping[str, str],
    cells: Mapping[str, Sequence[str]],
) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from personabench.leaderboard.board import WORDS

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for name, heading in columns.items():
        width = _width(heading, cells[name])
        table.add_column(
            Text(heading),
            justify="left" if name in WORDS else "right",
            overflow="fold",
            width=min(width, _LONGEST),
        )

    for index, row in enumerate(board.rows):
        texts = []
        for name in columns:
            is_bold = row.leader and name == board.primary
            style = "bold" if is_bold else ""
            texts.append(Text(cells[name][index], style))
        table.add_row(*texts)
    return table


# Columns that the plain table adds if there is room, the most important first.
EXTRA = ("shuffled_gain", "trivial_gain", "parse_failures", "calls", "tokens", "seconds")

# Longer names are broken: one long method name must not push the scores off the screen.
_LONGEST = 24


def _fitting(
    columns: Mapping[str, str],
    cells: dict[str, list[str]],
    board: Board,
    width: int,
) -> dict[str, str]:
    """Choose the columns of the plain table that fit a width."""
    from personabench.leaderboard.formats import thousands

    token_cells = []
    for row in board.rows:
        tokens = row.costs.input_tokens + row.costs.output_tokens
        token_cells.append(thousands(tokens))
    cells["tokens"] = token_cells
    headings = {**columns, "tokens": "tokens"}
    required = (
        "letter",
        "label",
        "model",
        "n",
        "users",
        board.primary,
        "audited",
        "gain",
        "gain_p",
        "truncated",
        "empty",
        "failed",
        "owed",
        "seed_sd",
    )
    chosen = [name for name in required if name in columns]
    arrows = ("↑", "↓")
    metrics = [name for name, heading in columns.items() if heading.endswith(arrows)]
    primary_prefix = f"{board.primary}/"
    extra = [name for name in columns if primary_prefix in name or ":" in name]

    claims = [_claim(headings[name], cells[name]) for name in chosen]
    used = 2 + sum(claims)
    for name in (*metrics, *extra, *EXTRA):
        if name not in headings or name in chosen:
            continue
        needed = _claim(headings[name], cells[name])
        if used + needed <= width:
            chosen.append(name)
            used += needed

    order = [*columns, "tokens"]
    chosen.sort(key=order.index)
    return {name: headings[name] for name in chosen}


def _parts(
    columns: Mapping[str, str],
    cells: Mapping[str, Sequence[str]],
    width: int,
) -> list[dict[str, str]]:
    """Split all columns into tables that fit the width, each with the names of the rows."""
    row_names = {name: columns[name] for name in columns if name in ("letter", "label")}
    claims = [_claim(heading, cells[name]) for name, heading in row_names.items()]
    start = 2 + sum(claims)

    parts = [dict(row_names)]
    used = start
    for name, heading in columns.items():
        if name in row_names:
            continue
        needed = _claim(heading, cells[name])
        is_full = used + needed > width
        has_column = len(parts[-1]) > len(row_names)
        if is_full and has_column:
            parts.append(dict(row_names))
            used = start
        parts[-1][name] = heading
        used += needed
    return parts


def _claim(heading: str, cells: Sequence[str]) -> int:
    """Return the width of a column with the space around it."""
    width = _width(heading, cells)
    return min(width, _LONGEST) + 2


def _width(heading: str, cells: Sequence[str]) -> int:
    """Return the width of a column; its heading may break between words but not before an arrow."""
    unbroken = heading
    for arrow in ("↑", "↓"):
        unbroken = unbroken.replace(f" {arrow}", f"_{arrow}")
    unbroken = unbroken.replace("Δ ", "Δ_")
    texts = [*unbroken.split(), *cells]
    lengths = [len(text) for text in texts]
    return max([1, *lengths])


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
    print_boards(boards, console, wide)

    printed = file.getvalue()
    stripped = [line.rstrip() for line in printed.splitlines()]
    return "\n".join(stripped)
