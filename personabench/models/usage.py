"""Checks of the token counts that servers report, and the usage to book if they fail."""

from __future__ import annotations

import asyncio
import re

from personabench.errors import BackendError
from personabench.models.tokens import Tokens, estimate_max_tokens
from personabench.types import Request, Response, Usage

UNSEEN = 200_000
"""Tokens that a provider may count in addition: its own instructions, and thoughts."""
SPARSE = 10
"""Characters per token that no tokenizer reaches on ordinary text (English: 4 to 7, Hindi: 4)."""
DENSE = 2.5
"""Weight of a Chinese, Japanese or Korean character, of which a token holds 1 to 2."""
ORDINARY = 6
"""Characters per token up to which a count is accepted without the exact tokenizer."""
SHORT = 0.9
"""The share of an exact count below which a server's count is too low."""
_DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_RUN = re.compile(r"\s{2,}|(\S)\1{3,}")


def max_usage(request: Request) -> Usage:
    """Return the most tokens that a call can take."""
    return Usage(estimate_max_tokens(request, 1), request.max_tokens)


def is_credible(request: Request, response: Response) -> bool:
    """Whether a reply's usage is plausible: present, not negative, within the call's limits."""
    usage = response.usage
    has_reply = bool(response.text or response.thought)
    min_output = 1 if request.max_tokens and has_reply else 0
    if usage.input_tokens <= 0 or usage.output_tokens < min_output:
        return False

    # Measuring a prompt takes longer than all else here, and is rarely needed.
    if max(usage.input_tokens, usage.output_tokens) <= UNSEEN:
        return True
    limit = max_usage(request)
    is_input_possible = usage.input_tokens <= limit.input_tokens + UNSEEN
    return is_input_possible and usage.output_tokens <= limit.output_tokens + UNSEEN


def fewest_tokens(text: str) -> float:
    """Lower bound of the tokens of ordinary text, however blanks and repetitions are counted."""
    length = len(_RUN.sub(" ", text))
    dense = 0 if text.isascii() else len(_DENSE.findall(text))
    return (length + (DENSE - 1) * dense) / SPARSE


class PromptCounts:
    """One server's token counts of prompts, which reveal whether it silently truncates them.

    A count is too low if it is far below the fewest tokens that the text can have, or, with an
    exact tokenizer, below the true number.  It is also too low if the same count, the highest of
    all, is reported for prompts of very different lengths.
    """

    def __init__(self) -> None:
        self._highest = 0
        self._prompts_at_highest = 0
        self._shortest_at_highest = 0

    async def is_truncated(self, request: Request, counted: int, tokens: Tokens) -> bool:
        """Whether the server counted fewer tokens of a prompt than were sent."""
        texts = [message.content for message in request.messages]
        size = sum(map(len, texts))
        if self._is_at_limit(size, counted):
            return True

        if tokens.exact:
            # Counting a long prompt takes time, and only a suspiciously low count is worth it.
            if size <= ORDINARY * counted:
                return False
            return await asyncio.to_thread(_is_below_exact_count, texts, counted, tokens)

        is_ascii = all(map(str.isascii, texts))
        max_size = size if is_ascii else DENSE * size
        if max_size <= SPARSE * counted:
            return False
        return sum(map(fewest_tokens, texts)) > counted

    def _is_at_limit(self, size: int, counted: int) -> bool:
        if counted > self._highest:
            self._highest = counted
            self._prompts_at_highest = 1
            self._shortest_at_highest = size
            return False
        if counted < self._highest:
            return False

        self._prompts_at_highest += 1
        self._shortest_at_highest = min(self._shortest_at_highest, size)
        # Two prompts may share a count by chance; a third one twice as long as the shortest does
        # not.
        return self._prompts_at_highest > 2 and size >= 2 * self._shortest_at_highest


def _is_below_exact_count(texts: list[str], counted: int, tokens: Tokens) -> bool:
    try:
        exact = sum(map(tokens.count, texts))
    except BackendError:
        # A server's tokenizer may be out of reach; that is no evidence against its counts.
        return False
    return counted < SHORT * exact
