"""PersonaFeedback's choice between two answers (arXiv 2506.12915): parsing, personas and metrics.

Here the model under test chooses, so a reply that cannot be read is wrong, and counted.  Both orders are asked by
default; an order of its own for each item, from a hash, is the cheap mode and is named so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from personabench.errors import DataError
from personabench.metrics.judges.ask import spoken

_ANSWER = re.compile(
    r"answer[\s*_`]*:[\s*_`(\[]*([AB])\b(?!\W*(?:or|and)?\W*[AB]\b)", re.IGNORECASE
)
_LONE = re.compile(r"[\s*_`(\[\"']*([AB])[\s.*_`)\]\"']*", re.IGNORECASE)


class Turns(NamedTuple):
    """Which letters were picked with the chosen answer shown as A, and with it shown as B; None is unreadable."""

    straight: str | None
    turned: str | None


class Figures(NamedTuple):
    """Numbers over items, each 0 to 1: right in both orders, right on average, orders that disagree on the content.

    `first` is the share of readable picks that name the answer shown first, None without any; `unread` counts replies.
    """

    strict: float
    mean: float
    flip: float
    first: float | None
    unread: int


def read(reply: str) -> str | None:
    """The letter of a reply: a lone A or B, else the last "answer: X"; None for neither and for both letters."""
    text = spoken(reply)
    lone = _LONE.fullmatch(text)
    if lone:
        return lone[1].upper()
    found = _ANSWER.findall(text)
    return str(found[-1]).upper() if found else None


def figures(items: Sequence[Turns]) -> Figures:
    """The metrics of some items asked in both orders.

    Raises:
        ValueError: no items.
    """
    if not items:
        raise ValueError("no items to score")
    rights = [(each.straight == "A", each.turned == "B") for each in items]
    picks = [pick for each in items for pick in each if pick is not None]
    return Figures(
        strict=sum(a and b for a, b in rights) / len(items),
        mean=sum(a + b for a, b in rights) / (2 * len(items)),
        flip=sum(each.straight is not None and each.straight == each.turned for each in items)
        / len(items),
        first=picks.count("A") / len(picks) if picks else None,
        unread=sum(pick is None for each in items for pick in each),
    )


def persona(path: Path, user_id: int) -> dict[str, Any]:
    """The persona of a user in a file of JSON lines; user ids are line numbers from 1.

    Raises:
        DataError: no such line, or it is no JSON object.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == user_id:
                try:
                    return msgspec.json.decode(line, type=dict[str, Any])
                except msgspec.DecodeError as error:
                    raise DataError(f"{path}: line {number} is no persona: {error}") from error
    raise DataError(f"{path} has no line {user_id}, where that user's persona would stand")
