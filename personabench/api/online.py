"""Online tasks: rounds of a user's trajectory, each of which ends with the user's reaction."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from personabench.api.interface import Interface
from personabench.api.task import JsonObject, Protocol, Task
from personabench.models.roles import Role
from personabench.types import Sample


class OnlineTask(Task, Interface):
    """A task whose user reacts to every answer; the method learns from the reaction."""

    interface_methods = ("react",)
    protocol: ClassVar[Protocol] = "online"

    @abstractmethod
    async def react(
        self,
        sample: Sample,
        output: str,
        simulator: Role,
    ) -> tuple[JsonObject, JsonObject]:
        """End a round; return the feedback for the method and the interaction to record.

        `sample` is complete, with its references and hidden facts.  A BackendError stops the user's
        trajectory at this round; the same command continues it.
        """
