"""Whether to believe a server's own count of a call's tokens, and what to book where it has none worth believing."""

from __future__ import annotations

import asyncio
import re

from personabench.errors import BackendError
from personabench.models.tokens import Tokens, max_tokens_of
from personabench.types import Request, Response, Usage

UNSEEN = 200_000
"""Tokens that a provider may count beside the prompt and the answer: its own instructions, and thoughts."""
SPARSE = 10
"""Characters per token that no tokenizer reaches on ordinary text; the best of English reach 4 to 7, of Hindi 4."""
DENSE = 2.5
"""How many such characters one of Chinese, Japanese or Korean counts for; their tokens hold 1 to 2."""
ORDINARY = 6
"""Characters per token up to which no exact tokenizer is asked."""
SHORT = 0.9
"""The share of an exact count below which a server's is too low."""
_DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_RUN = re.compile(r"\s{2,}|(\S)\1{3,}")


def dearest(request: Request) -> Usage:
    """The most tokens that a call can take."""
    return Usage(max_tokens_of(request, 1), request.max_tokens)


def credible(request: Request, response: Response) -> bool:
    """Whether a reply's usage can be true: there is some, and it is neither negative nor beyond all measure."""
    usage, most = response.usage, dearest(request)
    silent = not request.max_tokens or not (response.text or response.thought)
    return 0 < usage.input_tokens <= most.input_tokens + UNSEEN and (
        (0 if silent else 1) <= usage.output_tokens <= most.output_tokens + UNSEEN
    )


def fewest_tokens(text: str) -> float:
    """A number of tokens that no tokenizer stays below on ordinary text, however it treats blanks and repetitions."""
    return (len(_RUN.sub(" ", text)) + (DENSE - 1) * len(_DENSE.findall(text))) / SPARSE


class Prompts:
    """One server's counts of prompts, which say whether it reads them whole or cuts them without a word.

    A count is too low where it is far below what the text must have, or by an exact tokenizer below what it has; and
    where one count, the highest of all, stands for prompts of very different lengths.
    """

    def __init__(self) -> None:
        self._highest = self._shared = self._shortest = 0

    async def cut(self, request: Request, counted: int, tokens: Tokens) -> bool:
        """Whether the server counted fewer tokens of a prompt than were sent."""
        texts = [message.content for message in request.messages]
        size = sum(map(len, texts))
        if self._stuck(size, counted):
            return True
        if tokens.exact:
            return size > ORDINARY * counted and await asyncio.to_thread(
                _short, texts, counted, tokens
            )
        widest = size if all(map(str.isascii, texts)) else DENSE * size
        return widest > SPARSE * counted and sum(map(fewest_tokens, texts)) > counted

    def _stuck(self, size: int, counted: int) -> bool:
        if counted > self._highest:
            self._highest, self._shared, self._shortest = counted, 1, size
            return False
        if counted < self._highest:
            return False
        self._shared += 1
        self._shortest = min(self._shortest, size)
        return self._shared > 2 and size >= 2 * self._shortest


def _short(texts: list[str], counted: int, tokens: Tokens) -> bool:
    """Whether a count is below a tokenizer's own, which a server may have to be asked for."""
    try:
        return counted < SHORT * sum(map(tokens.count, texts))
    except BackendError:
        return False
