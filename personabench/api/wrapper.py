"""The `Wrapper` interface: a change that can be put around any method, as `rag+remind`.

    class Politely(Wrapper):
        "Ask politely."
        name = "politely"

        def reword(self, rendered, sample, ctx):
            return rendered.with_paragraph("Please.")

A wrapper acts at three places, of which it needs one: it keeps or drops what the method has
retrieved (`select`), changes the request for the answer (`reword`), or goes on from the answer with
further calls (`revise`).  It knows no method and no task by name; `composition` puts the two
together.
"""

from __future__ import annotations

import dataclasses
from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from personabench.api.contracts import METHOD, Contract, guard_methods
from personabench.api.guard import describe_value
from personabench.api.prompts import PromptFile
from personabench.api.wording import CONTRACTS, Rendered
from personabench.types import Message, Sample

if TYPE_CHECKING:
    from personabench.api.context import Context


def _positions(wrapper: Any, value: Any) -> str:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return f"it returned {describe_value(value)}"
    wrong = [position for position in value if type(position) is not int]
    return f"it contains {describe_value(wrong[0])}" if wrong else ""


def _size(wrapper: Any, value: Any) -> str:
    return "" if type(value) is int and value >= 0 else f"it returned {describe_value(value)}"


WRAPPER: Mapping[str, Contract] = {
    "select": Contract("a list of positions (int) to keep", _positions, waits=True),
    "reword": CONTRACTS["render"],
    "room": Contract("a number of tokens (int)", _size),
    "revise": METHOD["predict"],
}


class Wrapper(ABC):
    """A change around a method.

    Attributes:
        name: its name on the command line, after a `+`; letters, digits and _.
        paper: the source, with its arXiv id.
        version: to be raised when prompts or behaviour change; with the source's hash it is part of
            the identity of runs.
        needs: the capabilities of a task that it needs beside those of the method.
        prompts: the template files of its texts.
        Params: a frozen dataclass of its parameters; `--set NAME.key=value` fills it.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    version: ClassVar[int] = 1
    needs: ClassVar[Sequence[str]] = ()
    prompts: ClassVar[Sequence[PromptFile]] = ()

    @dataclasses.dataclass(frozen=True)
    class Params:
        """Parameters of the wrapper; none by default."""

    def __init__(self, params: Any = None) -> None:
        self.params: Any = params if params is not None else self.Params()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        guard_methods(cls, WRAPPER)

    async def select(self, sample: Sample, texts: Sequence[str], ctx: Context) -> Sequence[int]:
        """Choose the retrieved pieces that the method goes on with, by their positions from 0.

        It is called after each retrieval for a question, with the pieces as texts, best first: the
        records, or the items of a memory.  Their order stays.
        """
        return range(len(texts))

    def reword(self, rendered: Rendered, sample: Sample, ctx: Context) -> Rendered:
        """Change the request for the answer, as the task has worded it.

        It is called with every request that words the question itself, while the request is fitted
        to the model's window.
        """
        return rendered

    def room(self, ctx: Context) -> int:
        """Return the tokens that `revise` adds to the request, for which the window needs room."""
        return 0

    async def revise(
        self, sample: Sample, answer: str, messages: Sequence[Message], ctx: Context
    ) -> str:
        """Return the final answer, given the method's and the request that it replied to."""
        return answer

    @classmethod
    def acts(cls, stage: str) -> bool:
        """Whether the wrapper acts at a place: select, reword or revise."""
        # Overriding is the declaration, as with `Method.profile`.
        return getattr(cls, stage) is not getattr(Wrapper, stage)


guard_methods(Wrapper, WRAPPER)
