"""Which method runs on which task, and as what: derived from what methods declare, never from a table kept here.

A method is *faithful* on the tasks its paper was made for (`designed_for`, name patterns), *adapted*
on others, and *refused* where it says why it cannot work (`refuses`, pattern to reason), or where it `needs` what the
task does not say it `offers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from personabench.api.dataset import Dataset
from personabench.api.task import Task
from personabench.errors import UsageError

if TYPE_CHECKING:
    from personabench.api.method import Method
    from personabench.api.registry import Entry

Fit = Literal["faithful", "adapted", "refused"]


class Verdict(NamedTuple):
    """How a method stands to a task, and why it is refused where it is."""

    fit: Fit
    reason: str = ""


def verdict(declared: Mapping[str, Any], task: str, offers: Sequence[str] = Task.offers) -> Verdict:
    """The verdict on a method, given its declarations (class attributes), for a task's name and what it offers."""
    for pattern, reason in declared.get("refuses", {}).items():
        if fnmatchcase(task, pattern):
            return Verdict("refused", reason)
    for need in declared.get("needs", ()):
        if need != "dates" and set(need.split("|")).isdisjoint(offers):
            return Verdict("refused", _LACKING[need.partition("|")[0]])
    designed = declared.get("designed_for", ("*",))
    return Verdict(
        "faithful" if any(fnmatchcase(task, pattern) for pattern in designed) else "adapted"
    )


_LACKING = {
    "history": "its users have no history to learn from beforehand",
    "population": "it has no histories of other users",
    "feedback": "its users never react to an answer",
    "dialogue": "it is no conversation",
}


class Cell(NamedTuple):
    """A method on a task."""

    method: str
    task: str
    fit: Fit
    reason: str = ""


def matrix(methods: Iterable[Entry], tasks: Iterable[Entry]) -> list[Cell]:
    """Every method on every task, method by method, from what their sources declare.

    Only built-in methods are read without being imported; others are left out.
    """
    known = list(tasks)
    return [
        Cell(
            entry.name,
            task.name,
            *verdict(entry.facts, task.name, task.facts.get("offers", Task.offers)),
        )
        for entry in methods
        if entry.origin == "built-in"
        for task in known
    ]


def without_dates(method: Method, dataset: Dataset) -> str | None:
    """What keeps a method that sorts by date from these data, in words; None where nothing does."""
    if "dates" not in method.requirements() or dataset.dated:
        return None
    return (
        f"method {method.name} sorts records by date, but {dataset.source} has records without one; "
        "use data with dates (LaMP's time separation has them) or another retriever"
    )


def check_requirements(method: Method, dataset: Dataset, positions: Sequence[int] = ()) -> None:
    """Refuse, before any call, a method whose needs the data cannot meet.

    The parameters `k` and `retriever` mean the same in every method: records shown, and `Context.retrieve`'s `by`.

    Raises:
        UsageError: what is missing and what to do instead.
    """
    if undated := without_dates(method, dataset):
        raise UsageError(undated)
    if dataset.lacking:
        raise UsageError(dataset.lacking)
    if isinstance(k := getattr(method.params, "k", None), int) and k < 0:
        raise UsageError(
            f"method {method.name}: k is {k}; the number of records to show must be 0 or more"
        )
    if getattr(method.params, "retriever", "") == "ranked":
        ranking = getattr(method, "ranking", None) or {}
        index = dataset.index()
        unranked = (
            at for at in positions if index[at][0] not in ranking and dataset.load(at).history
        )
        if (first := next(unranked, None)) is not None:
            raise UsageError(
                f"method {method.name}: ranked retrieval has no ranking for question {index[first][0]}; name a JSON "
                'file that ranks every question ({"question id": ["record id", ...], ...}) with --set ranking=FILE'
            )
