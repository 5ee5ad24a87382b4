"""A judge with scripted replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from personabench.types import Message


@dataclass
class JudgeCall:
    """One call to the judge."""

    system: str
    user: str
    repeat: int
    temperature: float
    max_tokens: int
    cached: bool
    """Whether the reply would have been cached."""


@dataclass
class Scripted:
    """Replies with `answer(call)` and keeps all calls."""

    answer: Callable[[JudgeCall], str]
    calls: list[JudgeCall] = field(default_factory=list)

    async def complete(
        self,
        messages: Sequence[Message] | str,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        repeat: int = 0,
        accept: Callable[[str], bool] | None = None,
    ) -> str:
        assert not isinstance(messages, str)
        call = JudgeCall(
            messages[0].content, messages[-1].content, repeat, temperature, max_tokens, True
        )
        self.calls.append(call)
        reply = self.answer(call)
        call.cached = accept is None or accept(reply)
        return reply
