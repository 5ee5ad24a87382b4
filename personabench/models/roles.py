"""Auxiliary model roles (simulator, judge, profiler), each with its own backend and usage.

The model under test and all roles are called through the same code.  They differ in the phase under
which their calls are booked and in how much of the client the caller can access.  The profiler does
a method's profiling work: its calls keep the phase of that work and are marked instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from personabench.errors import Refused
from personabench.hashing import digest
from personabench.models.call_order import Ordered, next_place
from personabench.types import ONLY_TRY, Call, Message, Phase, Request, Response, Try

if TYPE_CHECKING:
    from personabench.models.client import Client

RoleName = Literal["simulator", "judge", "profiler"]
OPTION_PREFIXES: Mapping[RoleName, str] = {
    "simulator": "simulator",
    "judge": "judge",
    "profiler": "profile",
}
"""The first word of the names of a role's options."""
PHASES: Mapping[RoleName, Phase] = {"simulator": "simulate", "judge": "judge"}
UNWHOLE: Mapping[str, str] = {"length": "truncated", "refused": "refused"}
"""Flags of replies that are returned although they are incomplete, by their finish."""


class Caller:
    """A restricted view of a client, for code that calls a model.

    Attributes:
        flags: counters of what happened on the way.
        window: the model's context window in tokens, or None if unknown; tokens: its token counter.
        seed: the run's seed, which sampled requests derive theirs from.
        sample_id: the sample whose sampled replies are independent of other samples'; "" for none.
        work: the unit of work that its calls belong to, until which is on disk the client keeps
            replies that are not cached.
        is_storable: whether no reply was empty, truncated or refused, so that a result derived from
            them may be stored.
        is_profiler: whether the profiler answers in place of the model under test.
        prefix: the prefix of the names of flags about replies.
    """

    prefix = ""

    def __init__(
        self, client: Client, phase: Phase, unit: str, seed: int, sample_id: str = ""
    ) -> None:
        # Contexts that are made from this one by `copy` add to the same calls.
        self._calls = Ordered[Call]()
        self.flags: dict[str, float] = {}
        self.seed = seed
        self.is_storable = True
        self._phase = phase
        self._unit = unit
        self.sample_id = sample_id
        self.is_profiler = False
        self.work = sample_id or f"{phase} {unit}"
        self._client = client
        self.window = client.window
        self.tokens = client.tokens

    @property
    def calls(self) -> list[Call]:
        """The calls so far, in an order that does not depend on their completion."""
        return self._calls.items

    def flag(self, name: str, by: float = 1) -> None:
        """Count an event to report beside the scores: a fallback, a truncation, a missing part."""
        self.flags[name] = self.flags.get(name, 0) + by

    def _seed(self, request: Request) -> Request:
        """Return a request with its seed, by which equal requests are one call or several.

        A greedy reply is the same for every seed and sample.  Sampled replies to equal requests of
        two samples are independent, and the same when the run is resumed.
        """
        seed = self.seed
        if self._client.backend.is_greedy(request):
            seed = 0
        elif self.sample_id:
            # 31 bits, because servers read a signed integer.
            seed = int(digest([self.seed, self.sample_id])[:8], 16) >> 1
        return msgspec.structs.replace(request, seed=seed)

    async def _ask(
        self,
        request: Request,
        accept: Callable[[str], bool] | None,
        attempt: Try = ONLY_TRY,
    ) -> Response:
        request = self._seed(request)
        place = next_place()
        try:
            response, call = await self._client.complete(
                request,
                self._phase,
                self._unit,
                accept,
                self.flag,
                self.work,
                attempt,
            )
        except Refused as refusal:
            refusal.model = self._client.backend
            raise
        if self.is_profiler:
            call = msgspec.structs.replace(call, profiler=True)
        self._calls.add(place, call)

        self.is_storable &= self._client.is_storable(request, response, accept)
        if response.finish in UNWHOLE:
            self.flag(self.prefix + UNWHOLE[response.finish])
        return response


class Role(Caller):
    """A simulated user or a judge, as a task sees it.

    Attributes:
        name: the role; identity: the identity of its model, independent of location and time.
    """

    def __init__(
        self, name: RoleName, client: Client, unit: str, seed: int, sample_id: str = ""
    ) -> None:
        super().__init__(client, PHASES[name], unit, seed, sample_id)
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
        attempt: Try = ONLY_TRY,
    ) -> str:
        """Call the role's model; plain text is sent as one user message.

        A reply that `accept` rejects is returned but not cached: call again with another `repeat`.
        If the request itself changes from try to try, such as its temperature, state the number of
        the `attempt`, from 0, and of all, so that plans count a repetition as possible.
        A reply truncated at `max_tokens` raises the flag `simulator_truncated` or
        `judge_truncated`, one that a filter withheld or interrupted `simulator_refused` or
        `judge_refused`.

        Raises:
            BackendError: the call failed for good.
        """
        if isinstance(messages, str):
            messages = [Message("user", messages)]

        request = Request(
            tuple(messages),
            max_tokens,
            temperature,
            top_p,
            schema=schema,
            repeat=repeat,
        )
        response = await self._ask(request, accept, attempt)
        return response.text
