"""Tables for papers: chosen methods, metrics and columns of one task, or methods by tasks.

A table is made of cells first, which `paper_formats` writes as LaTeX, Markdown or CSV.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from personabench.errors import UsageError
from personabench.leaderboard.board import Board
from personabench.leaderboard.estimates import name_units
from personabench.leaderboard.row import Row

_MOST_DIGITS = 4
_DEFAULT_DIGITS = 3
# Rows left out of a table that its footnote names one by one.
_MOST_NAMED = 4


@dataclass(frozen=True)
class PaperOptions:
    """The choices of a table.

    Attributes:
        methods: labels or names of methods, in the order of the table; empty for all.
        metrics: metrics to show; empty for each task's primary one.
        columns: further columns of a single task, as in the leaderboard's JSON.
        rename: names of the table by names of the data: methods, tasks, metrics, columns, models; a
            method's name also renames its rows with other parameters or a control.
        digits: decimal places; None for as many as the intervals justify.
        label: the label for references.
    """

    methods: Sequence[str] = ()
    metrics: Sequence[str] = ()
    columns: Sequence[str] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    digits: int | None = None
    label: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell: its text, and its number with an interval for machines.

    Attributes:
        bold: the best score of its column that beats at least one other row.
    """

    text: str
    value: Any = None
    low: float | None = None
    high: float | None = None
    bold: bool = False


@dataclass(frozen=True)
class PaperColumn:
    """The heading of a column, and the task above it in a table of several."""

    heading: str
    task: str = ""


@dataclass(frozen=True)
class PaperRow:
    """A row, and the model that it belongs to."""

    label: str
    model: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class PaperTable:
    """A table: its columns without that of the labels, its rows, a caption and a footnote."""

    columns: Sequence[PaperColumn]
    rows: Sequence[PaperRow]
    caption: str
    footnote: Sequence[str]
    label: str

    @property
    def models(self) -> list[str]:
        """The models of the rows, in order."""
        return list(dict.fromkeys(row.model for row in self.rows))


def make_table(boards: Sequence[Board], options: PaperOptions) -> PaperTable:
    """Make the table of some boards.

    Raises:
        UsageError: an unknown method, metric or column, or a column for several tasks.
    """
    _check_choices(boards, options)
    writer = _Writer(boards, options)
    return PaperTable(
        columns=writer.columns,
        rows=writer.rows(),
        caption=writer.caption(),
        footnote=writer.footnote(),
        label=options.label,
    )


def _check_choices(boards: Sequence[Board], options: PaperOptions) -> None:
    rows = [row for board in boards for row in board.rows]
    labels = {row.label for row in rows} | {row.method for row in rows}
    for method in options.methods:
        if method not in labels:
            raise UsageError(
                f"--methods {method}: no such row; there are {', '.join(sorted(labels))}"
            )

    scores = {name for row in rows for name in row.scores}
    for metric in options.metrics:
        if metric not in scores:
            raise UsageError(
                f"--metrics {metric}: no row has it; there are {', '.join(sorted(scores))}"
            )
    if options.columns and len(boards) > 1:
        raise UsageError("--columns can only be used with a single task; name it with --task")
    names = {name for row in rows for name in row.columns}
    for column in options.columns:
        if column not in names:
            raise UsageError(
                f"--columns {column}: no such column; there are {', '.join(sorted(names))}"
            )


class _Writer:
    """Writes the cells of a table."""

    def __init__(self, boards: Sequence[Board], options: PaperOptions) -> None:
        self.boards = boards
        self.options = options
        self.several = len(boards) > 1
        self._methods = {
            (row.model, row.label): row.method for board in boards for row in board.rows
        }
        # For each column its board, and its metric or the name of a further column.
        self.places = [
            (board, name, True) for board in boards for name in options.metrics or [board.primary]
        ]
        self.places = [place for place in self.places if _has_metric(place[0], place[1])]
        if not self.several:
            self.places += [(boards[0], name, False) for name in options.columns]

    def rename(self, name: str) -> str:
        return self.options.rename.get(name, name)

    def rename_row(self, label: str, method: str) -> str:
        """The name of a row; its method's new name stands before its parameters and control."""
        names = self.options.rename
        if label in names or method not in names or not label.startswith(f"{method} ("):
            return self.rename(label)
        return names[method] + label.removeprefix(method)

    @property
    def columns(self) -> list[PaperColumn]:
        columns = []
        for board, name, is_metric in self.places:
            heading = self.rename(name)
            if is_metric:
                heading += " ↑" if _is_higher(board, name) else " ↓"
            task = self.rename(board.rows[0].task if _is_plain(board) else board.title)
            columns.append(PaperColumn(heading, task if self.several else ""))
        return columns

    def rows(self) -> list[PaperRow]:
        keys = dict.fromkeys((row.model, row.label) for board in self.boards for row in board.rows)
        by_key = [{(row.model, row.label): row for row in board.rows} for board in self.boards]
        rows = []
        for model, label in self._order(list(keys)):
            matches = {
                id(board): rows_of.get((model, label))
                for board, rows_of in zip(self.boards, by_key, strict=True)
            }
            cells = [
                self._cell(board, matches[id(board)], name, is_metric)
                for board, name, is_metric in self.places
            ]
            name = self.rename_row(label, self._methods[(model, label)])
            rows.append(PaperRow(name, self.rename(model), cells))
        return rows

    def _order(self, keys: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Rows model by model; in the order that was asked for, or the baseline first."""
        models = list(dict.fromkeys(model for model, _ in keys))
        method_of = self._methods
        chosen = list(self.options.methods)

        def place(key: tuple[str, str]) -> tuple[int, int]:
            names = (key[1], method_of[key])
            if chosen:
                return models.index(key[0]), min(chosen.index(n) for n in names if n in chosen)
            return models.index(key[0]), int(method_of[key] != self.boards[0].baseline)

        if chosen:
            keys = [key for key in keys if key[1] in chosen or method_of[key] in chosen]
        return sorted(keys, key=place)

    def _cell(self, board: Board, row: Row | None, name: str, is_metric: bool) -> Cell:
        if row is None:
            return Cell("–")
        value = row.columns.get(name)
        if value is None:
            return Cell("–")
        if not is_metric:
            return self._further_cell(row, name, value)

        low, high = row.columns.get(f"{name}/low"), row.columns.get(f"{name}/high")
        digits = self._digits(board, name)
        text = f"{value:.{digits}f}".replace("-", "−")
        if low is not None and high is not None:
            half = f"{(high - low) / 2:.{digits}f}"
            text += f" ± {half.removeprefix('0') if half.startswith('0.') else half}"
        # A leader that beats nobody is not better than anything.
        bold = name == board.primary and row.emphasized
        return Cell(text, value, low, high, bold)

    def _further_cell(self, row: Row, name: str, value: Any) -> Cell:
        low, high = row.columns.get(f"{name}_low"), row.columns.get(f"{name}_high")
        if low is None:
            low, high = row.columns.get(f"{name}/low"), row.columns.get(f"{name}/high")
        return Cell(self._further_text(name, value), value, low, high)

    def _further_text(self, name: str, value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, list | tuple):
            return ", ".join(map(str, value)) or "–"
        if name.endswith("_p"):
            return "< .001" if value < 0.001 else f"{value:.3f}"
        if isinstance(value, int) or (isinstance(value, float) and abs(value) >= 100):
            return _shorten(value)
        if isinstance(value, float):
            digits = _DEFAULT_DIGITS if self.options.digits is None else self.options.digits
            sign = "+" if "gain" in name else ""
            return f"{value:{sign}.{digits}f}".replace("-", "−")
        return str(value)

    def _digits(self, board: Board, metric: str) -> int:
        """As many decimal places as the width of the intervals justifies."""
        if self.options.digits is not None:
            return self.options.digits
        halves = []
        for row in board.rows:
            low, high = row.columns.get(f"{metric}/low"), row.columns.get(f"{metric}/high")
            if low is not None and high is not None and high > low:
                halves.append((high - low) / 2)
        if not halves:
            return _DEFAULT_DIGITS
        return min(_MOST_DIGITS, max(1, 1 - math.floor(math.log10(median(halves)))))

    def caption(self) -> str:
        if self.several:
            return "Methods by tasks."
        board = self.boards[0]
        metrics = [self.rename(name) for _, name, is_metric in self.places if is_metric]
        return f"{self.rename(board.rows[0].task)}: {', '.join(metrics)}."

    def footnote(self) -> list[str]:
        """The protocol: everything that a reader needs to know of the numbers."""
        sentences = []
        for board in self.boards:
            shown = [row for row in board.rows if row.scores]
            sizes = _range([row.n for row in shown])
            users = _range([row.users for row in shown])
            longest = any(row.selection == "longest" for row in shown)
            chosen = " with the longest histories" if longest else ""
            sentences.append(f"{board.heading}: {sizes} samples of {users} users{chosen}.")
        rows = [row for board in self.boards for row in board.rows]
        models = [self.rename(model) for model in dict.fromkeys(row.model for row in rows)]
        sentences.append(f"Model: {', '.join(models)}.")
        units = name_units(row.estimate for row in rows)
        if any(cell.low is not None for row in self.rows() for cell in row.cells):
            sentences.append(f"±: half of a 95 % interval over {units} (bootstrap).")
        if any(cell.bold for row in self.rows() for cell in row.cells):
            sentences.append(
                "Bold: no row is significantly better, and it beats at least one (sign-flip test "
                f"over {units}, Holm-corrected, p ≤ 0.05{self._left_out()})."
            )
        masks = dict.fromkeys(row.statistics.mask for row in rows if row.statistics.mask)
        if masks:
            sentences.append(f"audited: without the samples of a mask ({'; '.join(masks)}).")
        if any(row.sample for row in rows):
            sentences.append("Example data, not the benchmark.")
        return [*sentences, *self._provenance()]

    def _left_out(self) -> str:
        """Name the rows that the tests behind bold compare as well, and the table leaves out."""
        shown = set(self._order(list(self._methods)))
        names = list(
            dict.fromkeys(
                self.rename_row(row.label, row.method)
                for board in self.boards
                for row in board.rows
                if (row.model, row.label) not in shown and row.scores.get(board.primary) is not None
            )
        )
        if not names:
            return ""
        listed = ", ".join(names) if len(names) <= _MOST_NAMED else f"{len(names)} of them"
        return f"; among all rows, also those left out here: {listed}"

    def _provenance(self) -> list[str]:
        summaries = [entry.summary for board in self.boards for entry in board.entries]
        seeds = sorted(
            {
                run.summary.seed
                for board in self.boards
                for entry in board.entries
                for run in entry.runs
            }
        )
        versions = {
            " ".join(
                part
                for part in (
                    summary.harness.get("version") or "",
                    (summary.harness.get("commit") or "")[:8],
                )
                if part
            )
            for summary in summaries
        }
        named = ", ".join(sorted(filter(None, versions)))
        text = f"Seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"Seed {seeds[0]}"
        return [f"{text}; personabench {named}." if named else f"{text}; personabench."]


def _has_metric(board: Board, metric: str) -> bool:
    return any(metric in row.scores for row in board.rows)


def _is_higher(board: Board, metric: str) -> bool:
    for entry in board.entries:
        directions = entry.summary.higher_is_better
        if metric in directions:
            return directions[metric]
    return board.higher_is_better


def _is_plain(board: Board) -> bool:
    """Whether a board's title is its task's name and split, not that of one's own data."""
    row = board.rows[0]
    return board.title == f"{row.task}/{row.separation}/{row.split}"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers, default=0), max(numbers, default=0)
    return str(low) if low == high else f"{low} to {high}"


def _shorten(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:,.0f}"
