"""Which method runs on which task, and as what: derived from what methods declare, never from a table kept here.

A method is *faithful* on the tasks its paper was made for (`designed_for`, name patterns), *adapted*
on others, and *refused* where it says why it cannot work (`refuses`, pattern to reason).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from personabench.registry import Entry

Fit = Literal["faithful", "adapted", "refused"]


class Verdict(NamedTuple):
    """How a method stands to a task, and why it is refused where it is."""

    fit: Fit
    reason: str = ""


def verdict(declared: Mapping[str, Any], task: str) -> Verdict:
    """The verdict on a method, given its declarations (class attributes), for a task of this name."""
    for pattern, reason in declared.get("refuses", {}).items():
        if fnmatchcase(task, pattern):
            return Verdict("refused", reason)
    designed = declared.get("designed_for", ("*",))
    return Verdict("faithful" if any(fnmatchcase(task, pattern) for pattern in designed) else "adapted")


class Cell(NamedTuple):
    """A method on a task."""

    method: str
    task: str
    fit: Fit
    reason: str = ""


def matrix(methods: Iterable[Entry], tasks: Iterable[str]) -> list[Cell]:
    """Every method on every task, method by method, from what the methods' sources declare.

    Only built-in methods are read without being imported; others are left out.
    """
    names = list(tasks)
    return [
        Cell(entry.name, task, *verdict(entry.facts, task))
        for entry in methods
        if entry.origin == "built-in"
        for task in names
    ]
