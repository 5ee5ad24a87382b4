"""Token counters, exact and estimated."""

from __future__ import annotations

from abc import ABC, abstractmethod

from personabench.types import Request, to_json

PER_MESSAGE = 16
"""Tokens allowed per message for the role markers and separators of a chat template."""


class Tokens(ABC):
    """The token counter of the model under test."""

    exact: bool = True

    @abstractmethod
    def count(self, text: str) -> int:
        """Count the tokens of a text."""

    @abstractmethod
    def truncate(self, text: str, limit: int) -> str:
        """Return the longest prefix of a text that has at most `limit` tokens."""


class EstimatedTokens(Tokens):
    """A cautious estimate for models without an accessible tokenizer: three bytes per token."""

    exact = False

    def count(self, text: str) -> int:
        size = len(text.encode())
        return _divide_up(size, 3)

    def truncate(self, text: str, limit: int) -> str:
        prefix = text.encode()[: 3 * max(limit, 0)]

        # The byte limit may fall inside a character; its first bytes are dropped.
        return prefix.decode(errors="ignore")


def estimate_max_tokens(request: Request, bytes_per_token: int) -> int:
    """Upper estimate of a prompt's tokens (no tokenizer makes more than one per byte)."""
    size = sum(len(message.content.encode()) for message in request.messages)

    # Servers without constrained decoding put the schema into the prompt.
    if request.schema is not None:
        size += len(to_json(request.schema))

    # One more than there are messages: the template also opens the reply.
    overhead = PER_MESSAGE * (len(request.messages) + 1)
    return _divide_up(size, bytes_per_token) + overhead


def _divide_up(number: int, divisor: int) -> int:
    return -(-number // divisor)
