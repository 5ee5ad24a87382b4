"""Every method on every task: golds, hidden facts and the future change no request; nor does order.

Requests to the model under test are compared whole, with their seeds and sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache

import msgspec
import pytest

from personabench.api import registry
from personabench.api.compatibility import matrix
from personabench.api.dataset import Dataset, Wrapped, rank_in_time
from personabench.api.guard import create
from personabench.api.task import Task
from personabench.api.users import open_split
from personabench.errors import UsageError
from personabench.hashing import digest
from personabench.models.backends.scripted import echo, fill_schema
from personabench.run.selection import select
from personabench.testing import trial
from personabench.types import Record, Request, Sample, User, to_json

Case = Callable[[str], AbstractContextManager[None]]
NON_INTERFERENCE = "non-interference on the wire (method x task x change)"
DETERMINISM = "determinism (method x task)"
METHODS, TASKS = (
    [
        entry
        for entry in registry.list_entries(kind).values()
        if entry.origin == "built-in" and not entry.facts.get("external")
    ]
    for kind in ("method", "task")
)
CELLS = [cell for cell in matrix(METHODS, TASKS) if cell.fit != "refused"]
QUICK = ("none", "rag", "summary", "dpl")


def in_form(request: Request) -> str:
    return echo(request) if request.schema is None else fill_schema(request.schema)


def steady(request: Request) -> str:
    """A role's reply that does not depend on the golds and hidden facts in its own prompt."""
    return "As you like." if request.schema is None else fill_schema(request.schema)


class OneQuestion(Wrapped):
    """A dataset in which the first user has a single question, the earliest.

    In an online task the user keeps all rounds, in which the method learns.
    """

    def __init__(self, inner: Dataset) -> None:
        super().__init__(inner)
        self.is_online = "rounds" in inner.load(0).hidden
        index = list(inner.index())
        self.user = index[select(inner, 1, 0)[0]][1]
        own = [position for position, (_, user) in enumerate(index) if user == self.user]
        first = min(own, key=lambda position: rank_in_time(inner.load(position)))
        self.kept = {record.id for record in inner.load(first).history}
        self._positions = [
            position
            for position, (_, user) in enumerate(index)
            if user != self.user or position == first or self.is_online
        ]

    def index(self) -> Sequence[tuple[str, str]]:
        index = self.inner.index()
        return [index[position] for position in self._positions]

    def load(self, position: int) -> Sample:
        return self.inner.load(self._positions[position])

    def flags(self, position: int) -> dict[str, float]:
        return dict(self.inner.flags(self._positions[position]))


class NewFuture(OneQuestion):
    """The same with other records after the question, wherever a method may see the user."""

    def population(self) -> Iterator[User]:
        for user in self.inner.population():
            if user.id == self.user:
                history = [self._alter(record) for record in user.history]
                user = User(user.id, tuple(history))
            yield user

    def _alter(self, record: Record) -> Record:
        if record.id in self.kept:
            return record
        return msgspec.structs.replace(record, response=f"{record.response} zqxv-future")


class NewGolds(Wrapped):
    """A dataset with other golds and other marks of evidence."""

    def load(self, position: int) -> Sample:
        sample = self.inner.load(position)
        others = [choice for choice in sample.choices if choice not in sample.references]
        gold = others[0] if others else "zqxv-gold"
        return msgspec.structs.replace(sample, references=(gold,), evidence=("zqxv-mark",))


class NewHidden(Wrapped):
    """A dataset with further hidden facts, and other texts in those that are no JSON."""

    def load(self, position: int) -> Sample:
        sample = self.inner.load(position)
        hidden = {name: self._alter(text) for name, text in sample.hidden.items()}
        return msgspec.structs.replace(sample, hidden={**hidden, "more": "zqxv-hidden"})

    def _alter(self, text: str) -> str:
        # Protocols read numbers and JSON of their hidden facts.
        is_prose = " " in text and text[:1] not in "[{"
        return f"{text} zqxv-hidden" if is_prose else text


CHANGES: dict[str, Callable[[Dataset], Dataset]] = {
    "golds": lambda dataset: NewGolds(OneQuestion(dataset)),
    "hidden facts": lambda dataset: NewHidden(OneQuestion(dataset)),
    "future records": NewFuture,
}


@cache
def open_task(name: str) -> tuple[Task, Dataset]:
    task: Task = create(registry.load_class("task", name))
    return task, open_split(task, task.default_split, None)


def run_cell(
    method: str, name: str, dataset: Dataset, concurrency: int = 1
) -> tuple[list[str], str]:
    """The requests of a method, sorted, and the lines of its answers."""
    task, _ = open_task(name)
    result = trial(
        method,
        task,
        dataset=dataset,
        limit=1,
        answer=in_form,
        roles=dict.fromkeys(task.roles, steady),
        scored=False,
        concurrency=concurrency,
        latency=0.001 if concurrency > 1 else 0,
    )
    requests = sorted(digest(request) for request in result.requests)
    lines = [
        [
            line.sample_id,
            line.output,
            line.shown,
            line.flags,
            sorted(call.key for call in line.calls),
        ]
        for line in result.predictions
    ]
    # What `prepare` asks about a user serves the others, for whom nothing of it is future.
    profiles = sorted(
        [profile.key, *sorted(call.key for call in profile.calls)]
        for profile in result.profiles
        if profile.key
    )
    return requests, to_json([lines, profiles])


def is_exempt(method: str, change: str) -> bool:
    """Whether a method may see what changes: an oracle says that it is one."""
    return change != "future records" and bool(registry.load_class("method", method).privileged)


def check_task_cells(name: str, methods: Sequence[str], case: Case) -> None:
    _, dataset = open_task(name)
    for method in methods:
        try:
            before = run_cell(method, name, OneQuestion(dataset))
        except UsageError:
            # The example data lacks what the method needs, such as dates.
            continue
        for change, view in CHANGES.items():
            if is_exempt(method, change):
                continue
            with case(NON_INTERFERENCE):
                requests, answers = run_cell(method, name, view(dataset))
                if change == "future records":
                    assert answers == before[1], (method, name, change)
                else:
                    assert requests == before[0], (method, name, change)
        with case(DETERMINISM):
            again = run_cell(method, name, OneQuestion(dataset), concurrency=16)
            assert again == before, (method, name)


def methods_on(name: str) -> list[str]:
    return [cell.method for cell in CELLS if cell.task == name]


@pytest.mark.parametrize(
    "name",
    [
        "lamp3",
        *(pytest.param(name, marks=pytest.mark.trust) for name in ("personamem", "prelude_summ")),
    ],
)
def test_quick_methods(name: str, case: Case) -> None:
    check_task_cells(name, [method for method in methods_on(name) if method in QUICK], case)


@pytest.mark.trust
@pytest.mark.parametrize("name", [entry.name for entry in TASKS])
def test_every_method(name: str, case: Case) -> None:
    check_task_cells(name, methods_on(name), case)
