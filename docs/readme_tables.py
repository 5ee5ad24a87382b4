"""Write the tables of README.md: methods by tasks, and the reference results.

    python docs/readme_tables.py

Both follow from what is in the repository: the registry of tasks and methods, and the published
results under results/reference.  A test compares README.md with them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from personabench.api import registry
from personabench.api.compatibility import matrix
from personabench.leaderboard import boards, formats
from personabench.results.index import read_published_runs

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"

FAMILIES: dict[str, str | tuple[str, ...]] = {
    "LaMP 1-7": "lamp",
    "PersonaMem": "personamem",
    "PrefDisco": "prefdisco",
    "PRELUDE": "prelude",
    "reviews": "reviews",
    "LoCoMo": "locomo",
    "LongMemEval": "longmemeval",
    "PrefEval": "prefeval",
    "PersonaBench": "personabench_qa",
    "preference pairs": (
        *("community_alignment", "personafeedback", "personalized_rewardbench"),
        *("personalllm", "prism", "psoups"),
    ),
}
"""Columns: families of tasks, and how the names of their tasks begin."""
SIGNS = {"faithful": "●", "adapted": "○", "refused": "–"}
RANKS = tuple(SIGNS)
# Controls; bounds that see what a method must not are left out as well.
LEFT_OUT = ("persona_only", "memory_http")
RULES = "rules without a model"


def write_matrix() -> str:
    """The best fit of every method to a task of a family."""
    methods = registry.list_entries("method")
    cells = matrix(methods.values(), registry.list_entries("task").values())
    classes = {name: registry.load_class("method", name) for name in methods}
    rules = {name for name, method in classes.items() if method.rule}
    bounds = {name for name, method in classes.items() if method.privileged}
    fits = defaultdict[tuple[str, str], list[str]](list)
    for cell in cells:
        family = find_family(cell.task)
        if family and cell.method not in {*LEFT_OUT, *bounds - rules}:
            row = RULES if cell.method in rules else f"`{cell.method}`"
            fits[row, family].append(cell.fit)

    # Methods that fit the same tasks share a row.
    rows = defaultdict[tuple[str, ...], list[str]](list)
    for row in dict.fromkeys(row for row, _ in fits):
        signs = tuple(SIGNS[min(fits[row, family], key=RANKS.index)] for family in FAMILIES)
        rows[signs].append(row)
    names = {signs: ", ".join(names) for signs, names in rows.items()}
    lines = ((names[signs], *signs) for signs in sorted(rows, key=_sort_key))
    return "\n".join(_format_table(("", *FAMILIES), lines, align=":-:"))


def find_family(task: str) -> str | None:
    """The column of a task; None if it has none yet."""
    return next((name for name, start in FAMILIES.items() if task.startswith(start)), None)


def _sort_key(signs: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(-signs.count(SIGNS[fit]) for fit in RANKS)


def write_reference() -> str:
    """The published results: a row for each method, a column for each task."""
    published = boards(read_published_runs(ROOT / "results"))
    columns = {board.rows[0].task: board for board in published}
    heads = [
        f"{task}<br>{board.primary} {'↑' if board.higher_is_better else '↓'}"
        for task, board in columns.items()
    ]
    sizes = [f"{board.rows[0].n}, {board.rows[0].users}" for board in columns.values()]
    values = dict[str, dict[str, str]]()
    for task, board in columns.items():
        for row in board.rows:
            name = row.method if row.history == "own" else f"{row.method} ({row.history})"
            # Without the letters of the rows that it beats.
            text = re.sub("[ᵃ-ᶻ⁻]", "", formats.text(board.primary, row))
            values.setdefault(name, {})[task] = text
    lines = [("n, users", *sizes)]
    for name, cells in values.items():
        lines.append((name, *(cells.get(task, "–") for task in columns)))
    return "\n".join(_format_table(("method", *heads), lines, align="---:"))


def _format_table(
    head: Sequence[str],
    rows: Iterator[Sequence[str]] | Sequence[Sequence[str]],
    align: str,
) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'|'.join([align] * (len(head) - 1))}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


TABLES = {"matrix": write_matrix, "reference": write_reference}


def fill(text: str) -> str:
    """README's text with today's tables between their marks."""
    for name, write in TABLES.items():
        start, end = f"<!--{name}-->\n", f"\n<!--/{name}-->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = before + start + write() + end + after
    return text


def main() -> None:
    """Write the tables into README.md."""
    README.write_text(fill(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
