"""The `Method` interface: up to four coroutines and a frozen dataclass of parameters.

    class LastThree(Method):
        "Answer with the user's three newest records as examples."
        name = "last3"

        async def predict(self, sample, state, ctx):
            return await ctx.answer(sample, records=sample.history[::-1][:3])

Only `predict` is required.  A method calls the model through its `Context` and never sees
references, other users' golds or the future.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from personabench.api.contracts import METHOD, guard_methods
from personabench.api.prompts import PromptFile
from personabench.errors import UsageError
from personabench.types import Record, Sample, User

if TYPE_CHECKING:
    from personabench.api.context import Context
    from personabench.api.population import Population

State = Any
"""A user's profile as returned by `Method.profile`: any JSON value."""


def retrieval_needs(retriever: str) -> set[str]:
    """Return the needs of a retriever: dates if it sorts by time.

    Raises:
        UsageError: unknown retriever.
    """
    # Imported late: reading a method's class must not load the retrievers.
    from personabench.retrieval.search import SEARCHES

    if retriever not in SEARCHES:
        choices = ", ".join(SEARCHES)
        raise UsageError(f"unknown retriever '{retriever}'; choose one of {choices}")

    return {"dates"} if "recency" in retriever else set()


class Method(ABC):
    """A personalization method.

    Attributes:
        name: its name on the command line.
        paper: the source, with its arXiv id.
        version: to be raised when prompts or behaviour change; with the source's hash it is part of
            every cache key.
        needs: the capabilities of a task that it uses, out of `personabench.api.capabilities`;
            "history|feedback" is either.  They alone decide if it runs on a task.
        designed_for: patterns of the task names of its paper; on other tasks it runs as "adapted",
            which is a label and decides nothing else.
        paper_settings: its paper's values of parameters (as in `resolved_params`) and of
            temperature, top_p and max_tokens; a list has several values that the paper reports.  A
            run that differs is labelled "adapted", with its differences.
        privileged: True for an oracle, which sees hidden facts.
        rule: True for a trivial rule, which methods have to beat to be worth a model call.
        uses_profiler: True if `ctx.profiling()` does a part of its work beside `profile`.
        prompts: the template files of its texts and of methods that it answers with; None if its
            texts are in its code, where they cannot be replaced.
        composed_of: for a method inside of wrappers (`rag+remind`), the names of all; else empty.
        Params: a frozen dataclass of its parameters, typed, with defaults; `--set k=8` fills it.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    version: ClassVar[int] = 1
    needs: ClassVar[Sequence[str]] = ()
    designed_for: ClassVar[Sequence[str]] = ("*",)
    paper_settings: ClassVar[Mapping[str, Any]] = {}
    privileged: ClassVar[bool] = False
    rule: ClassVar[bool] = False
    uses_profiler: ClassVar[bool] = False
    prompts: ClassVar[Sequence[PromptFile] | None] = None
    composed_of: ClassVar[Sequence[str]] = ()

    @dataclasses.dataclass(frozen=True)
    class Params:
        """Parameters of the method; none by default."""

    def __init__(self, params: Any = None) -> None:
        self.params: Any = params if params is not None else self.Params()
        if not hasattr(self, "name"):
            # The registry names classes that it loads; a test may create one without it.
            self.name = type(self).__name__  # type: ignore[misc]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        guard_methods(cls, METHOD)

    async def close(self) -> None:
        """End the run: release everything that the method holds elsewhere, such as on a server."""

    async def prepare(
        self,
        population: Population,
        ctx: Context,
    ) -> None:
        """Prepare once per run with all users' histories; keep results on `self`."""

    async def profile(self, user: User, ctx: Context) -> State:
        """Learn a profile, once per user and visible history, as JSON to be stored and reused."""
        return None

    def visible(self, sample: Sample) -> tuple[Record, ...]:
        """Return the part of a sample's history that `profile` may see; all of it by default."""
        return sample.history

    @abstractmethod
    async def predict(
        self,
        sample: Sample,
        state: State,
        ctx: Context,
    ) -> str:
        """Answer one sample, as text."""

    async def update(
        self,
        state: State,
        feedback: Any,
        ctx: Context,
    ) -> State:
        """Return the profile after feedback on the last answer; called in online tasks only."""
        return state

    def requirements(self) -> set[str]:
        """Return the needs under the given parameters; a parameter may add some to `needs`."""
        return set(self.needs)

    def resolved_params(self) -> Mapping[str, Any]:
        """Return the parameters by name as the method uses them, with presets filled in."""
        return dataclasses.asdict(self.params)

    @property
    def profiles(self) -> bool:
        """Whether the method learns profiles."""
        # Overriding `profile` is the declaration; a separate flag could contradict it.
        return type(self).profile is not Method.profile


guard_methods(Method, METHOD)
