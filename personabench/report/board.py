"""Write boards as one HTML page, for a site or a message for which the report would be too much.

No script, nothing loaded, every text escaped; light and dark follow the reader's system.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from personabench.leaderboard import WORDS, Board
from personabench.leaderboard.formats import beaten, headed, text
from personabench.report.page import policy

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --page: #fff; --quiet: #5c5c5c; --line: #d9d9d4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececea; --page: #161719; --quiet: #a9a9a6; --line: #3a3c40; }
}
body { margin: 1rem; background: var(--page); color: var(--ink); }
body { font: 15px/1.5 system-ui, sans-serif; }
h2 { font-size: 1.1rem; margin: 2rem 0 0.5rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.6rem; text-align: right; white-space: nowrap; }
thead th { border-bottom: 1px solid var(--line); font-size: 0.85rem; }
tbody th { font-weight: normal; }
.word { text-align: left; }
.leader { font-weight: bold; }
sup { line-height: 0; }
li { color: var(--quiet); font-size: 0.87rem; }
"""


def board_page(boards: Sequence[Board], wide: bool = False) -> str:
    """Format boards as one HTML page."""
    title = html.escape(", ".join(dict.fromkeys(board.title for board in boards)))
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" '
            f'content="{html.escape(policy([], [STYLE]))}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Leaderboard: {title}</title><style>{STYLE}</style></head><body><main>",
            *(line for board in boards for line in _table(board, wide)),
            "</main></body></html>",
        ]
    )


def _table(board: Board, wide: bool) -> Iterator[str]:
    title, columns = headed(board, board.all_columns if wide else board.columns)
    yield f"<h2>{html.escape(title)}</h2><div><table><thead><tr>"
    yield "".join(
        f"<th scope=col{_word_class(name)}>{html.escape(heading)}</th>"
        for name, heading in columns.items()
    )
    yield "</tr></thead><tbody>"
    for row in board.rows:
        cells = []
        for name in columns:
            cell = html.escape(text(name, row))
            if name == board.primary and row.emphasized:
                cell = f"<span class=leader>{cell}</span>"
            if name == board.primary and row.statistics.beats:
                cell += f"<sup>{beaten(board, row)}</sup>"
            # Screen readers announce the method with every cell of its row.
            tag = "th scope=row" if name == "label" else "td"
            cells.append(f"<{tag}{_word_class(name)}>{cell}</{tag[:2]}>")
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div><ul>"
    yield from (f"<li>{html.escape(note)}</li>" for note in board.list_notes(columns))
    yield "</ul>"


def _word_class(name: str) -> str:
    return " class=word" if name in WORDS else ""
