"""PersonaFeedback's choice between two answers (arXiv 2506.12915): parsing, personas and metrics.

Here the model under test chooses, so an unparsed reply is wrong, and counted.  Both orders are
requested by default; the cheap mode shows each item in one order, from a hash, and is named so.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from personabench.errors import DataError
from personabench.metrics.judges.verdict_reader import strip_thoughts

_ANSWER = re.compile(
    r"answer[\s*_`]*:[\s*_`(\[]*([AB])\b(?!\W*(?:or|and)?\W*[AB]\b)", re.IGNORECASE
)
_LONE = re.compile(r"[\s*_`(\[\"']*([AB])[\s.*_`)\]\"']*", re.IGNORECASE)


class ChoicePair(NamedTuple):
    """The letters picked with the chosen answer shown as A, and with it shown as B.

    None is an unparsed reply.
    """

    shown_as_a: str | None
    shown_as_b: str | None


class ChoiceScores(NamedTuple):
    """Numbers over items, each 0 to 1.

    Attributes:
        strict: right in both orders.
        mean: right, averaged over both orders.
        flip: orders that disagree on the content.
        first: share of parsed picks that name the answer shown first, None without any.
        unparsed: number of replies that could not be parsed.
    """

    strict: float
    mean: float
    flip: float
    first: float | None
    unparsed: int


def read_choice(reply: str) -> str | None:
    """Parse the letter of a reply: a lone A or B, else the last "answer: X".

    None if the reply names neither or both.
    """
    text = strip_thoughts(reply)
    lone_letter = _LONE.fullmatch(text)
    if lone_letter:
        return lone_letter[1].upper()

    answers = _ANSWER.findall(text)
    return str(answers[-1]).upper() if answers else None


def score_choices(items: Sequence[ChoicePair]) -> ChoiceScores:
    """Score items that were shown in both orders.

    Raises:
        ValueError: no items.
    """
    if not items:
        raise ValueError("no items to score")

    strict = correct = flips = unparsed = 0
    picks = []
    for item in items:
        correct_as_a = item.shown_as_a == "A"
        correct_as_b = item.shown_as_b == "B"
        strict += correct_as_a and correct_as_b
        correct += correct_as_a + correct_as_b
        # The same letter in both orders means a different answer.
        flips += item.shown_as_a is not None and item.shown_as_a == item.shown_as_b
        unparsed += item.count(None)
        picks += [pick for pick in item if pick is not None]

    return ChoiceScores(
        strict=strict / len(items),
        mean=correct / (2 * len(items)),
        flip=flips / len(items),
        first=picks.count("A") / len(picks) if picks else None,
        unparsed=unparsed,
    )


def read_persona(
    path: Path,
    user_id: int,
) -> dict[str, Any]:
    """Read a user's persona from a file of JSON lines; user ids are line numbers from 1.

    Blank lines are not counted.

    Raises:
        DataError: the line is missing or not a JSON object.
    """
    with path.open("rb") as file:
        # Spreadsheets and Windows editors write a byte order mark.
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        lines = (line for line in file if line.strip())
        for number, line in enumerate(lines, 1):
            if number == user_id:
                return _parse_persona(path, number, line)
    raise DataError(f"{path} has no line {user_id} for the persona of that user")


def _parse_persona(
    path: Path,
    number: int,
    line: bytes,
) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: line {number} is not a persona: {error}") from error
