"""The line inside of a picture that says how its numbers came about."""

from __future__ import annotations

from personabench.leaderboard import Board
from personabench.leaderboard.paper_table import PaperOptions, make_table


def protocol(board: Board) -> str:
    """State samples, users, model, intervals, seed, version and commit of a board's rows."""
    sentences = make_table([board], PaperOptions()).footnote
    # Signs of a table that a picture does not have.
    kept = [text for text in sentences if not text.startswith(("±", "Bold"))]
    return " ".join(["Lines: 95 % intervals over users (bootstrap).", *kept])
