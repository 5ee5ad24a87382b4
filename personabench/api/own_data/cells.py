"""Read the cells of one's own tables: texts, lists of choices, dates."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def read_text(value: Any) -> str:
    """Return a cell as text; empty for a missing value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool | int | float):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def read_texts(value: Any) -> tuple[str, ...]:
    """Return a list of texts: a JSON list, text separated by `|`, or a single text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return (value.strip(),)
    if isinstance(value, str):
        value = value.split("|")
    items = value if isinstance(value, list) else [value]
    texts = [read_text(item) for item in items]
    return tuple(text for text in texts if text)


def read_time(value: Any) -> str:
    """Return a time as ISO text in UTC, or a count of seconds as its digits; empty if missing.

    Raises:
        ValueError: it is neither.
    """
    text = read_text(value)
    if not text or text.isdecimal():
        # A year or a count since an epoch: both sort as numbers.
        return text
    time = datetime.fromisoformat(text)
    if time.tzinfo is not None:
        time = time.astimezone(UTC).replace(tzinfo=None)
    return text if len(text) == len("2024-01-31") else time.isoformat()


def find_choice(answer: str, choices: tuple[str, ...]) -> str | None:
    """Return the choice that an answer names by its text or its letter; None if it names none."""
    if answer in choices:
        return answer
    letter = answer.strip("().").upper()
    if len(letter) == 1 and letter in LETTERS[: len(choices)]:
        return choices[LETTERS.index(letter)]
    return None
