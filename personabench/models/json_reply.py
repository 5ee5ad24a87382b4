"""Find JSON in a reply that also holds other text, in time that is linear in its length."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

# A reply of nothing but brackets would otherwise be parsed from each of them to its end.
_PASSES = 16
# Characters that an attempt counts for that exhausts the stack.
_DEEP = 4_000
# The error of a failure counts the lines before it, which is that much faster than parsing.
_COUNTING = 16
# A bracket that cannot begin JSON, as in LaTeX, is no attempt.
_BEGINNING = re.compile(r"\{[ \t\n\r]*[\"}]|\[[ \t\n\r]*[\[{\"\]\w-]")
_BRACKETS = re.compile(r"[{\[]")


class JsonValue(NamedTuple):
    """A JSON value in a text, and where it ends."""

    value: Any
    end: int


class JsonScanner:
    """Parses JSON values at positions of a text.

    Line breaks within strings are accepted.  After failures that have read the text several times,
    it stops, and finds nothing more.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._decoder = json.JSONDecoder(strict=False)
        self._characters = _PASSES * (len(text) + 1_000)

    @property
    def is_exhausted(self) -> bool:
        """Whether it has stopped."""
        return self._characters <= 0

    def read(self, position: int) -> JsonValue | None:
        """Parse the value at a position; None if there is none."""
        if self.is_exhausted or not _BEGINNING.match(self._text, position):
            return None
        try:
            value = JsonValue(*self._decoder.raw_decode(self._text, position))
        except json.JSONDecodeError as error:
            # The error of a string without end points at its beginning.
            is_unterminated = error.msg.startswith("Unterminated")
            end = len(self._text) if is_unterminated else error.pos
            self._characters -= end - position + error.pos // _COUNTING + 1
            return None
        except (ValueError, RecursionError):
            # A number too long to convert, or brackets too deep.
            self._characters -= _DEEP + position // _COUNTING
            return None
        self._characters -= value.end - position + 1
        return value

    def read_all(self) -> Iterator[Any]:
        """Parse the objects and lists at all brackets, those within others too."""
        for bracket in _BRACKETS.finditer(self._text):
            if self.is_exhausted:
                return
            read = self.read(bracket.start())
            if read is not None:
                yield read.value
