"""The leaderboard: runs on disk and published results as tables, in every format.

A board holds runs that answer the same question: one task, separation, split and data hash. Its
rows are sorted by the task's primary metric in its own direction. Columns have the names of
`summary.json`; only shown tables have headings. `rows` pools runs into rows, `board` adds
statistics, `costs`, `curves` and `notes` everything else, `formats` writes the texts.
"""

from personabench.leaderboard.board import BASELINE, WORDS, Board, BoardOptions, boards
from personabench.leaderboard.curves import curves
from personabench.leaderboard.formats import as_csv, as_json, as_latex, as_markdown, cell, table

__all__ = [
    "BASELINE",
    "WORDS",
    "Board",
    "BoardOptions",
    "as_csv",
    "as_json",
    "as_latex",
    "as_markdown",
    "boards",
    "cell",
    "curves",
    "table",
]
