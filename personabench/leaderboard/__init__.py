"""The leaderboard: runs on disk and published results as one table model, in every form that people read.

A board holds runs that answer the same question: one task, separation, split and data hash.  Inside a board rows are
sorted by the task's primary metric in its own direction.  Rows have the names of `summary.json`; only what people read
has headings.  `runs` finds what goes in, `board` makes rows with statistics, `costs` and `curves` what else is to be
known, `formats` the texts.
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
