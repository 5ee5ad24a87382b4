"""No shipped method that compares no users puts anything of one user into a request for another.

Each user's records and questions carry a mark of that user, and the model repeats what it is shown,
so that a profile of somebody else's records shows in the answer as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
import pytest

from personabench import Context, Method
from personabench.api import registry
from personabench.api.compatibility import explain_misfit
from personabench.api.dataset import Dataset, Wrapped
from personabench.api.guard import create
from personabench.api.task import Task
from personabench.api.users import open_split
from personabench.errors import UsageError
from personabench.models.backends.scripted import fill_schema
from personabench.testing import trial
from personabench.types import Record, Request, Sample, User

MARK = re.compile(r"zqmark\w+")
# A method runs on the first of them that it fits.
TASKS = (
    *("restraint", "lamp4", "lamp2m", "lamp3", "psoups", "penguin", "usafebench"),
    *("personamem", "longmemeval", "prefdisco_warm", "prefeval"),
)
USERS = 3


def mark_of(user_id: str) -> str:
    return "zqmark" + re.sub(r"\W", "", user_id).lower()


class Marked(Wrapped):
    """Two questions of each of three users, whose stimuli, texts and questions carry marks."""

    def __init__(self, inner: Dataset) -> None:
        super().__init__(inner)
        by_user: dict[str, list[int]] = {}
        for position, (_, user_id) in enumerate(inner.index()):
            by_user.setdefault(user_id, []).append(position)
        users = list(by_user)[:USERS]
        self.positions = [position for user in users for position in by_user[user][:2]]

    def index(self) -> Sequence[tuple[str, str]]:
        index = self.inner.index()
        return [index[position] for position in self.positions]

    def load(self, position: int) -> Sample:
        sample = self.inner.load(self.positions[position])
        mark = mark_of(sample.user_id)
        return msgspec.structs.replace(
            sample,
            input=f"{sample.input}\n{mark}",
            stimulus=f"{sample.stimulus or sample.input} {mark}",
            history=tuple(_mark_record(record, mark) for record in sample.history),
        )

    def flags(self, position: int) -> dict[str, float]:
        return dict(self.inner.flags(self.positions[position]))


def _mark_record(record: Record, mark: str) -> Record:
    if record.stimulus:
        return msgspec.structs.replace(record, stimulus=f"{record.stimulus} {mark}")
    return msgspec.structs.replace(record, response=f"{record.response} {mark}")


@cache
def open_marked(name: str) -> tuple[Task, Dataset]:
    task: Task = create(registry.load_class("task", name))
    return task, Marked(open_split(task, task.default_split, None))


def parrot(request: Request) -> str:
    text = "\n".join(message.content for message in request.messages)
    return text if request.schema is None else fill_schema(request.schema, mark=text[-300:])


def list_marks(method: str | Method) -> list[tuple[str, set[str]]] | None:
    """The marks of every request, and of the answers by user; None if no task fits the method."""
    instance = method
    if isinstance(instance, str):
        instance = create(registry.load_class("method", instance))
    for name in TASKS:
        task, dataset = open_marked(name)
        if explain_misfit(instance, task, dataset):
            continue
        roles: Any = dict.fromkeys(task.roles, parrot)
        result = trial(method, task, dataset=dataset, answer=parrot, roles=roles, scored=False)
        assert {line.error for line in result.predictions} == {None}
        shown = [("", set(MARK.findall(parrot(request)))) for request in result.requests]
        answers = [
            (mark_of(line.user_id), set(MARK.findall(str(line.output))))
            for line in result.predictions
        ]
        return shown + answers
    return None


def mixes(lines: Sequence[tuple[str, set[str]]]) -> bool:
    return any(len(marks | ({owner} if owner else set())) > 1 for owner, marks in lines)


def list_methods() -> list[str]:
    """The shipped methods that compare no users, and every wrapper around one of them."""
    names = [f"rag+{name}" for name in registry.list_entries("wrapper")]
    for name, entry in registry.list_entries("method").items():
        if entry.origin != "built-in" or entry.facts.get("external"):
            continue
        try:
            method = registry.load_class("method", name)()
        except UsageError:
            # Its package is not installed.
            continue
        if "population" not in method.requirements():
            names.append(name)
    return names


@pytest.mark.parametrize("name", list_methods())
def test_nothing_of_another_user_is_shown(name: str) -> None:
    lines = list_marks(name)
    if lines is None:
        pytest.skip("it fits none of these tasks")
    assert lines and not mixes(lines)


class Careless(Method):
    """Keep the first user's profile for all."""

    needs = ("history",)

    def __init__(self) -> None:
        super().__init__()
        self.kept: str | None = None

    async def profile(self, user: User, ctx: Context) -> str:
        if self.kept is None:
            self.kept = user.history[0].stimulus or user.history[0].response
        return self.kept

    async def predict(self, sample: Sample, state: str, ctx: Context) -> str:
        return await ctx.answer(sample, notes=state)


def test_a_method_that_mixes_users_is_caught() -> None:
    lines = list_marks(Careless())
    assert lines is not None and mixes(lines)
