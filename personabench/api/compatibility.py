"""Compatibility of methods and tasks, derived from their own declarations.

A method runs on a task that offers every capability it `needs`, else it is *refused*.  Where it
runs, it can be *faithful* on the tasks of its paper (`designed_for`, name patterns) and is
*adapted* on others; that is a label for readers of a table and decides nothing.  Whether a run is
faithful depends on its settings as well, see `fidelity`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from personabench.api.capabilities import check_words, explain_missing, offered
from personabench.api.dataset import Dataset
from personabench.api.guard import explain_result, locate
from personabench.api.task import Task
from personabench.errors import UsageError

if TYPE_CHECKING:
    from personabench.api.method import Method
    from personabench.api.registry import Entry

Fit = Literal["faithful", "adapted", "refused"]


class Verdict(NamedTuple):
    """The fit of a method on a task, with a reason if it is refused."""

    fit: Fit
    reason: str = ""


class Cell(NamedTuple):
    """A method on a task."""

    method: str
    task: str
    fit: Fit
    reason: str = ""


def capabilities(task: type[Task]) -> frozenset[str]:
    """Return the capabilities of a task, declared and derived."""
    declared = {
        "offers": task.offers,
        "kind": task.kind,
        "labels": tuple(task.labels),
        "protocol": task.protocol,
    }
    return offered(declared, Task.offers)


def verdict(
    declared: Mapping[str, Any],
    task: str,
    offers: Collection[str],
) -> Verdict:
    """Judge a method by its declarations (class attributes) on a task with these capabilities."""
    reason = explain_missing(declared.get("needs", ()), offers)
    if reason:
        return Verdict("refused", reason)

    designed_for = declared.get("designed_for", ("*",))
    faithful = any(fnmatchcase(task, pattern) for pattern in designed_for)
    return Verdict("faithful" if faithful else "adapted")


def judge_fit(method: type[Method], task: type[Task]) -> Verdict:
    """Judge a method's class on a task's class."""
    declared = {"needs": method.needs, "designed_for": method.designed_for}
    return verdict(declared, task.name, capabilities(task))


def matrix(
    methods: Iterable[Entry],
    tasks: Iterable[Entry],
) -> list[Cell]:
    """List every described method on every described task, method by method, without an import.

    Installed plugins are described only after an import, see `Entry.described`.
    """
    described_tasks = [task for task in tasks if task.described]
    cells = []
    for method in methods:
        if not method.described:
            continue
        for task in described_tasks:
            offers = offered(task.facts, Task.offers)
            fit, reason = verdict(method.facts, task.name, offers)
            cells.append(Cell(method.name, task.name, fit, reason))
    return cells


def explain_misfit(
    method: Method,
    task: Task,
    dataset: Dataset,
) -> str:
    """Explain why a method with its parameters cannot run on opened data; empty if it can.

    Raises:
        UsageError: `requirements` of the method names an unknown capability.
    """
    needs = method.requirements()
    check_words(f"{type(method).__name__} ({locate(method, 'requirements')})", "needs", needs)

    # Dates may be needed by a parameter of a method that runs elsewhere without: the data decides.
    reason = explain_missing(needs - {"dates"}, capabilities(type(task)))
    if reason:
        changed = " with these parameters" if needs != set(method.needs) else ""
        return f"method {method.name}{changed} does not run on {task.name}: {reason}"

    return explain_missing_dates(method, dataset) or dataset.missing_requirement


def explain_missing_dates(method: Method, dataset: Dataset) -> str | None:
    """Explain why a method that sorts by date cannot run on undated data; None if it can."""
    if "dates" not in method.requirements() or dataset.dated:
        return None

    return (
        f"method {method.name} sorts records by date, but {dataset.source} has records "
        "without one; use data with dates (LaMP's time separation has them) or another retriever"
    )


def check_requirements(
    method: Method,
    dataset: Dataset,
    positions: Sequence[int] = (),
) -> None:
    """Refuse, before any call, a method whose needs the data cannot meet.

    Every method's parameters `k` and `retriever` mean the number of records shown and `by` of
    `Context.retrieve`.

    Raises:
        UsageError: an unmet need and its remedy.
    """
    _check_prepare(method)
    undated = explain_missing_dates(method, dataset)
    if undated:
        raise UsageError(undated)

    if dataset.missing_requirement:
        raise UsageError(dataset.missing_requirement)

    k = getattr(method.params, "k", None)
    if isinstance(k, int) and k < 0:
        raise UsageError(
            f"method {method.name}: k is {k}; the number of records to show must be 0 or more"
        )

    if getattr(method.params, "retriever", "") == "ranked":
        _check_ranking(method, dataset, positions)


def _check_prepare(method: Method) -> None:
    """Refuse a `prepare` that would never be called.

    Raises:
        PluginError: it is defined, and the method does not need a population.
    """
    # Imported late: reading declarations must not load the class.
    from personabench.api.method import Method

    # A parameter may take back a need that the class declares.
    declared = {*method.needs, *method.requirements()}
    if type(method).prepare is Method.prepare or "population" in declared:
        return
    problem = "`prepare` is called for methods that need the population only; delete it otherwise"
    raise explain_result(method, "prepare", '`needs = ("population",)` beside it', problem)


def _check_ranking(
    method: Method,
    dataset: Dataset,
    positions: Sequence[int],
) -> None:
    """Refuse a ranking that leaves out a question with a history.

    Raises:
        UsageError: the first such question.
    """
    ranking = getattr(method, "ranking", None) or {}
    index = dataset.index()
    for position in positions:
        sample_id, _ = index[position]
        # The cheap test first: loading a sample reads its whole history.
        if sample_id in ranking or not dataset.load(position).history:
            continue
        raise UsageError(
            f"method {method.name}: ranked retrieval has no ranking for question {sample_id}; "
            'name a JSON file that ranks every question ({"question id": ["record id", ...], ...}) '
            "with --set ranking=FILE"
        )
