"""Figures for papers, drawn by matplotlib: one board, one kind, the protocol inside the picture.

Colour is the method, a hollow mark a control, grey a row without an interval: it has too few users
to say how far its number can be trusted.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from personabench.errors import UsageError
from personabench.leaderboard import Board
from personabench.leaderboard.curves import curves, families, format_x
from personabench.leaderboard.row import Row
from personabench.leaderboard.rows import lacks_donors
from personabench.report.groups import ReportRow
from personabench.report.protocol import protocol
from personabench.report.user_scores import user_gains

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito, told apart with every kind of colour vision; the baseline is black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A6D00", "#3B8FC4", "#7A4FBF")
_GREY = "#777777"
_ROW_HEIGHT = 0.28
# Inches of a line of labels beyond a row's first, and of a line of the note beyond its second.
_LINE_HEIGHT = 0.12
# Of labels above and below their dots, so that those of neighbours stay apart.
_LABEL_OFFSETS = (4, -9, 12, -17)


class _Space(NamedTuple):
    """The space of a figure, which is drawn at the size at which it is shown.

    Attributes:
        width: in inches.
        label, note: the most characters of a line of labels, and of the protocol.
        text: those of the title and of the names of axes.
        ticks: the most numbers on the horizontal axis; None for as many as fit.
    """

    width: float
    label: int
    note: int
    text: int
    ticks: int | None = None


# A column of a paper in two is 219 points wide.
SPACES: Mapping[str, _Space] = {
    "column": _Space(3.04, label=18, note=68, text=36, ticks=4),
    "page": _Space(6.0, label=34, note=110, text=90),
}


def draw(kind: str, board: Board, path: Path, fit: str = "page") -> None:
    """Draw a figure of a board into a file, whose ending is the format (pdf, svg or png).

    Args:
        fit: the space that it is drawn for, of `SPACES`.

    Raises:
        UsageError: matplotlib is not installed, the board has nothing of this kind, or the file
            cannot be written.
    """
    if path.suffix not in (".pdf", ".svg", ".png"):
        raise UsageError(f"--output {path}: name a .pdf, .svg or .png file")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "plot needs matplotlib: pip install 'personabench-harness[plot]'"
        ) from error

    space = SPACES[fit]
    figure = _Drawing(board, space)
    note_lines = textwrap.wrap(protocol(board), space.note)
    height = figure.height(kind) + _LINE_HEIGHT * max(0, len(note_lines) - 2)
    note = "\n".join(note_lines)
    # Texts stay texts in SVG and PDF, and equal runs give equal files.
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
        "svg.hashsalt": "personabench",
    }
    with matplotlib.rc_context({"font.size": 8, **settings}):
        canvas = Figure(figsize=(space.width, height), layout="constrained")
        axes = canvas.subplots()
        KINDS[kind](figure, axes)
        if space.ticks and axes.get_xscale() == "linear" and kind != "curve":
            axes.locator_params(axis="x", nbins=space.ticks)
        # Of the figure: a title of the axes begins at their edge and would be cut off on the right.
        canvas.suptitle(figure.wrap(board.title), x=0.01, ha="left", fontsize=9)
        axes.set_xlabel(figure.wrap(axes.get_xlabel()))
        axes.spines[["top", "right"]].set_visible(False)
        canvas.supxlabel(note, x=0.01, ha="left", fontsize=5.5, color=_GREY)
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else {}
        if path.suffix == ".svg":
            metadata = {"Date": None}
        try:
            canvas.savefig(path, dpi=200, metadata=metadata)
        except OSError as error:
            raise UsageError(f"--output {path} cannot be written: {error.strerror}") from error


class _Drawing:
    """Draws the rows of one board."""

    def __init__(self, board: Board, space: _Space) -> None:
        self.board = board
        self.space = space
        self.rows = [row for row in board.rows if row.scores.get(board.primary) is not None]
        if not self.rows:
            raise UsageError(f"{board.title} has no scores to draw")
        methods = [row.method for row in self.rows if row.method != board.baseline]
        self._colours = {
            method: COLOURS[number % len(COLOURS)]
            for number, method in enumerate(sorted(set(methods)))
        }
        self.models = list(dict.fromkeys(row.model for row in self.rows))
        arrow = "↑" if board.higher_is_better else "↓"
        self.metric = f"{board.primary} {arrow}"

    def height(self, kind: str) -> float:
        if kind in ("gains", "intervals", "users", "own-vs-shuffled"):
            further = sum(self.label(row).count("\n") for row in self.rows)
            # The share of users made worse is a line of its own.
            further += len(self.rows) * (kind == "users")
            return 1.4 + _ROW_HEIGHT * max(3, len(self.rows)) + _LINE_HEIGHT * further
        return 4.0 if self.space.width > SPACES["column"].width else 2.6

    def wrap(self, text: str) -> str:
        return "\n".join(textwrap.wrap(text, self.space.text))

    def label(self, row: Row) -> str:
        text = f"{row.label} · {row.model}" if len(self.models) > 1 else row.label
        return "\n".join(textwrap.wrap(text, self.space.label, break_on_hyphens=False))

    def style(self, row: Row, *, has_interval: bool = True) -> dict[str, Any]:
        colour = self._colours.get(row.method, "black") if has_interval else _GREY
        is_control = row.history != "own" or not has_interval
        return {
            "color": colour,
            "markerfacecolor": "white" if is_control else colour,
            "markeredgecolor": colour,
        }

    def dots(
        self, axes: Axes, values: Mapping[int, tuple[float, float | None, float | None]]
    ) -> None:
        """Draw a dot and its interval for each row, best row on top."""
        for position, (number, (value, low, high)) in enumerate(values.items()):
            row = self.rows[number]
            has_interval = low is not None and high is not None
            style = self.style(row, has_interval=has_interval)
            if low is not None and high is not None:
                axes.plot([low, high], [position, position], color=style["color"], linewidth=1.5)
            axes.plot([value], [position], marker="o", markersize=5, linestyle="", **style)
        axes.set_yticks(range(len(values)), [self.label(self.rows[number]) for number in values])
        axes.invert_yaxis()
        axes.grid(axis="x", linewidth=0.3)

    def intervals(self, axes: Axes) -> None:
        values = {}
        for number, row in enumerate(self.rows):
            estimate = row.estimate
            score = float(row.scores[self.board.primary] or 0.0)
            low, high = (estimate.low, estimate.high) if estimate else (None, None)
            values[number] = score, low, high
        self.dots(axes, values)
        axes.set_xlabel(self.metric)

    def gains(self, axes: Axes) -> None:
        values = {}
        for number, row in enumerate(self.rows):
            gain = row.gain.gain if row.gain else None
            if gain is not None and gain.value is not None:
                values[number] = gain.value, gain.low, gain.high
        if not values:
            raise UsageError(
                f"no row has a gain over '{self.board.baseline}'; run it, or name "
                "another with --baseline"
            )
        self.dots(axes, values)
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.set_xlabel(
            f"gain in {self.board.primary} over {self.board.baseline}, to the right is better"
        )

    def frontier(self, axes: Axes) -> None:
        points = [
            (row.costs.query_tokens, row.frontier_score, row)
            for row in self.rows
            if row.history == "own"
        ]
        located = [(x, y, row) for x, y, row in points if x and y is not None]
        if not located:
            raise UsageError("no row has both a score and tokens per query")
        for number, (x, y, row) in enumerate(sorted(located, key=lambda point: point[:2])):
            has_interval = row.estimate is not None and row.estimate.low is not None
            style = self.style(row, has_interval=has_interval)
            axes.plot([x], [y], marker="o", linestyle="", **style)
            axes.annotate(
                self.label(row),
                (x, y),
                xytext=(4, _LABEL_OFFSETS[number % len(_LABEL_OFFSETS)]),
                textcoords="offset points",
                fontsize=7,
            )
        best = sorted((x, y) for x, y, row in located if row.frontier)
        axes.step(
            [x for x, _ in best],
            [y for _, y in best],
            where="post",
            color=_GREY,
            linewidth=0.8,
            linestyle="--",
            zorder=0,
        )
        axes.set_xscale("log")
        _number_powers(axes, [x for x, _, _ in located])
        axes.margins(x=0.25, y=0.15)
        axes.set_xlabel("tokens per query, profiles included")
        axes.set_ylabel(self.metric)

    def curve(self, axes: Axes) -> None:
        series = families(curves([self.board]))
        if not series:
            raise UsageError("no two runs differ in the history's size or one parameter alone")
        axis = series[0][0].over
        ticks = {point.x for points in series for point in points if point.over == axis}
        order = sorted(ticks, key=lambda x: math.inf if x is None else x)
        for number, points in enumerate(points for points in series if points[0].over == axis):
            colour = COLOURS[number % len(COLOURS)]
            joined = [point for point in points if point.joined and point.value is not None]
            xs = [order.index(point.x) for point in joined]
            axes.plot(
                xs,
                [float(point.value or 0.0) for point in joined],
                color=colour,
                label=f"{points[0].name} (n = {max(point.n for point in points)})",
            )
            for point in points:
                position = order.index(point.x)
                if point.low is not None:
                    axes.plot(
                        [position, position], [point.low, float(point.high or 0.0)], color=colour
                    )
                axes.plot(
                    [position],
                    [float(point.value or 0.0)],
                    marker="o",
                    color=colour,
                    markerfacecolor=colour if point.joined else "white",
                )
        axes.set_xticks(range(len(order)), [format_x(x) for x in order])
        axes.set_xlabel(f"{axis}; hollow: on other samples")
        axes.set_ylabel(self.metric)
        axes.legend(frameon=False)

    def users(self, axes: Axes) -> None:
        members = [ReportRow(row, entry.runs) for row, entry in self._with_entries()]
        bases = [member for member in members if member.row.method == self.board.baseline]
        gained = []
        for member in members:
            base = next((base for base in bases if base.row.setting == member.row.setting), None)
            gains = None if base is None or base is member else user_gains(member, base)
            if gains:
                gained.append((member.row, gains))
        if not gained:
            raise UsageError(f"no row has gains of users over '{self.board.baseline}'")
        for position, (row, gains) in enumerate(gained):
            style = self.style(row)
            axes.plot(
                gains,
                [position] * len(gains),
                marker="|",
                markersize=9,
                linestyle="",
                color=style["color"],
                alpha=0.7,
            )
        axes.axvline(0.0, color="black", linewidth=0.8)
        labels = []
        for row, gains in gained:
            share = sum(gain < 0 for gain in gains) / len(gains)
            labels.append(f"{self.label(row)}\n{share:.0%} worse")
        axes.set_yticks(range(len(gained)), labels)
        axes.invert_yaxis()
        axes.set_xlabel(f"gain of each user in {self.board.primary} over {self.board.baseline}")

    def _with_entries(self) -> list[tuple[Row, Any]]:
        pairs = zip(self.board.rows, self.board.entries, strict=True)
        return [(row, entry) for row, entry in pairs if row in self.rows]

    def own_and_shuffled(self, axes: Axes) -> None:
        def key(row: Row) -> tuple[str, str, str]:
            return row.method, str(sorted(row.params.items())), row.model

        own_rows = {key(row): row for row in self.rows if row.history == "own"}
        # A run that got nobody's records is no control.
        shuffled = {
            key(row): row
            for row, entry in self._with_entries()
            if row.history == "shuffled" and not lacks_donors(entry)
        }
        pairs = [(own_rows[name], shuffled[name]) for name in own_rows if name in shuffled]
        if not pairs:
            raise UsageError(
                "no method was run with its own and with shuffled histories; add "
                "runs with --history shuffled"
            )
        for position, rows in enumerate(pairs):
            scores = [float(row.scores[self.board.primary] or 0.0) for row in rows]
            axes.plot(
                scores, [position, position], color=self.style(rows[0])["color"], linewidth=1.0
            )
            for row, score in zip(rows, scores, strict=True):
                axes.plot([score], [position], marker="o", linestyle="", **self.style(row))
        axes.set_yticks(range(len(pairs)), [self.label(row) for row, _ in pairs])
        axes.invert_yaxis()
        axes.margins(y=0.3)
        axes.grid(axis="x", linewidth=0.3)
        axes.set_xlabel(f"{self.metric}: ● own history, ○ another user's")


def _number_powers(axes: Axes, values: Sequence[float]) -> None:
    """Write plain numbers below a logarithmic axis, and few enough to stand side by side."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    decades = math.log10(max(values) / min(values))
    steps = (1.0, 2.0, 5.0) if decades < 1.5 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


KINDS: Mapping[str, Callable[[_Drawing, Any], None]] = {
    "gains": _Drawing.gains,
    "intervals": _Drawing.intervals,
    "frontier": _Drawing.frontier,
    "curve": _Drawing.curve,
    "users": _Drawing.users,
    "own-vs-shuffled": _Drawing.own_and_shuffled,
}


def choose_board(boards: Sequence[Board]) -> Board:
    """The only board, since a figure shows one.

    Raises:
        UsageError: there are several.
    """
    if len(boards) > 1:
        titles = ", ".join(board.title for board in boards)
        raise UsageError(f"a figure shows one task; choose one with --task: {titles}")
    return boards[0]
