"""Write tables for papers as LaTeX that fits its column, as Markdown, or as CSV."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from personabench.errors import UsageError
from personabench.leaderboard.formats import escape_cell, escape_tex
from personabench.leaderboard.formats import table as write_csv_table
from personabench.leaderboard.paper_table import Cell, PaperColumn, PaperRow, PaperTable
from personabench.leaderboard.text_width import text_width

Fit = Literal["column", "page"]
# The narrowest usual widths in points: a column of two, and the text of a page.
WIDTHS: dict[Fit, float] = {"column": 219.0, "page": 345.0}
# Font size and space between columns, from the most readable on.
_SIZES = ((10.0, 6.0), (9.0, 5.0), (9.0, 4.0), (8.0, 4.0), (8.0, 3.0), (7.0, 3.0), (7.0, 2.0))
_SLACK = 0.99
# Marks inside names, after which a line may be broken.
_MARK = re.compile(r"(?<=\w)(\\_|[/=.-])(?=\w)")
# Of the width, beyond which labels are broken into lines.
_WIDEST_LABEL = 0.45


class _Layout(NamedTuple):
    """A font size, the space between columns, the label's width if it is broken, and columns."""

    size: float
    gap: float
    label_width: float | None
    blocks: Sequence[Sequence[int]]


def as_latex(table: PaperTable, fit: Fit, width: float | None = None) -> str:
    """Write a table for the packages booktabs and array, no wider than its column.

    Columns that do not fit beside each other are put below each other.

    Args:
        fit: a column of two, or the whole page.
        width: its width in points; None for the narrowest usual one.

    Raises:
        UsageError: not even one column fits.
    """
    layout = _choose_layout(table, width or WIDTHS[fit])
    environment = "table" if fit == "column" else "table*"
    parts = [_tabular(table, layout, block) for block in layout.blocks]
    caption = escape_tex(table.caption)
    label = rf"\label{{{table.label}}}" if table.label else ""
    notes = " ".join(_breakable(sentence) for sentence in table.footnote)
    return "\n".join(
        [
            "% needs \\usepackage{booktabs,array}",
            rf"\begin{{{environment}}}[t]",
            r"\centering",
            rf"\caption{{{caption}}}{label}",
            rf"\fontsize{{{layout.size:g}}}{{{1.2 * layout.size:g}}}\selectfont",
            rf"\setlength{{\tabcolsep}}{{{layout.gap / 2:g}pt}}",
            "\n\n\\medskip\n".join(parts),
            "",
            r"\smallskip",
            r"\parbox{\linewidth}{\fontsize{7}{8.4}\selectfont\raggedright\sloppy",
            rf"{notes}}}",
            rf"\end{{{environment}}}",
        ]
    )


def _choose_layout(table: PaperTable, width: float) -> _Layout:
    """Choose the largest font at which all columns fit, or break the table into blocks."""
    everything = range(len(table.columns))
    for size, gap in _SIZES:
        if block_width(table, everything, size, gap, None) <= width * _SLACK:
            return _Layout(size, gap, None, [everything])

    size, gap = _SIZES[-3]
    label_width = min(_label_width(table, size), _WIDEST_LABEL * width)
    blocks: list[list[int]] = []
    for column in everything:
        wider = [*blocks[-1], column] if blocks else [column]
        if blocks and block_width(table, wider, size, gap, label_width) <= width * _SLACK:
            blocks[-1] = wider
        else:
            blocks.append([column])
    for block in blocks:
        if block_width(table, block, size, gap, label_width) > width * _SLACK:
            raise UsageError(
                f"the column '{table.columns[block[0]].heading}' does not fit into {width:g} pt; "
                "shorten it with --rename, or use --fit page"
            )
    return _Layout(size, gap, label_width, blocks)


def block_width(
    table: PaperTable,
    columns: Sequence[int],
    size: float,
    gap: float,
    label_width: float | None,
) -> float:
    """The width of some columns beside their labels, in points."""
    label = _label_width(table, size) if label_width is None else label_width
    widths = [label, *(_column_width(table, column, size) for column in columns)]
    return sum(widths) + gap * (len(widths) - 1)


def _label_width(table: PaperTable, size: float) -> float:
    texts = [row.label for row in table.rows]
    if len(table.models) > 1:
        texts += table.models
    return max(text_width(text, size) for text in texts)


def _column_width(table: PaperTable, column: int, size: float) -> float:
    heading = table.columns[column]
    widths = [text_width(heading.heading, size), text_width(heading.task, size)]
    for row in table.rows:
        cell = row.cells[column]
        widths.append(text_width(cell.text, size, bold=cell.bold))
    return max(widths)


def _tabular(table: PaperTable, layout: _Layout, block: Sequence[int]) -> str:
    label = "l"
    if layout.label_width is not None:
        label = rf">{{\raggedright\arraybackslash}}p{{{layout.label_width:.1f}pt}}"
    columns = [table.columns[column] for column in block]
    lines = [rf"\begin{{tabular}}{{@{{}}{label}{'r' * len(block)}@{{}}}}", r"\toprule"]
    if any(column.task for column in columns):
        lines.append(_tex_line("", [column.task for column in columns]))
    lines.append(_tex_line("", [column.heading for column in columns]))
    lines.append(r"\midrule")
    lines += _tex_rows(table, block)
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _tex_rows(table: PaperTable, block: Sequence[int]) -> Iterator[str]:
    for number, model in enumerate(table.models):
        if len(table.models) > 1:
            if number:
                yield r"\addlinespace"
            yield rf"\emph{{{_breakable(model)}}}{' &' * len(block)} \\"
        for row in table.rows:
            if row.model == model:
                cells = [_tex_cell(row.cells[column]) for column in block]
                yield " & ".join([_breakable(row.label), *cells]) + r" \\"


def _tex_line(first: str, texts: Sequence[str]) -> str:
    return " & ".join([first, *(escape_tex(text) for text in texts)]) + r" \\"


def _tex_cell(cell: Cell) -> str:
    text = escape_tex(cell.text)
    return rf"\textbf{{{text}}}" if cell.bold else text


def _breakable(text: str) -> str:
    """A text that may be broken after the marks inside long names."""
    return _MARK.sub(r"\1\\allowbreak{}", escape_tex(text))


def as_markdown(table: PaperTable) -> str:
    """Write a table in Markdown, with the footnote below."""
    heads = ["", *(_join_heading(column) for column in table.columns)]
    lines = [
        f"**{escape_cell(table.caption)}**",
        "",
        _markdown_line(heads),
        _markdown_line(["---", *("---:" for _ in table.columns)]),
    ]
    for row in table.rows:
        cells = [escape_cell(cell.text) for cell in row.cells]
        marked = []
        for text, cell in zip(cells, row.cells, strict=True):
            marked.append(f"**{text}**" if cell.bold else text)
        lines.append(_markdown_line([escape_cell(_row_label(table, row)), *marked]))
    footnote = " ".join(escape_cell(sentence) for sentence in table.footnote)
    return "\n".join([*lines, "", footnote])


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _join_heading(column: PaperColumn) -> str:
    return f"{column.task} {column.heading}".strip()


def _row_label(table: PaperTable, row: PaperRow) -> str:
    return f"{row.label} · {row.model}" if len(table.models) > 1 else row.label


def as_csv(table: PaperTable) -> str:
    """Write the numbers of a table, each with the ends of its interval."""
    rows = []
    for row in table.rows:
        values: dict[str, object] = {"method": row.label, "model": row.model}
        for column, cell in zip(table.columns, row.cells, strict=True):
            name = _join_heading(column).removesuffix(" ↑").removesuffix(" ↓")
            values |= {name: cell.value, f"{name}/low": cell.low, f"{name}/high": cell.high}
        rows.append(values)
    return write_csv_table(rows)
