"""Redaction: keep keys and header values out of everything that a server sends.

A secret is removed from error messages and answers, so that it appears in no file: as a whole, by
its words, and in the half-masked form (`sk-ab***yz`) in which servers like to quote it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from personabench.types import Response

EXCERPT = 300
"""Characters of a server's text that a message quotes."""
# Shorter values are too common in ordinary text to be removed from it.
_SHORTEST_SECRET = 4
_SHORTEST_WORD = 8
_MASKED_LENGTH = 200
_WORD = re.compile(r"[^\s'\"]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Secrets:
    """Values that must not be repeated.

    Args:
        values: keys and header values; those of fewer than four characters are too common to
            remove.
    """

    def __init__(self, values: Iterable[str]) -> None:
        secrets = {value for value in values if len(value) >= _SHORTEST_SECRET}
        # Longest first, so that a secret that contains another is removed as a whole.
        self._whole = sorted(secrets, key=len, reverse=True)
        self._long = [value for value in self._whole if len(value) >= _SHORTEST_WORD]

        # Servers quote parts of a header, such as the key after "Bearer".
        words = {
            word
            for value in self._whole
            for word in re.split(r"[\s;,=]+", value)
            if len(word) >= _SHORTEST_WORD
        }
        self._whole_and_words = sorted(secrets | words, key=len, reverse=True)
        # A text is cut before secrets are removed, at a length that leaves none in halves.
        longest = max(map(len, self._whole), default=0)
        self._read = EXCERPT + max(longest, _MASKED_LENGTH)

    def strike(self, message: object) -> str:
        """Remove the secrets, their words, and anything that looks half-masked from a message."""
        text = str(message)
        if "***" in text:
            text = _WORD.sub(_hide_masked, text)
        for secret in self._whole_and_words:
            text = text.replace(secret, "***")
        return text

    def quote(self, text: str) -> str:
        """Return the start of a server's text, on one line and without secrets."""
        # Cut first: a server may send megabytes.
        excerpt = self.strike(text[: self._read])[:EXCERPT]
        # Escape sequences would reach the terminal.
        return _CONTROL.sub(" ", excerpt).strip() or "(nothing)"

    def clean(self, answer: Response) -> Response:
        """Remove the long secrets from a model's answer; returns the same object if it has none."""
        # Only the long ones: a short header value may be an ordinary word of an answer.
        for secret in self._long:
            texts = (answer.text, answer.thought, answer.model, answer.served)
            if any(secret in text for text in texts):
                answer = msgspec.structs.replace(
                    answer,
                    text=answer.text.replace(secret, "***"),
                    thought=answer.thought.replace(secret, "***"),
                    model=answer.model.replace(secret, "***"),
                    served=answer.served.replace(secret, "***"),
                )
        return answer


def _hide_masked(word: re.Match[str]) -> str:
    return "***" if "***" in word[0] else word[0]
