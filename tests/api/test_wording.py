"""The wording that methods get: all of it, and no way from it to data or references."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from toy_methods import Toy

from personabench import Context, Dataset, Method, Population, Sample, Task, User, Wording
from personabench.api import registry
from personabench.api.wording import WordingView
from personabench.testing import trial

# A way through these is introspection of the interpreter or an import, not an attribute.
_CLOSED = (type, types.ModuleType, types.BuiltinFunctionType, types.CodeType, str, bytes, int)


def follow_attributes(start: Any) -> Iterator[Any]:
    """Yield all objects that plain attributes and containers lead to."""
    pending, visited = [start], set[int]()
    while pending:
        value = pending.pop()
        if id(value) in visited or isinstance(value, _CLOSED):
            continue
        visited.add(id(value))
        yield value

        if isinstance(value, Mapping):
            pending += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            pending += value
        pending += getattr(value, "__dict__", {}).values()
        slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
        pending += [getattr(value, name) for name in slots if hasattr(value, name)]
        for name in ("__self__", "__func__", "__wrapped__"):
            pending += [getattr(value, name)] if hasattr(value, name) else []


class Walking(Method):
    """Looks at everything within reach of each of its coroutines."""

    name = "walking"
    visited: list[Any] = []

    def look(self, *arguments: Any) -> None:
        self.visited.extend(follow_attributes((self.params, *arguments)))

    async def profile(self, user: User, ctx: Context) -> str:
        self.look(user, ctx)
        return "noted"

    async def predict(self, sample: Sample, state: Any, ctx: Context) -> str:
        methods = inspect.getmembers(ctx.task, inspect.ismethod)
        self.look(sample, state, ctx, ctx.task, methods)
        return "answer"

    async def update(self, state: Any, feedback: Any, ctx: Context) -> Any:
        self.look(state, ctx)
        return state


class Comparing(Walking):
    """Also looks at the population."""

    needs = ("population",)

    async def prepare(self, population: Population, ctx: Context) -> None:
        self.look(population, ctx)


@pytest.mark.parametrize("task", ["lamp4", "personamem", "prefdisco", "prelude_email", "reviews"])
def test_no_attribute_leads_to_data_or_references(
    monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    compares = "population" in registry.load_class("task", task).offers
    monkeypatch.setattr(Walking, "visited", [])
    result = trial(Comparing() if compares else Walking(), task, limit=2)
    assert {prediction.error for prediction in result.predictions} == {None}

    visited = Walking.visited
    assert any(isinstance(value, Sample) for value in visited)
    assert any(isinstance(value, WordingView) for value in visited)
    assert any(isinstance(value, Population) for value in visited) is compares
    assert not [value for value in visited if isinstance(value, (Task, Dataset))]
    samples = [value for value in visited if isinstance(value, Sample)]
    secrets = [(sample.references, sample.hidden, sample.evidence) for sample in samples]
    assert not any(any(fields) for fields in secrets)


def test_the_walk_finds_a_task_behind_a_bound_method() -> None:
    task = Toy()
    assert any(value is task for value in follow_attributes({"a": [task.open]}))


@pytest.mark.parametrize("name", ["lamp1", "personamem", "prefdisco", "prelude_summ", "reviews"])
def test_a_view_words_everything_as_its_task_does(name: str) -> None:
    task = registry.load_class("task", name)()
    view = WordingView(task)
    samples = list(task.open(task.default_split, None).samples())[:3]
    for sample in (sample.view() for sample in samples):
        assert view.query_text(sample) == task.query_text(sample)
        assert view.options(sample) == task.options(sample)
        assert view.persona(sample) == task.persona(sample)
        assert view.exchanges(sample) == task.exchanges(sample)
        assert view.chat(sample, sample.history) == task.chat(sample, sample.history)
        for record in sample.history[:2]:
            assert view.describe(record) == task.describe(record)
            assert view.document_text(record) == task.document_text(record)
            assert view.question(record, sample) == task.question(record, sample)
    for constant in ("name", "kind", "scorers", "max_tokens", "labels", "words", "params"):
        assert getattr(view, constant) == getattr(task, constant)


def test_a_view_forwards_all_of_a_wording() -> None:
    # A function that is only inherited would answer for the base class, not for the task.
    functions = {name for name, _ in inspect.getmembers(Wording, inspect.isfunction)}
    public = {name for name in functions if not name.startswith("_")}
    assert public <= vars(WordingView).keys()


@pytest.mark.parametrize("name", ["open", "measure", "metrics", "read_references"])
def test_what_is_not_wording_is_named(name: str) -> None:
    with pytest.raises(AttributeError, match=f"has no '{name}': a method gets the wording"):
        getattr(WordingView(Toy()), name)
