"""The order of calls in a program, which does not depend on which of them is answered first.

Methods make calls in concurrent tasks (`asyncio.gather`).  In the order of their completion, the
receipts of a sample would differ between two runs of equal answers.  Here a call's place is the
path of the tasks that lead to it, in the order in which the program creates them: the order that
the calls would have if every task ran to its end before the next one.
"""

from __future__ import annotations

import asyncio
import bisect
import contextvars
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

Place = tuple[int, ...]
T = TypeVar("T")


class _Branch:
    """A task: its place among all tasks, and the number of calls and tasks it has begun."""

    def __init__(self, place: Place = ()) -> None:
        self._place = place
        self._count = 0

    def advance(self) -> Place:
        """Return the place of the task's next call or task."""
        self._count += 1
        return (*self._place, self._count)


_branch: contextvars.ContextVar[_Branch] = contextvars.ContextVar("branch")


def number_tasks() -> None:
    """Give every task that the running loop creates from now on its place."""
    loop = asyncio.get_running_loop()
    if loop.get_task_factory() is None:
        loop.set_task_factory(_create_task)


def _create_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T] | Generator[Any, None, T],
    context: contextvars.Context | None = None,
    **options: Any,
) -> asyncio.Task[T]:
    place = _current().advance()
    context = contextvars.copy_context() if context is None else context
    context.run(_branch.set, _Branch(place))
    return asyncio.Task(coroutine, loop=loop, context=context, **options)


def _current() -> _Branch:
    branch = _branch.get(None)
    if branch is None:
        branch = _Branch()
        _branch.set(branch)
    return branch


def next_place() -> Place:
    """Return the place of a call that begins now."""
    return _current().advance()


class Ordered(Generic[T]):
    """Items in the order of their places, whenever they are added.

    Attributes:
        items: the items in order.
    """

    def __init__(self) -> None:
        self.items: list[T] = []
        self._places: list[Place] = []

    def add(self, place: Place, item: T) -> None:
        """Insert an item at its place."""
        index = bisect.bisect(self._places, place)
        self._places.insert(index, place)
        self.items.insert(index, item)

    def remove(self, place: Place) -> None:
        """Remove the item of a place."""
        index = self._places.index(place)
        del self._places[index], self.items[index]
