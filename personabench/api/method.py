"""What a method is: up to four coroutines and a frozen dataclass of parameters.

    class LastThree(Method):
        "Answer with the user's three newest records as examples."
        name = "last3"

        async def predict(self, sample, state, ctx):
            return await ctx.answer(sample, records=sample.history[::-1][:3])

Only `predict` is required.  A method talks to the model through its `Context` and never sees references, other
users' golds or the future.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from personabench.errors import UsageError
from personabench.types import Record, Sample, User

if TYPE_CHECKING:
    from personabench.api.context import Context
    from personabench.api.population import Population


def retrieval_needs(retriever: str) -> set[str]:
    """What a retriever needs of the data: dates for those that sort by time.

    Raises:
        UsageError: there is no such retriever.
    """
    from personabench.retrieval.search import SEARCHES

    if retriever not in SEARCHES:
        raise UsageError(f"unknown retriever '{retriever}'; choose one of {', '.join(SEARCHES)}")
    return {"dates"} if "recency" in retriever else set()


State = Any
"""What `profile` knows of a user: any JSON value."""


class Method(ABC):
    """A personalization method.

    Class attributes:
        name: how it is called on the command line.
        paper: where it comes from, with its arXiv id.
        version: raise it when prompts or behaviour change; with the source's hash it is part of every cache key.
        needs: what it uses beyond the sample, of what tasks offer: "history", "population", "feedback", "dialogue";
            "history|feedback" is either; "dates" when records must have them.
        designed_for: patterns of the task names its paper was made for; elsewhere it runs as "adapted".
        refuses: pattern of task names to the reason why the method cannot work there.
        privileged: True for an oracle that sees what a method must not.
        Params: a frozen dataclass of its parameters, typed, with defaults; `--set k=8` fills it.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    version: ClassVar[int] = 1
    needs: ClassVar[Sequence[str]] = ()
    designed_for: ClassVar[Sequence[str]] = ("*",)
    refuses: ClassVar[Mapping[str, str]] = {}
    privileged: ClassVar[bool] = False

    @dataclasses.dataclass(frozen=True)
    class Params:
        """Parameters of the method; none by default."""

    def __init__(self, params: Any = None) -> None:
        self.params: Any = params if params is not None else self.Params()

    async def prepare(self, population: Population, ctx: Context) -> None:
        """Once per run, before any sample: what needs other users.  Keep results on `self`."""

    async def profile(self, user: User, ctx: Context) -> State:
        """Once per user and visible history: JSON state, stored and reused; None where a method keeps none."""
        return None

    def visible(self, sample: Sample) -> tuple[Record, ...]:
        """The part of a sample's history that `profile` may see; all of it unless a method leaves something out."""
        return sample.history

    @abstractmethod
    async def predict(self, sample: Sample, state: State, ctx: Context) -> str:
        """The answer to one sample, as text."""

    async def update(self, state: State, feedback: Any, ctx: Context) -> State:
        """Online tasks only: the state after feedback on the last answer."""
        return state

    def requirements(self) -> set[str]:
        """What this method, with these parameters, needs: `needs`, and "dates" where records must be dated."""
        return set(self.needs)

    @property
    def profiles(self) -> bool:
        """Whether the method keeps a state per user."""
        return type(self).profile is not Method.profile
