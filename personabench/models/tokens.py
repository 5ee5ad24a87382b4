"""Token counters, exact and estimated."""

from __future__ import annotations

from abc import ABC, abstractmethod

from personabench.types import Request, to_json


class Tokens(ABC):
    """The token counter of the model under test."""

    exact: bool = True

    @abstractmethod
    def count(self, text: str) -> int:
        """Number of tokens of a text."""

    @abstractmethod
    def cut(self, text: str, limit: int) -> str:
        """The longest prefix of a text that has at most `limit` tokens."""


class EstimatedTokens(Tokens):
    """A cautious guess, three bytes to a token, for models whose tokenizer is out of reach."""

    exact = False

    def count(self, text: str) -> int:
        return -(-len(text.encode()) // 3)

    def cut(self, text: str, limit: int) -> str:
        return text.encode()[: 3 * max(limit, 0)].decode(errors="ignore")


PER_MESSAGE = 16


def max_tokens_of(request: Request, bytes_per_token: int) -> int:
    """Tokens of a prompt, estimated from above; no tokenizer makes more than one of a byte."""
    size = sum(len(message.content.encode()) for message in request.messages)
    if request.schema is not None:
        size += len(to_json(request.schema))
    return -(-size // bytes_per_token) + PER_MESSAGE * (len(request.messages) + 1)
