"""The layout of a board on a terminal: which columns it shows at a width, and how.

The letter, the method, the score and the gain always stand. Intervals go below their numbers if
otherwise no room is left, the other columns come in the order of their importance, and the table
says how many are hidden. Settings, such as models, are headings above their rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from personabench.cli.text_table import INDENT, Column, head_lines, row_lines, total_width

if TYPE_CHECKING:
    from rich.text import Text

    from personabench.leaderboard import Board

# Longer names are broken: one long method name must not push the scores off the screen.
_LONGEST = 24
_SHORTEST = 8

# Columns that are worth more than an interval on the line of its number.
_FIRST = ("n", "users", "gain_p", "audited")
# Further columns that the plain table adds if there is room, the most important first, before the
# other metrics and after them.
_WARNINGS = ("failed", "owed", "truncated", "empty", "seed_sd", "shuffled_gain")
_EXTRA = ("trivial_gain", "parse_failures", "calls", "tokens", "seconds")
_NAMES = ("letter", "label")


@dataclass(frozen=True)
class Layout:
    """A board at a width.

    Args:
        width: of the terminal.
        wide: all columns, in several tables if needed.
    """

    board: Board
    width: int
    wide: bool = False

    @cached_property
    def title(self) -> str:
        """The title, with everything that all rows share."""
        return self._title_and_headings[0]

    @cached_property
    def tables(self) -> list[dict[str, Column]]:
        """The columns of each table by name: one table, unless it is wide."""
        if self.wide:
            return self._split()
        return [self._choose()]

    @property
    def shown(self) -> set[str]:
        """The names of the columns that are shown; "tokens" stands for those in and out."""
        return {name for table in self.tables for name in table}

    @property
    def hidden(self) -> int:
        """The number of columns that only `wide` shows."""
        shown = self.shown
        if "tokens" in shown:
            shown |= {"input_tokens", "output_tokens"}
        return len(self._headings.keys() - shown)

    def lines(self) -> Iterator[Text]:
        """The lines of the tables, headings of settings between their rows."""
        from rich.text import Text

        for number, table in enumerate(self.tables):
            columns = list(table.values())
            if number:
                yield Text()
            yield from head_lines(columns)
            index = 0
            for setting in self.board.settings:
                if len(self.board.settings) > 1:
                    yield Text(" " * INDENT + self._heading_of(setting), "bold")
                for row in self.board.members(setting):
                    yield from row_lines(columns, index, "dim" if row.unranked else "")
                    index += 1

    @property
    def _several(self) -> bool:
        return len(self.board.settings) > 1

    @cached_property
    def _title_and_headings(self) -> tuple[str, dict[str, str]]:
        from personabench.leaderboard.formats import headed

        title, headings = headed(self.board, self.board.all_columns)
        if self._several:
            # Models, and sizes if each setting has one, are in the headings of settings.
            title = self.board.heading
            headings.pop("model", None)
            if self._one_size_each:
                headings.pop("n", None)
                headings.pop("users", None)
        return title, headings

    @property
    def _headings(self) -> Mapping[str, str]:
        return self._title_and_headings[1]

    @cached_property
    def _one_size_each(self) -> bool:
        settings = {(row.setting, row.n, row.users) for row in self.board.rows}
        return len(settings) == len(self.board.settings)

    def _heading_of(self, setting: str) -> str:
        heading = self.board.settings[setting]
        if not self._one_size_each:
            return heading
        row = self.board.members(setting)[0]
        return f"{heading} · n={row.n}, {row.users} user{'s' * (row.users != 1)}"

    def _column(self, name: str, *, stacked: bool = False, most: int | None = None) -> Column:
        from personabench.leaderboard.formats import text, thousands

        rows = self.board.rows
        if name == "tokens":
            counts = [row.costs.input_tokens + row.costs.output_tokens for row in rows]
            return Column("tokens", [thousands(count) for count in counts])

        cells = [text(name, row) for row in rows]
        if name in self._with_intervals:
            cells = _align(cells, "\n" if stacked else " ")
        styles: list[str] = []
        if name == self.board.primary:
            cells = _mark(cells, self._marks)
            styles = ["bold" if row.emphasized else "" for row in rows]
        return Column(
            self._headings[name],
            cells,
            is_name=name in (*_NAMES, "model"),
            most=most if name == "label" else None,
            styles=styles,
        )

    @cached_property
    def _with_intervals(self) -> set[str]:
        """The names of the columns whose numbers may have an interval."""
        names = {name for row in self.board.rows for name in row.scores}
        return {"gain", "shuffled_gain", "trivial_gain", *names}

    @cached_property
    def _marks(self) -> list[str]:
        """The letters of the rows that each row beats."""
        from personabench.leaderboard.formats import beaten, raised

        return [raised(beaten(self.board, row)) for row in self.board.rows]

    def _choose(self) -> dict[str, Column]:
        """The columns of the plain table."""
        always = [name for name in (*_NAMES, self.board.primary, "gain") if name in self._headings]
        first = [name for name in _FIRST if name in self._headings]
        chosen = self._arrange(always, stacked=False)
        if self._exceeds({**chosen, **{name: self._column(name) for name in first}}):
            chosen = self._arrange(always, stacked=True)

        for name in (*first, *self._further()):
            if name in chosen:
                continue
            column = self._column(name)
            if not self._exceeds({**chosen, name: column}):
                chosen[name] = column
        room = self.width - total_width(list(chosen.values()))
        label = chosen["label"]
        chosen["label"] = replace(label, most=label.width + room)
        order = [*self._headings, "tokens"]
        # The number of seconds comes last in every table.
        order.append(order.pop(order.index("seconds")) if "seconds" in order else "")
        return dict(sorted(chosen.items(), key=lambda item: order.index(item[0])))

    def _further(self) -> list[str]:
        """Columns that are added if there is room, in the order of importance."""
        plain = self.board.columns
        metrics = [name for name, heading in plain.items() if heading.endswith(("↑", "↓"))]
        prefix = f"{self.board.primary}/"
        extra = [name for name in plain if prefix in name or ":" in name]
        names = (*_WARNINGS, *metrics, *extra, *_EXTRA)
        return [name for name in names if name in self._headings or name == "tokens"]

    def _arrange(self, names: Sequence[str], *, stacked: bool) -> dict[str, Column]:
        """Columns side by side, names of methods as wide as the width allows."""
        columns = {name: self._column(name, stacked=stacked, most=_LONGEST) for name in names}
        missing = total_width(list(columns.values())) - self.width
        if missing > 0:
            label = columns["label"]
            columns["label"] = replace(label, most=max(_SHORTEST, label.width - missing))
        return columns

    def _exceeds(self, columns: Mapping[str, Column]) -> bool:
        return total_width(list(columns.values())) > self.width

    def _split(self) -> list[dict[str, Column]]:
        """All columns in tables that fit the width, each with the names of the rows."""
        names = self._arrange([name for name in _NAMES if name in self._headings], stacked=False)
        tables = [dict(names)]
        for name in self._headings:
            if name in names:
                continue
            column = self._column(name)
            if self._exceeds({**names, name: column}):
                column = self._column(name, stacked=True)
            if len(tables[-1]) > len(names) and self._exceeds({**tables[-1], name: column}):
                tables.append(dict(names))
            tables[-1][name] = column
        return tables


def _align(cells: Sequence[str], joint: str) -> list[str]:
    """Lay numbers and intervals in columns of their own: after a space, or below each other."""
    parts = [cell.partition(" ") for cell in cells]
    before = max(len(number) for number, _, _ in parts)
    after = max(len(interval) for _, _, interval in parts)
    if not after:
        return list(cells)
    if joint == "\n":
        width = max(before, after)
        return [
            number.rjust(width) + (joint + interval.rjust(width) if interval else "")
            for number, _, interval in parts
        ]
    return [f"{number.rjust(before)} {interval.ljust(after)}" for number, _, interval in parts]


def _mark(cells: Sequence[str], marks: Sequence[str]) -> list[str]:
    """Add marks to the first lines of cells, all of one length, so that points stay aligned."""
    longest = max(map(len, marks), default=0)
    marked = []
    for cell, mark in zip(cells, marks, strict=True):
        first, *rest = cell.split("\n")
        lines = [first + mark.ljust(longest), *(line + " " * longest for line in rest)]
        marked.append("\n".join(lines))
    return marked
