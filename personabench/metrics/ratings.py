"""Answers on a numeric scale: parse the number, and the root mean squared error."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from personabench.metrics.metric import Floats

_DIGITS = {
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
}
_NUMBER_WORD = re.compile(rf"\b({'|'.join(_DIGITS)})\b")
_NUMBER = r"(?<![\w.\-])\d+(?:\.\d+)?(?!\w)"
_SHARE = re.compile(rf"({_NUMBER})\s*(?:stars?\s*)?(?:/|out of|of)\s*(\d+)(?!\w)")


def parse_number(text: str) -> float | None:
    """Parse a finite number written as nothing but a number; None otherwise."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def find_rating(
    text: str,
    low: int,
    high: int,
) -> float | None:
    """Find the only rating from `low` to `high` in a text, decimals included.

    None if there are none or several.  Understands "4", "4/5", "4 out of 5", "4 stars" and, in a
    text without digits, the words one to five.  A mention of the scale itself ("from 1 to 5") is
    not an answer, nor is a share of another scale ("8/10").
    """

    def replace_share(match: re.Match[str]) -> str:
        return match[1] if match[2] == str(high) else " "

    text = text.casefold()
    # "one of the best, 4 stars" has a digit, so its "one" is not a rating.
    if not re.search(r"\d", text):
        text = _NUMBER_WORD.sub(lambda match: _DIGITS[match[1]], text)
    text = re.sub(rf"\b{low}\s*(?:-|–|to)\s*{high}\b", " ", text)
    text = _SHARE.sub(replace_share, text)

    numbers = {float(match) for match in re.findall(_NUMBER, text)}
    ratings = {number for number in numbers if low <= number <= high}
    return ratings.pop() if len(ratings) == 1 else None


def farthest_rating(
    gold: float,
    low: float,
    high: float,
) -> float:
    """The end of the scale farther from the gold; the upper one if both are equally far."""
    return low if abs(low - gold) > abs(high - gold) else high


def rmse(squares: Floats) -> float:
    """The root of the mean of squared errors, shape (n,)."""
    return math.sqrt(float(squares.mean()))
