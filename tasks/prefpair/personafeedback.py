"""PersonaFeedback's files: two answers to a question, of which one suits a persona.

Items are in two tracks, general and specific, and three tiers, which the names of their files or
folders tell.  A persona is a line of the file of personas; a user's id is the number of the line,
from 1.  A folder of memories has one file for each user.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from personabench.api.rows import ENDINGS, Row, is_table, read_rows
from personabench.errors import DataError
from personabench.hashing import digest
from personabench.metrics.judges.personafeedback import read_persona
from personabench.tasks.prefpair.comparison import Comparison
from personabench.types import Record, normalized

Setting = Literal["none", "persona", "memory"]
TRACKS = ("general", "specific")
TIERS = ("easy", "medium", "hard")
CELLS = tuple(f"{track}-{tier}" for track in TRACKS for tier in TIERS)
PARTS = ("Name", "Demographics", "Personality", "Preference", "Bias")
# A folder of the published data is misspelt.
_SPELLINGS = {"general": "general", "specific": "specific", "spedific": "specific"}
_MEMORY_FOLDERS = ("memory", "memories")
_MEMORY_FIELDS = ("memory", "text", "content")


def read_comparisons(
    root: Path, setting: Setting, counts: Counter[str], with_personas: bool = False
) -> Iterator[Comparison]:
    """Read the items of all tracks and tiers.

    Args:
        root: the folder with the items, the file of personas and, for memory, the memories.
        setting: nothing of a user, the persona, or the memories as a history.
        with_personas: whether comparisons have the persona as profile in every setting.
        counts: receives the number of "items", and of records with their sample's "own prompt".

    Raises:
        DataError: a file is missing or broken, or a row lacks a field.
    """
    files = _find_items(root)
    personas = _find_personas(root)
    profiles: dict[int, str] = {}
    memories: dict[int, tuple[Record, ...]] = {}
    for path, cell in files:
        ids: Counter[str] = Counter()
        before = counts["items"]
        for row in read_rows(path):
            counts["items"] += 1
            user = _read_user(row)
            if (with_personas or setting == "persona") and user not in profiles:
                profiles[user] = word_persona(read_persona(personas, user))
            if setting == "memory" and user not in memories:
                memories[user] = tuple(_read_memories(root, user, row.location))

            question = row.read_text("question")
            chosen, rejected = row.read_text("chosen"), row.read_text("reject")
            # Sorted, so that an id does not depend on which of the two is preferred.
            content = digest([user, question, sorted([chosen, rejected])])[:12]
            ids[content] += 1
            repeat = f".{ids[content]}" if ids[content] > 1 else ""
            own = normalized(question)
            history = tuple(
                record
                for record in memories.get(user, ())
                if own not in (normalized(record.response), normalized(record.stimulus or ""))
            )
            counts["own prompt"] += len(memories.get(user, ())) - len(history)
            yield Comparison(
                f"{cell}-{content}{repeat}",
                str(user),
                question,
                (chosen, rejected),
                history,
                profile=profiles.get(user, ""),
                hidden={"cell": cell},
                location=row.location,
            )
        if counts["items"] == before:
            raise DataError(f"{path} has no items, expected those of {cell}")


def word_persona(persona: Mapping[str, Any]) -> str:
    """Write a persona as lines of text, in the order of the published parts, others after them."""
    names = sorted(persona, key=lambda name: (PARTS.index(name) if name in PARTS else 99, name))
    return "\n".join(f"{name}: {_flatten(persona[name])}" for name in names if persona[name])


def _flatten(part: Any) -> str:
    if isinstance(part, Mapping):
        return "; ".join(f"{name}: {_flatten(part[name])}" for name in sorted(part) if part[name])
    if isinstance(part, list | tuple):
        return ", ".join(_flatten(inner) for inner in part)
    return str(part)


def _find_items(root: Path) -> list[tuple[Path, str]]:
    """The files of items with their cells, track and tier, in the order of the cells."""
    files = []
    for path in sorted(root.rglob("*")):
        cell = name_cell(path.relative_to(root)) if is_table(path) else None
        if cell is not None:
            files.append((path, cell))
    if not files:
        raise DataError(
            f"{root} has no items: expected files whose names or folders tell track and tier, "
            "such as general/easy.jsonl"
        )
    return sorted(files, key=lambda file: (CELLS.index(file[1]), file[0]))


def name_cell(path: Path) -> str | None:
    """Return track and tier of a file by its path; None if it tells none."""
    text = path.as_posix().casefold()
    tracks = {track for spelling, track in _SPELLINGS.items() if spelling in text}
    tiers = {tier for tier in TIERS if tier in text}
    if len(tracks) != 1 or len(tiers) != 1:
        return None
    return f"{tracks.pop()}-{tiers.pop()}"


def _find_personas(root: Path) -> Path:
    paths = [path for path in sorted(root.rglob("*.jsonl")) if "persona" in path.stem.casefold()]
    if len(paths) != 1:
        listing = ", ".join(str(path) for path in paths) or "none"
        raise DataError(
            f"{root} must have one file of personas, such as personas.jsonl; it has: {listing}"
        )
    return paths[0]


def _read_user(row: Row) -> int:
    user = row["user_id"]
    # The cells of CSV are text; int() alone would read true as 1 and 1.7 as 1.
    if type(user) is int or (isinstance(user, str) and user.strip().isdecimal()):
        return int(user)
    raise DataError(
        f"{row.location}: user_id is {user!r}, expected the number of a line in the file of "
        "personas"
    )


def _read_memories(root: Path, user: int, location: str) -> Iterator[Record]:
    paths = [
        root / folder / f"{user}{ending}" for folder in _MEMORY_FOLDERS for ending in ENDINGS[:2]
    ]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise DataError(
            f"{location}: user {user} has no memories in {root}: expected {paths[0]}, or choose "
            "--set task.setting=persona or none"
        )
    number = 0
    for number, row in enumerate(read_rows(path), start=1):
        text = next((row[field] for field in _MEMORY_FIELDS if field in row), None)
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f"{row.location}: no text of a memory; expected a field {', '.join(_MEMORY_FIELDS)}"
            )
        yield Record(f"memory-{user}-{number}", response=text.strip())
    if not number:
        raise DataError(f"{path} has no rows, expected the memories of user {user}")
