"""Boards and curves as text: cells for readers, and Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from personabench.errors import visible
from personabench.leaderboard.board import WORDS, Board
from personabench.leaderboard.curves import Point, families, format_x, remarks
from personabench.leaderboard.row import CONTRAST_COLUMNS, Row
from personabench.results.csv_rows import write_csv

SHARES = ("hurt_users", "hurt_samples", "cached_share")
MISSING = "–"

# Unicode has no superscript q, and none for most capitals; those letters stay as they are.
_SUPERSCRIPTS = dict(zip("abcdefghijklmnoprstuvwxyz-", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ⁻", strict=True))


# Share of an interval's longer side by which its shorter one may differ to be printed as "±".
ASYMMETRY = 1 / 3


def cell(name: str, value: Any) -> str:
    """Format a value: four decimals for scores, thousands separated for counts."""
    if value is None or _is_undefined(value):
        return MISSING
    if isinstance(value, float):
        few_decimals = name == "seconds" or abs(value) >= 100
        return f"{value:,.1f}" if few_decimals else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _is_undefined(value: Any) -> bool:
    # A metric may be undefined, such as a mean over judged samples without any.
    return isinstance(value, float) and math.isnan(value)


def text(name: str, row: Row) -> str:
    """Format one column of a row: scores with half their interval, gains with a sign."""
    composed = _COMPOSED.get(name)
    if composed is not None:
        return composed(row)

    value = row.columns.get(name)
    if value is not None and not _is_undefined(value):
        if name in CONTRAST_COLUMNS.values():
            # Adding zero turns -0.0 into 0.0.
            return f"{value + 0.0:+.4f}{_bounds(row, name, f'{name}_low', f'{name}_high')}"
        if name.endswith("_p"):
            return "<0.001" if value < 0.001 else f"{value:.3f}"
        if name in SHARES:
            return f"{value:.0%}"
        if name.endswith("_price"):
            return f"{value:.3g}"
    return cell(name, value) + _bounds(row, name, f"{name}/low", f"{name}/high")


def _label_text(row: Row) -> str:
    marks = "†" * (row.personal is False) + "‡" * bool(row.rank_changes)
    marks += "§" * bool(row.unranked)
    return f"{row.label} {marks}" if marks else row.label


def _wins_text(row: Row) -> str:
    count = row.gain and row.gain.comparison.by_user
    return f"{count.win}/{count.tie}/{count.loss}" if count else MISSING


def _quantiles_text(row: Row) -> str:
    quantiles = row.gain and row.gain.comparison.quantiles
    return " ".join(f"{value + 0.0:+.3f}" for value in quantiles) if quantiles else MISSING


def _tokens_text(tokens: float | None) -> str:
    return MISSING if tokens is None else thousands(tokens)


def _training_text(row: Row, name: str, layout: str) -> str:
    value = getattr(row.training, name, None)
    return MISSING if value is None else layout.format(value)


# Shown columns that are not one column of the row, or have a format of their own.
_COMPOSED: dict[str, Callable[[Row], str]] = {
    "label": _label_text,
    "wins": _wins_text,
    "quantiles": _quantiles_text,
    "frontier": lambda row: "✓" if row.frontier else "",
    "offline_tokens": lambda row: _tokens_text(row.costs.offline_tokens),
    "online_tokens": lambda row: _tokens_text(row.costs.online_tokens),
    "profiler_tokens": lambda row: _tokens_text(row.costs.profiler_tokens),
    "judge_tokens": lambda row: _tokens_text(row.costs.judge_tokens),
    "simulator_tokens": lambda row: _tokens_text(row.costs.simulator_tokens),
    "train_parameters": lambda row: _training_text(row, "train_parameters", "{:,.0f}"),
    "train_seconds": lambda row: _training_text(row, "train_seconds", "{:,.1f}"),
    "train_seconds_p95": lambda row: _training_text(row, "train_seconds_p95", "{:,.1f}"),
    "train_bytes": lambda row: _training_text(row, "train_bytes", "{:,.0f}"),
    "train_records": lambda row: _training_text(row, "train_records", "{:,.1f}"),
}


def _bounds(row: Row, name: str, low: str, high: str) -> str:
    """Half an interval, or both of its ends if its sides differ by more than `ASYMMETRY`."""
    value, low_end, high_end = (row.columns.get(column) for column in (name, low, high))
    if value is None or low_end is None or high_end is None:
        return ""
    below, above = value - low_end, high_end - value
    if abs(above - below) > ASYMMETRY * max(above, below):
        return f" [{low_end:.3f}, {high_end:.3f}]"
    return f" ±{(above + below) / 2:.3f}"


def thousands(count: float) -> str:
    """Format a count in at most five characters."""
    if count >= 1e6:
        return f"{count / 1e6:.1f}M"
    if count >= 1000:
        return f"{count / 1e3:.1f}k"
    return str(round(count))


def beaten(board: Board, row: Row) -> str:
    """Letters of the rows that a row beats, three and more neighbours as a range: "b,d-g"."""
    positions = [
        position
        for position, rival in enumerate(board.rows)
        if rival.label in row.statistics.beats and rival.setting == row.setting
    ]
    ranges: list[list[int]] = []
    for position in positions:
        if ranges and position == ranges[-1][-1] + 1:
            ranges[-1].append(position)
        else:
            ranges.append([position])

    parts = []
    for neighbours in ranges:
        letters = [board.rows[position].letter for position in neighbours]
        # A range of two would be longer than its letters.
        parts.append(f"{letters[0]}-{letters[-1]}" if len(letters) > 2 else ",".join(letters))
    return ",".join(parts)


def raised(letters: str) -> str:
    """Write letters as plain-text superscripts; those without one stay as they are."""
    return "".join(_SUPERSCRIPTS.get(letter, letter) for letter in letters.replace(",", ""))


def headed(board: Board, columns: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Move columns with one value into the title of a board, and drop columns of zeros."""
    remaining = dict(columns)
    title = board.heading

    models = {row.model for row in board.rows}
    if len(models) == 1:
        title += f" · {models.pop()}"
        del remaining["model"]

    sizes = {(row.n, row.users) for row in board.rows}
    if len(sizes) == 1:
        n, users = sizes.pop()
        title += f" · n={n}, {users} user{'s' * (users != 1)}"
        del remaining["n"], remaining["users"]

    for name in ("truncated", "empty", "failed", "owed"):
        if not any(row.columns[name] for row in board.rows):
            del remaining[name]
    return title, remaining


def as_markdown(boards: Sequence[Board], wide: bool = False) -> str:
    """Format boards as Markdown tables."""
    return "\n\n".join(_board_as_markdown(board, wide) for board in boards)


def _board_as_markdown(board: Board, wide: bool) -> str:
    columns = board.all_columns if wide else board.columns
    rules = ["---" if name in WORDS else "---:" for name in columns]
    lines = [
        f"### {_escape_html(board.heading)}",
        "",
        _markdown_line(map(escape_cell, columns.values())),
        f"|{'|'.join(rules)}|",
    ]
    for row in board.rows:
        cells = {name: escape_cell(text(name, row)) for name in columns}
        score = cells[board.primary]
        if row.emphasized:
            score = f"**{score}**"
        if row.statistics.beats:
            score += f"<sup>{beaten(board, row)}</sup>"
        cells[board.primary] = score
        lines.append(_markdown_line(cells.values()))

    notes = [f"- {_escape_html(note)}" for note in board.list_notes(columns)]
    return "\n".join([*lines, "", *notes])


def _markdown_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


# Only the start of a tag, a comment or an entity: "<0.001" stays as it is.
_HTML = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)")
_LINK = re.compile(r"\](?=\()")


def _escape_html(plain: str) -> str:
    """Escape names that a page would render as HTML, a link or a picture."""
    escaped = _HTML.sub(lambda match: "&lt;" if match[0] == "<" else "&amp;", plain)
    return _LINK.sub(r"\\]", " ".join(visible(escaped).splitlines()))


def escape_cell(plain: str) -> str:
    """Escape text for a cell of a Markdown table."""
    return _escape_html(plain.replace("\\", "\\\\").replace("|", "\\|"))


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "–": "--",
    "−": "$-$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "§": r"\S{}",
    "≤": r"$\leq$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_TEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def escape_tex(plain: str) -> str:
    """Escape text for LaTeX."""
    return "".join(_TEX.get(character, character) for character in plain)


def as_latex(boards: Sequence[Board], wide: bool = False) -> str:
    """Format boards as LaTeX tables for the booktabs package, title and notes as caption."""
    return "\n\n".join(_board_as_latex(board, wide) for board in boards)


def _board_as_latex(board: Board, wide: bool) -> str:
    title, columns = headed(board, board.all_columns if wide else board.columns)
    body = []
    for row in board.rows:
        cells = {name: escape_tex(text(name, row)) for name in columns}
        score = cells[board.primary]
        if row.emphasized:
            score = rf"\textbf{{{score}}}"
        if row.statistics.beats:
            score += rf"\textsuperscript{{{beaten(board, row)}}}"
        cells[board.primary] = score
        body.append(cells.values())

    return _latex_table(
        alignment="".join("l" if name in WORDS else "r" for name in columns),
        head=[escape_tex(heading) for heading in columns.values()],
        body=body,
        caption=[f"{title}.", *board.list_notes(columns)],
    )


def _latex_table(
    alignment: str,
    head: Iterable[str],
    body: Iterable[Iterable[str]],
    caption: Iterable[str],
) -> str:
    sentences = " ".join(escape_tex(sentence) for sentence in caption)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            _latex_line(head),
            r"\midrule",
            *(_latex_line(cells) for cells in body),
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{sentences}}}",
            r"\end{table}",
        ]
    )


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def curve_title(points: Sequence[Point]) -> str:
    """Title of a curve: task, model, method, and the score against the axis."""
    first = points[0]
    split = f"{first.task}/{first.separation}/{first.split}"
    return f"{split} · {first.model} · {first.name}: {first.metric} against {first.over}"


def curves_as_text(points: Sequence[Point]) -> str:
    """Format curves as lines for a terminal, curve by curve."""
    lines = []
    for curve in families(points):
        lines.append(curve_title(curve))
        lines += [_point_line(point) for point in curve]
        lines += [f"  {sentence}" for sentence in remarks(curve)]
    return "\n".join(lines)


def _point_line(point: Point) -> str:
    interval = "" if point.low is None else f"  {_interval(point)}"
    size = f"n={point.n}"
    if point.n != point.run_n:
        size += f" of {point.run_n}"
    remark = "" if point.joined else "  not joined"
    return f"  {format_x(point.x):>8}  {point.value:.4f}{interval}  {size}{remark}"


def _interval(point: Point) -> str:
    return MISSING if point.low is None else f"[{point.low:.4f}, {point.high:.4f}]"


def _curve_heads(curve: Sequence[Point]) -> list[str]:
    return [
        curve[0].over,
        curve[0].metric,
        "95 % interval",
        "n",
        "n of the run",
        "joined",
        "offline /user",
        "online /query",
    ]


def _curve_cells(point: Point) -> list[str]:
    return [
        format_x(point.x),
        f"{point.value:.4f}",
        _interval(point),
        str(point.n),
        str(point.run_n),
        "yes" if point.joined else "no",
        _tokens_text(point.offline_tokens),
        _tokens_text(point.online_tokens),
    ]


def curves_as_markdown(points: Sequence[Point]) -> str:
    """Format each curve as a Markdown table."""
    return "\n\n".join(_curve_as_markdown(curve) for curve in families(points))


def _curve_as_markdown(curve: Sequence[Point]) -> str:
    heads = _curve_heads(curve)
    rows = [heads, ["---:"] * len(heads), *(_curve_cells(point) for point in curve)]
    lines = [f"### {_escape_html(curve_title(curve))}", ""]
    for row in rows:
        lines.append(_markdown_line(escape_cell(part) for part in row))
    lines.append("")
    lines += [f"- {_escape_html(sentence)}" for sentence in remarks(curve)]
    return "\n".join(lines).rstrip("\n")


def curves_as_latex(points: Sequence[Point]) -> str:
    """Format each curve as a LaTeX table for the booktabs package."""
    return "\n\n".join(_curve_as_latex(curve) for curve in families(points))


def _curve_as_latex(curve: Sequence[Point]) -> str:
    heads = _curve_heads(curve)
    rows = [[escape_tex(part) for part in _curve_cells(point)] for point in curve]
    return _latex_table(
        alignment="r" * len(heads),
        head=[escape_tex(heading) for heading in heads],
        body=rows,
        caption=[f"{curve_title(curve)}.", *remarks(curve)],
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format rows as one CSV; lists and objects are JSON text, missing values are empty."""
    columns = dict.fromkeys(name for row in rows for name in row)
    file = io.StringIO(newline="")
    write_csv(file, columns, rows, escape=False)
    return file.getvalue().rstrip("\n")


def curves_as_csv(points: Sequence[Point]) -> str:
    """Format all points of all curves as one CSV."""
    return table([msgspec.to_builtins(point) for point in points])


def as_csv(boards: Sequence[Board]) -> str:
    """Format all rows of all boards as one CSV."""
    return table([row.columns for board in boards for row in board.rows])


def as_json(boards: Sequence[Board]) -> str:
    """Format all rows of all boards as one JSON list."""
    rows = [row.columns for board in boards for row in board.rows]
    return msgspec.json.format(msgspec.json.encode(rows), indent=2).decode()
