"""Dialogue tasks: a conversation leads to the answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable
from typing import ClassVar
from typing import Protocol as CallProtocol

from personabench.api.context import Context
from personabench.api.interface import Interface
from personabench.api.task import JsonObject, Protocol, Task
from personabench.models.roles import Role
from personabench.types import ONLY_TRY, Sample, Try


class Reply(CallProtocol):
    """The method under test, called with a variant of a sample; hidden facts are removed first."""

    def __call__(
        self,
        sample: Sample,
        /,
        attempt: Try = ONLY_TRY,
        temperature: float | None = None,
    ) -> Awaitable[str]:
        """Return the method's answer.

        Args:
            attempt: the number of the try, from 0, and of all tries, of an answer that is requested
                again if the task cannot read it; plans count a repetition as possible.
            temperature: of this answer alone, in place of the run's.
        """


class DialogueTask(Task, Interface):
    """A task that leads a conversation with the method before the final answer."""

    interface_methods = ("converse",)
    protocol: ClassVar[Protocol] = "dialogue"

    @abstractmethod
    async def converse(
        self,
        sample: Sample,
        reply: Reply,
        ctx: Context,
        simulator: Role,
    ) -> tuple[str, JsonObject]:
        """Lead one sample's conversation; return the final answer and the interaction to record.

        `sample` is complete, with its references and hidden facts.  `reply(variant)` calls the
        method under test on the sample with another `dialogue`, history or attributes; `ctx` calls
        the model under test without the method.
        """
