"""One sample at work, whatever the protocol: who makes calls for it, and the line it ends as.

The engine decides when a sample's turn comes; here is what it hands to the method and the task, and how the receipts
of the model under test and of the simulated user come together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from personabench.api.context import Context
from personabench.api.dataset import Dataset
from personabench.api.task import JsonObject
from personabench.models.roles import Role
from personabench.types import Call, Prediction, Sample, Usage, to_json


@dataclass
class Attempt:
    """All that make calls for a sample: the method when it answers, the simulated user, the method when it learns.

    `profile` is the key of the user's state that the answer was made with.
    """

    ctx: Context
    simulator: Role
    learning: Context
    profile: str | None = None

    @property
    def notes(self) -> dict[str, Any]:
        """What the method told of its work."""
        return {**self.ctx.notes, **self.learning.notes}

    def prediction(
        self,
        sample: Sample,
        output: str | None,
        parsed: str | None,
        record: JsonObject,
        error: str | None,
        attempts: int,
    ) -> Prediction:
        """The sample's line; a failed one has neither answer nor record."""
        flags = dict(self.ctx.flags)
        for name, amount in (*self.simulator.flags.items(), *self.learning.flags.items()):
            flags[name] = flags.get(name, 0) + amount
        own = (*self.ctx.calls, *self.learning.calls)
        usage = Usage(
            sum(call.input_tokens for call in own),
            sum(call.output_tokens for call in own),
            sum(call.cached_tokens for call in own),
        )
        calls: tuple[Call, ...] = (*self.ctx.calls, *self.simulator.calls, *self.learning.calls)
        if error is not None:
            output, parsed, record = None, None, {}
        return Prediction(
            sample.id,
            sample.user_id,
            output,
            parsed,
            flags,
            calls,
            usage,
            error,
            attempts,
            self.profile,
            record,
        )


Act = Callable[[Sample, Attempt], Awaitable[tuple[str, Mapping[str, Any]]]]
"""What a protocol does with a sample: the final answer and what the task wrote down."""


class SingleSamples(Sequence[Sequence[int]]):
    """Positions one at a time, without a list for each."""

    def __init__(self, positions: Sequence[int]) -> None:
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, at: Any) -> Any:
        return (self._positions[at],)


def by_user(dataset: Dataset, positions: Sequence[int]) -> list[list[int]]:
    """Positions of each user together, in the order given."""
    users: dict[str, list[int]] = {}
    for position in positions:
        users.setdefault(dataset.index()[position][1], []).append(position)
    return list(users.values())


def require_text(answer: Any) -> str:
    """A method's answer.

    Raises:
        TypeError: it is no text.
    """
    if not isinstance(answer, str):
        raise TypeError(f"predict() returned {type(answer).__name__}, not text")
    return answer


def plain(value: Any) -> Any:
    """A value as it comes back from disk."""
    return msgspec.json.decode(to_json(value))
