"""A judge who reads from a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from personabench.types import Message


@dataclass
class JudgeCall:
    """One call as the judge got it."""

    system: str
    user: str
    repeat: int
    temperature: float
    max_tokens: int
    kept: bool
    """Whether the reply would have been remembered."""


@dataclass
class Scripted:
    """Replies with `answer(call)`; `calls` are all it was asked."""

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
        asked = JudgeCall(
            messages[0].content, messages[-1].content, repeat, temperature, max_tokens, True
        )
        self.calls.append(asked)
        reply = self.answer(asked)
        asked.kept = accept is None or accept(reply)
        return reply
