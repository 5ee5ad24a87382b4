"""The base of a task's optional interfaces, one per further ability."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar


class Interface(ABC):  # noqa: B024  (the abstract methods are those of its subclasses)
    """An optional interface of a task, recognized by its methods.

    A task normally derives from the interface.  A class that merely implements `interface_methods`
    counts as a subclass as well, as with the classes of `collections.abc`, so a task may stay a
    plain `Task`.
    """

    interface_methods: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __subclasshook__(cls, candidate: type[Any]) -> Any:
        # Only for an interface itself: a task that derives from it inherits this hook, and other
        # tasks are not subclasses of that task.
        methods = cls.__dict__.get("interface_methods")
        if not methods:
            return NotImplemented

        implemented = all(callable(getattr(candidate, method, None)) for method in methods)
        return True if implemented else NotImplemented
