"""Cases of ALOE: each of some profiles with each of some personalities.

A folder holds two lists, `profiles` and `personalities`, each as JSON (texts or objects) or as JSON
lines of objects with a `text`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from personabench.errors import DataError

_ENDINGS = (".json", ".jsonl")
_KEYS = ("text", "profile", "personality", "description")


class Case(NamedTuple):
    """A simulated user: the facts about the person and the manner of talking."""

    id: str
    profile: str
    personality: str


def read_cases(folder: Path, profiles: int, personalities: int) -> Iterator[Case]:
    """Combine the first profiles with the first personalities.

    Raises:
        DataError: a file is missing or broken; the message names file and entry.
    """
    people = _read_texts(folder, "profiles")[:profiles]
    manners = _read_texts(folder, "personalities")[:personalities]
    for number, profile in enumerate(people):
        for position, personality in enumerate(manners):
            yield Case(f"profile-{number:02d}-{position}", profile, personality)


def _read_texts(folder: Path, name: str) -> list[str]:
    candidates = [folder / f"{name}{ending}" for ending in _ENDINGS]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise DataError(f"{folder} has no {name}.json or {name}.jsonl")
    try:
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            entries = [json.loads(line) for line in content.splitlines() if line.strip()]
        else:
            entries = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: expected a list of texts")
    return [_read_text(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, 1)]


def _read_text(entry: Any, location: str) -> str:
    if isinstance(entry, dict):
        entry = next((entry[key] for key in _KEYS if key in entry), None)
    # A profile may be a list of sentences.
    if isinstance(entry, list) and all(isinstance(line, str) for line in entry):
        entry = "\n".join(entry)
    if not isinstance(entry, str) or not entry.strip():
        keys = ", ".join(_KEYS)
        raise DataError(f"{location}: expected a text, or an object with one of: {keys}")
    return entry.strip()
