"""Who else a task talks to: a simulated user and a judge, each a model of its own with its own receipts.

The model under test, the simulator and the judge are asked through the same code; they differ in the phase that their
calls are booked under and in what the caller gets to see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from personabench.types import Call, Message, Phase, Request, Response

if TYPE_CHECKING:
    from personabench.models.client import Client

RoleName = Literal["simulator", "judge"]
PHASES: Mapping[RoleName, Phase] = {"simulator": "simulate", "judge": "judge"}
UNWHOLE: Mapping[str, str] = {"length": "truncated", "refused": "refused"}
"""The flags of replies that are handed on although they are not whole, by how they ended."""


class Caller:
    """Somebody's way to a model.

    Attributes:
        calls: receipts of the calls made so far; flags: what happened on the way, counted.
        window: the model's context window in tokens, or None when nobody knows it; tokens: its token counter.
        seed: the seed of every request.
        settled: no reply was empty, cut short or refused, so that what was made of the replies is worth keeping.
        prefix: what the names of flags about replies begin with.
    """

    prefix = ""

    def __init__(self, client: Client, phase: Phase, unit: str, seed: int) -> None:
        self.calls: list[Call] = []
        self.flags: dict[str, float] = {}
        self.window = client.window
        self.tokens = client.tokens
        self.seed = seed
        self.settled = True
        self._client = client
        self._phase = phase
        self._unit = unit

    def flag(self, name: str, by: float = 1) -> None:
        """Count something worth showing beside the scores: a fallback, a cut, a missing part."""
        self.flags[name] = self.flags.get(name, 0) + by

    async def _ask(self, request: Request, accept: Callable[[str], bool] | None) -> Response:
        response, call = await self._client.complete(
            request, self._phase, self._unit, accept, self.flag
        )
        self.calls.append(call)
        self.settled &= self._client.is_storable(request, response, accept)
        if response.finish in UNWHOLE:
            self.flag(self.prefix + UNWHOLE[response.finish])
        return response


class Role(Caller):
    """A simulated user or a judge, as a task sees it.

    Attributes:
        name: which of them; identity: what names its model, free of place and time.
    """

    def __init__(self, name: RoleName, client: Client, unit: str, seed: int) -> None:
        super().__init__(client, PHASES[name], unit, seed)
        self.name = name
        self.prefix = f"{name}_"
        self.identity = client.backend.identity

    async def complete(
        self,
        messages: Sequence[Message] | str,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        schema: Mapping[str, Any] | None = None,
        repeat: int = 0,
        accept: Callable[[str], bool] | None = None,
    ) -> str:
        """Ask; plain text is one user message.

        A reply that `accept` refuses is handed on but not remembered: ask again with another `repeat`.  A reply cut at
        `max_tokens` raises the flag `simulator_truncated` or `judge_truncated`, one that a filter withheld or broke off
        `simulator_refused` or `judge_refused`.

        Raises:
            BackendError: the call failed for good.
        """
        told = (Message("user", messages),) if isinstance(messages, str) else tuple(messages)
        request = Request(told, max_tokens, temperature, top_p, self.seed, schema, repeat=repeat)
        return (await self._ask(request, accept)).text
