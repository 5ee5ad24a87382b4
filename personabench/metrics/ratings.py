"""Answers on a numeric scale: reading the number, its error, and the root mean squared error."""

from __future__ import annotations

import math
import re

import numpy as np
import numpy.typing as npt

_WORDS = {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
_WORD = re.compile(rf"\b({'|'.join(_WORDS)})\b")
_NUMBER = r"(?<![\w.\-])\d+(?:\.\d+)?(?!\w)"
_SHARE = re.compile(rf"({_NUMBER})\s*(?:stars?\s*)?(?:/|out of|of)\s*(\d+)(?!\w)")


def number(text: str) -> float | None:
    """A finite number written as nothing but a number; None otherwise."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def find_rating(text: str, low: int, high: int) -> float | None:
    """The only rating from `low` to `high` in a text, decimals included; None when there is none or several.

    Reads "4", "4/5", "4 out of 5", "4 stars" and, where a text has no digits, the words one to five.  A mention of
    the scale itself ("from 1 to 5") is not an answer, nor is a share of another scale ("8/10").
    """
    text = text.casefold()
    if not re.search(r"\d", text):
        text = _WORD.sub(lambda match: _WORDS[match[1]], text)
    text = re.sub(rf"\b{low}\s*(?:-|–|to)\s*{high}\b", " ", text)
    text = _SHARE.sub(lambda match: match[1] if match[2] == str(high) else " ", text)
    found = {float(match) for match in re.findall(_NUMBER, text)}
    inside = {value for value in found if low <= value <= high}
    return inside.pop() if len(inside) == 1 else None


def worst(gold: float, low: float, high: float) -> float:
    """The end of the scale farther from the gold; the upper one where both are equally far."""
    return low if abs(low - gold) > abs(high - gold) else high


def rmse(squares: npt.NDArray[np.float64]) -> float:
    """The root of the mean of squared errors, shape (n,)."""
    return float(np.sqrt(squares.mean()))
