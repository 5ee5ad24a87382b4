"""Tables of text in columns that are never squeezed: whoever fills a table chooses what fits.

Headings break between words, names between their parts, and numbers nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

GAP = 2
INDENT = 1

# Parts of a long word, each with the characters that join it to the next.
_PARTS = re.compile(r"[^_\-=,/.]*[_\-=,/.]+|[^_\-=,/.]+")

# Breaks of a heading that would part a sign from its word.
_BOUND = ((" ↑", "\u00a0↑"), (" ↓", "\u00a0↓"), ("Δ ", "Δ\u00a0"))


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: broken between words if that makes the column narrower.
        cells: one text per row, whose lines stay as they are.
        is_name: a column of names: on the left, and broken to `most` characters.
        most: the width of a column of names at most; None for that of the longest name.
        styles: of each cell, beside that of its row; empty for none.
    """

    heading: str
    cells: Sequence[str]
    is_name: bool = False
    most: int | None = None
    styles: Sequence[str] = ()

    @cached_property
    def head(self) -> list[str]:
        """The lines of the heading."""
        words = self.heading
        for loose, bound in _BOUND:
            words = words.replace(loose, bound)
        width = max([self._cell_width, *map(measure, words.split(" "))])
        lines: list[str] = []
        for word in words.split(" "):
            if lines and measure(f"{lines[-1]} {word}") <= width:
                lines[-1] += f" {word}"
            else:
                lines.append(word)
        return [line.replace("\u00a0", " ") for line in lines]

    @cached_property
    def lines(self) -> list[list[str]]:
        """The lines of each cell."""
        if self.most is None:
            return [cell.split("\n") for cell in self.cells]
        return [break_name(cell, self.most) for cell in self.cells]

    @cached_property
    def width(self) -> int:
        """The width of the column."""
        return max([self._cell_width, *map(measure, self.head)])

    @property
    def claim(self) -> int:
        """The width of the column with the gap before it."""
        return self.width + GAP

    @cached_property
    def _cell_width(self) -> int:
        return max((measure(line) for lines in self.lines for line in lines), default=0)

    def place(self, line: str) -> str:
        """A line of the column at its full width."""
        padding = " " * (self.width - measure(line))
        return line + padding if self.is_name else padding + line


def measure(text: str) -> int:
    """The cells that a text takes on a terminal."""
    from rich.cells import cell_len

    return cell_len(text)


def total_width(columns: Sequence[Column]) -> int:
    """The width of a table."""
    return INDENT - GAP + sum(column.claim for column in columns)


def break_name(name: str, width: int) -> list[str]:
    """Break a name into lines: between words, and words too long for a line between their parts."""
    lines = [""]
    for word in name.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if measure(joined) <= width:
            lines[-1] = joined
            continue
        broken = _break_word(word, width)
        lines = [*lines, *broken] if lines[-1] else broken
    return lines


def _break_word(word: str, width: int) -> list[str]:
    lines = [""]
    for part in _PARTS.findall(word):
        rest = part
        if lines[-1] and measure(lines[-1] + part) > width:
            lines.append("")
        # A part without any joint is broken wherever a line ends.
        while measure(lines[-1] + rest) > width:
            lines[-1], rest = rest[:width], rest[width:]
            lines.append("")
        lines[-1] += rest
    return lines if lines[-1] else lines[:-1]


def head_lines(columns: Sequence[Column]) -> Iterator[Text]:
    """The headings above a rule, aligned at the bottom."""
    from rich.text import Text

    height = max(len(column.head) for column in columns)
    for number in range(height):
        texts = []
        for column in columns:
            line = number - height + len(column.head)
            texts.append(column.place(column.head[line] if line >= 0 else ""))
        yield Text(" " * INDENT + (" " * GAP).join(texts).rstrip(), "bold")
    yield Text("─" * total_width(columns))


def row_lines(columns: Sequence[Column], row: int, style: str = "") -> Iterator[Text]:
    """The lines of a row."""
    from rich.text import Text

    for number in range(max(len(column.lines[row]) for column in columns)):
        line = Text(" " * INDENT)
        for index, column in enumerate(columns):
            lines = column.lines[row]
            cell = column.place(lines[number] if number < len(lines) else "")
            cell_style = column.styles[row] if column.styles else ""
            line.append(" " * GAP if index else "")
            line.append(cell, " ".join(filter(None, (style, cell_style))) or None)
        line.rstrip()
        yield line


def print_table(console: Console, *layouts: Sequence[Column]) -> None:
    """Print the first of some layouts of a table that fits the width, or else the last."""
    columns = next((fit for fit in layouts if total_width(fit) <= console.width), layouts[-1])
    for line in head_lines(columns):
        console.print(line, soft_wrap=True)
    for row in range(len(columns[0].cells)):
        for line in row_lines(columns, row):
            console.print(line, soft_wrap=True)
