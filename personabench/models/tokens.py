"""Token counters, exact and estimated."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from personabench.types import Request, to_json

# Characters per token of ordinary text (English: 4 to 5 on average), and bytes per token of ASCII.
_MOST_CHARACTERS = 6
_LEAST_BYTES = 3
# Chinese, Japanese and Korean characters, of which a token holds one or two.
_DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
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


def bound_tokens(request: Request) -> tuple[float, float]:
    """Bound the tokens of a prompt by the ordinary lengths of tokens, whatever the tokenizer.

    A token holds at most six characters of ordinary text on average, and at least three of ASCII;
    of other scripts it may hold a single byte.  The upper bound has the separators of a chat
    template and the schema.
    """
    texts = [message.content for message in request.messages]
    characters = sum(map(len, texts))
    dense = sum(len(_DENSE.findall(text)) for text in texts)
    fewest = (characters + (_LEAST_BYTES - 1) * dense) / _MOST_CHARACTERS

    ascii_size = sum(len(text.encode("ascii", "ignore")) for text in texts)
    other_size = sum(len(text.encode()) for text in texts) - ascii_size
    if request.schema is not None:
        ascii_size += len(to_json(request.schema))
    overhead = PER_MESSAGE * (len(texts) + 1)
    return fewest, ascii_size / _LEAST_BYTES + other_size + overhead + len(texts)


def _divide_up(number: int, divisor: int) -> int:
    return -(-number // divisor)
