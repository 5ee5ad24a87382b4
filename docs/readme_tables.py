"""Write the tables of README.md, and the tasks of each capability in docs/capabilities.md.

    python docs/readme_tables.py

The tables of README.md are methods by tasks, and the reference results.  All follow from what is in
the repository: the registry of tasks and methods, and the published results under
results/reference.  Tests compare the pages with them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from personabench.api import registry
from personabench.api.capabilities import offered
from personabench.api.compatibility import matrix
from personabench.api.task import Task
from personabench.leaderboard import boards, formats
from personabench.results.index import read_published_runs

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CAPABILITY_PAGE = ROOT / "docs" / "capabilities.md"

FAMILIES: dict[str, str | tuple[str, ...]] = {
    "LaMP 1-7": tuple(f"lamp{number}" for number in range(1, 8)),
    "LongLaMP, LaMP-QA, BESPOKE": ("longlamp", "lampqa", "bespoke"),
    "reviews": "reviews",
    "PersonaMem": "personamem",
    "LoCoMo, LongMemEval": ("locomo", "longmemeval"),
    "PersonaBench": "personabench_qa",
    "PrefEval": "prefeval",
    "PrefDisco, ALOE": ("prefdisco", "aloe"),
    "PRELUDE, PLUME": ("prelude", "plume"),
    "pairs": (
        *("community_alignment", "personafeedback", "personalized_rewardbench"),
        *("personalllm", "prism", "psoups"),
    ),
    "safety": ("usafebench", "restraint", "penguin"),
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


GROUPS = {
    "LaMP": tuple(f"lamp{number}" for number in ("1", "2m", "2n", "3", "4", "5", "6", "7")),
    "LongLaMP": tuple(f"longlamp_{name}" for name in ("abstract", "email", "review", "topic")),
    "PLUME": ("plume_email", "plume_summ"),
    "PRELUDE": ("prelude_email", "prelude_summ"),
}
"""Tasks that have one name in a list that has all of them."""


def find_offers(entry: registry.Entry) -> frozenset[str]:
    """The capabilities of a built-in task."""
    return offered(entry.facts, Task.offers)


def list_offering_tasks(capability: str) -> str:
    """The built-in tasks that offer a capability, in words."""
    entries = registry.list_entries("task")
    names = [name for name, entry in entries.items() if capability in find_offers(entry)]
    for group, members in GROUPS.items():
        if set(members) <= set(names):
            names = [group, *(name for name in names if name not in members)]
    return ", ".join(sorted(names)) or "none built in"


def fill_capabilities(text: str) -> str:
    """The text of docs/capabilities.md with today's tasks in the last column."""

    def fill_row(match: re.Match[str]) -> str:
        return f"{match[1]} {list_offering_tasks(match[2])} |"

    return re.sub(r"^(\| `(\w+)` \|.*\|)[^|]+\|$", fill_row, text, flags=re.MULTILINE)


def main() -> None:
    """Write the tables into the pages."""
    for page, fill_page in ((README, fill), (CAPABILITY_PAGE, fill_capabilities)):
        page.write_text(fill_page(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
